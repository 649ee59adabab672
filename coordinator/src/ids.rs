//! Transaction ids: UUIDv7 that only grow.

use common::TransactionId;
use common_store::Random;
use coordinator_core::Time;
use uuid::Builder;

/// Makes ids, each greater than all before, whatever the clock does.
pub(crate) struct Ids {
    last: u128,
    random: Random,
}

impl Ids {
    /// Ids from here on are greater than `last`, the newest in the journal.
    pub(crate) fn after(last: Option<TransactionId>, random: Random) -> Self {
        Self { last: last.map_or(0, |id| u128::from_be_bytes(*id.as_bytes())), random }
    }

    pub(crate) fn next(&mut self, now: Time) -> TransactionId {
        let [random @ .., _, _, _, _, _, _] = (self.random)();
        let id = Builder::from_unix_timestamp_millis(now.0 / 1000, &random).into_uuid().as_u128();
        // Within a millisecond, or where the clock was set back: the last bits
        // are random, so counting up in them keeps the version and variant.
        self.last = id.max(self.last + 1);
        self.newest()
    }

    /// The newest id that was made.
    pub(crate) fn newest(&self) -> TransactionId {
        TransactionId::from_bytes(self.last.to_be_bytes())
    }
}

/// The smallest id that a transaction begun at `at` can have.
pub(crate) fn floor(at: Time) -> TransactionId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&(at.0 / 1000).to_be_bytes()[2..]);
    TransactionId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

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
    fn an_id_is_a_uuid_of_version_7_that_begins_with_its_time() {
        let at = Time(1_700_000_000_123_456);
        let id = Ids::after(None, random()).next(at);
        assert!(id > floor(at), "{id}");
        assert!(id < floor(Time(at.0 + 1000)), "{id}");
        assert_eq!(id.to_string().as_bytes()[14], b'7');
    }
}
