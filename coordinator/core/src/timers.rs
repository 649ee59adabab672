//! One pending timer a transaction or session, in a heap with lazy removal: a hot
//! transaction ends long before its timer, which then finds nobody.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::Time;

/// Timers that may be there for nobody.
const SPARE: usize = 4096;

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

    /// Drops timers that nobody waits for any more, where they are many beside `live`
    /// ones: waits may be long, and what waited be gone.
    pub(crate) fn prune(&mut self, live: usize, is_live: impl Fn(Time, &Id) -> bool) {
        if self.heap.len() > 2 * live + SPARE {
            self.heap.retain(|Reverse((at, id))| is_live(*at, id));
        }
    }

    /// The next timer that is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<(Time, Id)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_of_what_is_gone_do_not_pile_up() {
        let mut timers = Timers::default();
        for number in 0..100_000_u64 {
            timers.set(Time(1_000_000 + number), number);
            timers.prune(1, |_, id| *id == number);
        }
        assert!(timers.heap.len() <= SPARE + 3);
        assert!(timers.heap.iter().any(|Reverse((_, id))| *id == 99_999), "the live one");
    }
}
