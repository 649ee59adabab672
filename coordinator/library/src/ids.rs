//! Transaction ids: UUIDv7 that only grow.

use std::{collections::VecDeque, time::Duration};

use dtc_core::Time;
use dtc_protocol::TransactionId;
use dtc_runtime::Random;
use uuid::Builder;

/// Makes ids, each greater than all before that the journal has, whatever the
/// clock does.
///
/// Ids of an earlier run may be with participants and not in the journal. Where
/// the clock was set back, the next run counts from a millisecond of its own, with
/// random bits of its own, so that it makes none of them again.
pub(crate) struct Ids {
    last: u128,
    /// Milliseconds since 1970; the time in an id is not before.
    earliest: u64,
    random: Random,
    /// The newest id at some times, the oldest first.
    marks: VecDeque<(Time, u128)>,
}

impl Ids {
    /// Ids from here on are greater than `last`, the newest in the journal.
    pub(crate) fn after(last: Option<TransactionId>, random: Random) -> Self {
        let last = last.map_or(0, |id| u128::from_be_bytes(*id.as_bytes()));
        // The first 48 bits are the time.
        let earliest = ((last >> 80) as u64).wrapping_add(1);
        Self { last, earliest, random, marks: VecDeque::new() }
    }

    pub(crate) fn next(&mut self, now: Time) -> TransactionId {
        let [random @ .., _, _, _, _, _, _] = (self.random)();
        let millis = (now.0 / 1000).max(self.earliest);
        let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_u128();
        // Within a millisecond: the last bits are random, so counting up in them
        // keeps the version and variant.
        self.last = id.max(self.last + 1);
        self.newest()
    }

    /// An id above some that were made at least `age` ago, and of none that was made
    /// since: told by asking now and then, since the time in an id may be off.
    pub(crate) fn older_than(&mut self, age: Duration, now: Time) -> TransactionId {
        self.marks.push_back((now, self.last));
        let is_old = |(at, _): &(Time, u128)| *at + age <= now;
        while self.marks.get(1).is_some_and(is_old) {
            self.marks.pop_front();
        }
        let oldest = self.marks.front().filter(|it| is_old(it));
        TransactionId::from_bytes(oldest.map_or(0, |(_, id)| id + 1).to_be_bytes())
    }

    /// The newest id that was made.
    pub(crate) fn newest(&self) -> TransactionId {
        TransactionId::from_bytes(self.last.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, sync::Arc};

    fn random() -> Random {
        Arc::new(rand::random)
    }

    #[test]
    fn ids_grow_even_when_the_clock_goes_back() {
        let mut ids = Ids::after(None, random());
        let first = ids.next(Time(2_000_000_000_000_000));
        let second = ids.next(Time(1_000_000_000_000_000));
        assert!(second > first);
        assert!(Ids::after(Some(second), random()).next(Time(0)) > second);
    }

    #[test]
    fn a_run_makes_none_of_the_ids_of_the_one_before_though_the_clock_was_set_back() {
        let newest = Ids::after(None, random()).next(Time(2_000_000_000_000_000));
        let run = || {
            let mut ids = Ids::after(Some(newest), random());
            (0..1000).map(|_| ids.next(Time(1_000_000_000_000_000))).collect::<BTreeSet<_>>()
        };
        // Nothing of the first is in the journal when the second starts.
        let (first, second) = (run(), run());
        assert_eq!((first.len(), second.len()), (1000, 1000));
        assert!(first.is_disjoint(&second));
        assert!(first.iter().chain(&second).all(|id| *id > newest));
    }

    #[test]
    fn how_old_an_id_is_does_not_follow_from_the_time_in_it() {
        // The clock was set back by 25 hours, and the run before has made this.
        let newest = Ids::after(None, random()).next(Time(2_000_000_000_000_000));
        let start = Time(2_000_000_000_000_000 - 25 * 3_600_000_000);
        let age = Duration::from_secs(30);
        let mut ids = Ids::after(Some(newest), random());
        let first = ids.next(start);
        assert!(ids.older_than(age, start) < first);
        let second = ids.next(start + age / 2);
        assert!(ids.older_than(age, start + age / 2) < first, "the first is 15 s old");
        let old = ids.older_than(age, start + age);
        assert!(first < old && old <= second, "the first is 30 s old, the second is not");
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_begins_with_its_time() {
        let at = Time(1_700_000_000_123_456);
        let id = Ids::after(None, random()).next(at);
        assert_eq!(id.as_bytes()[..6], 1_700_000_000_123_u64.to_be_bytes()[2..]);
        assert_eq!(id.to_string().as_bytes()[14], b'7');
    }
}
