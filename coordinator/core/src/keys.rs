//! Request keys in use, and runs that wait for the journal to say whether their
//! key was used before.

use alloc::{collections::BTreeMap, vec::Vec};

use common::TransactionId;

use crate::{Begin, Fingerprint, RequestKey, Waiter};

#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    in_use: BTreeMap<RequestKey, (TransactionId, Fingerprint)>,
    parked: BTreeMap<TransactionId, Parked>,
}

/// A run that has not started, and who else waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    pub(crate) begin: Begin,
    pub(crate) others: Vec<Waiter>,
}

impl Keys {
    pub(crate) fn user(&self, key: &RequestKey) -> Option<(TransactionId, Fingerprint)> {
        self.in_use.get(key).copied()
    }

    pub(crate) fn take(&mut self, key: RequestKey, id: TransactionId, fingerprint: Fingerprint) {
        self.in_use.insert(key, (id, fingerprint));
    }

    pub(crate) fn release(&mut self, key: &RequestKey, id: TransactionId) {
        if self.in_use.get(key).is_some_and(|(user, _)| *user == id) {
            self.in_use.remove(key);
        }
    }

    pub(crate) fn park(&mut self, begin: Begin) {
        self.parked.insert(begin.id, Parked { begin, others: Vec::new() });
    }

    pub(crate) fn parked(&mut self, id: TransactionId) -> Option<&mut Parked> {
        self.parked.get_mut(&id)
    }

    pub(crate) fn unpark(&mut self, id: TransactionId) -> Option<Parked> {
        self.parked.remove(&id)
    }

    /// The runs that wait, with how many clients joined each.
    pub(crate) fn all_parked(&self) -> impl Iterator<Item = (TransactionId, usize)> {
        self.parked.iter().map(|(id, parked)| (*id, parked.others.len()))
    }

    /// The runs that hold a key.
    pub(crate) fn users(&self) -> impl Iterator<Item = TransactionId> {
        self.in_use.values().map(|(id, _)| *id)
    }

    pub(crate) fn parked_count(&self) -> usize {
        self.parked.len()
    }
}
