//! Counting what clients do.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::history::Kind;

/// Of one kind of transaction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) tried: usize,
    pub(super) committed: usize,
    pub(super) aborted: usize,
    /// Never known to the client: it had no key to ask again with.
    pub(super) untold: usize,
    /// Answers that left the outcome open.
    pub(super) unknown: usize,
    /// Calls after the first.
    pub(super) retries: usize,
}

/// What clients did, all of them together.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub(super) by_kind: BTreeMap<Kind, Count>,
    /// Status codes and open states of unknown answers.
    pub(super) unknown_as: BTreeMap<String, usize>,
    pub(super) abort_reasons: BTreeMap<String, usize>,
    /// Known outcomes that were asked for again.
    pub(super) asked_again: usize,
    /// Uses of a key with another body, all refused.
    pub(super) other_bodies: usize,
}

/// [`Numbers`] that all clients share.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Numbers>);

impl Tally {
    pub(super) fn count(&self, kind: Kind, change: impl FnOnce(&mut Count)) {
        change(self.lock().by_kind.entry(kind).or_default());
    }

    pub(super) fn unknown(&self, kind: Kind, how: &str) {
        let mut numbers = self.lock();
        numbers.by_kind.entry(kind).or_default().unknown += 1;
        *numbers.unknown_as.entry(how.into()).or_default() += 1;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.lock());
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// All kinds together.
    pub(super) fn total(&self) -> Count {
        self.by_kind.values().fold(Count::default(), |sum, count| Count {
            tried: sum.tried + count.tried,
            committed: sum.committed + count.committed,
            aborted: sum.aborted + count.aborted,
            untold: sum.untold + count.untold,
            unknown: sum.unknown + count.unknown,
            retries: sum.retries + count.retries,
        })
    }
}
