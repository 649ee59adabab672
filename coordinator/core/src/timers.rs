//! One pending timer a transaction, in a heap with lazy removal: a hot
//! transaction ends long before its timer, which then finds nobody.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use common::TransactionId;

use crate::Time;

#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, TransactionId)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Time, id: TransactionId) {
        self.heap.push(Reverse((at, id)));
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next timer that is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<(Time, TransactionId)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }
}
