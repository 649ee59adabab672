//! One pending timer a transaction or session, in a heap with lazy removal: a hot
//! transaction ends long before its timer, which then finds nobody.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::Time;

#[derive(Debug, Clone)]
pub(crate) struct Timers<Id> {
    heap: BinaryHeap<Reverse<(Time, Id)>>,
}

impl<Id: Ord> Default for Timers<Id> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<Id: Ord> Timers<Id> {
    pub(crate) fn set(&mut self, at: Time, id: Id) {
        self.heap.push(Reverse((at, id)));
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next timer that is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<(Time, Id)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }
}
