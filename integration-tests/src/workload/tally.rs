//! Counting what clients do.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::history::Kind;

/// Of one kind of transaction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) tried: usize,
    pub(crate) committed: usize,
    pub(crate) aborted: usize,
    /// Never known to the client: it had no key to ask again with.
    pub(crate) untold: usize,
    /// Answers that left the outcome open.
    pub(crate) unknown: usize,
    /// Calls after the first.
    pub(crate) retries: usize,
}

/// What clients did, all of them together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    pub(crate) by_kind: BTreeMap<Kind, Count>,
    /// Status codes and open states of unknown answers.
    pub(crate) unknown_as: BTreeMap<String, usize>,
    pub(crate) abort_reasons: BTreeMap<String, usize>,
    /// Known outcomes that were asked for again.
    pub(crate) asked_again: usize,
    /// Uses of a key with another body, all refused.
    pub(crate) other_bodies: usize,
}

/// [`Numbers`] that all clients share.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Numbers>);

impl Tally {
    pub(crate) fn count(&self, kind: Kind, change: impl FnOnce(&mut Count)) {
        change(self.lock().by_kind.entry(kind).or_default());
    }

    pub(crate) fn unknown(&self, kind: Kind, how: &str) {
        let mut numbers = self.lock();
        numbers.by_kind.entry(kind).or_default().unknown += 1;
        *numbers.unknown_as.entry(how.into()).or_default() += 1;
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.lock());
    }

    pub(crate) fn numbers(&self) -> Numbers {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// All kinds together.
    pub(crate) fn total(&self) -> Count {
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
