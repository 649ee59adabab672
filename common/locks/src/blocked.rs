//! Why a request for locks cannot go on, in words.

use alloc::{format, string::String};
use core::{fmt, time::Duration};

use dtc_protocol::TransactionId;

use super::{Deadlocks, LockKey};

/// Why a request was refused because of a deadlock, or had to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked<O> {
    /// The key that it could not have.
    pub key: LockKey,
    /// Who is in the way.
    pub by: O,
    /// Whether that one holds the key, or is ahead in its queue.
    pub holds: bool,
    /// What was done about deadlocks.
    pub policy: Deadlocks,
}

impl<O: fmt::Display> Blocked<O> {
    /// As in 'lock "a" is held by transaction 0192...'.
    fn words(&self) -> String {
        let Self { key, by, .. } = self;
        match self.holds {
            true => format!("lock '{key}' is held by {by}"),
            false => format!("{by} is ahead of it in the queue for lock '{key}'"),
        }
    }

    /// The message of a request that was refused; `first` is the age to keep.
    pub fn deadlock(&self, first: TransactionId) -> String {
        let words = self.words();
        let which = match self.policy {
            Deadlocks::WaitDie => "that one is older, and only the older one may wait",
            Deadlocks::Detect => "each waits for the other, and this one is the youngest",
        };
        format!("deadlock: {words}; {which}; retry as a new transaction with retry_of = {first}")
    }
}

/// The message of a wait that timed out; `by` is who was in the way at last.
pub(crate) fn timed_out<O: fmt::Display>(waited: Duration, by: Option<&Blocked<O>>) -> String {
    let waited = Duration::from_millis(waited.as_millis() as u64);
    let words = by.map_or_else(|| String::from("the locks were not granted"), Blocked::words);
    format!("{words} (waited for {waited:?})")
}
