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
    use core::cell::Cell;

    use super::*;

    /// Sets timers of which those below `live` stay. Returns the most that were there, and
    /// how often it was asked whether one is live.
    fn set_many(live: u64, gone: u64) -> (usize, usize) {
        let mut timers = Timers::default();
        let (mut most, asked) = (0, Cell::new(0));
        for number in 0..live + gone {
            timers.set(Time(1_000_000 + number), number);
            timers.prune(live as usize, |_, id| {
                asked.set(asked.get() + 1);
                *id < live
            });
            most = most.max(timers.heap.len());
        }
        let left = timers.heap.iter().filter(|Reverse((_, id))| *id < live).count();
        assert_eq!(left as u64, live, "the live ones");
        (most, asked.get())
    }

    #[test]
    fn timers_of_what_is_gone_do_not_pile_up() {
        for live in [1, 20_000] {
            let (most, _) = set_many(live, 100_000);
            assert!(most <= 2 * live as usize + SPARE + 1, "{live} live: {most}");
        }
    }

    #[test]
    fn each_timer_is_looked_at_a_few_times_however_many_are_live() {
        for live in [1000, 20_000] {
            let (_, asked) = set_many(live, 100_000);
            assert!(asked <= 4 * 100_000, "{live} live: {asked}");
        }
    }
}
