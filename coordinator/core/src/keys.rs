//! Request keys in use, and runs that wait for the journal to say whether their
//! key was used before.

use alloc::{collections::BTreeMap, vec::Vec};

use common::TransactionId;

use crate::{Begin, Fingerprint, RequestKey, Waiter};

#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    in_use: BTreeMap<RequestKey, (TransactionId, Fingerprint)>,
    parked: BTreeMap<TransactionId, Parked>,
    /// Runs in `parked`, rivals included.
    waiting: usize,
}

/// A run that has not started, and who else waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    pub(crate) begin: Begin,
    pub(crate) others: Vec<Waiter>,
    /// Requests with the same key and another body: the key may turn out to be
    /// theirs.
    pub(crate) rivals: Vec<Begin>,
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
        let parked = Parked { begin, others: Vec::new(), rivals: Vec::new() };
        self.parked.insert(parked.begin.id, parked);
        self.waiting += 1;
    }

    /// Keeps a request until it is known whose the key of a parked run is.
    pub(crate) fn park_rival(&mut self, user: TransactionId, begin: Begin) {
        if let Some(parked) = self.parked.get_mut(&user) {
            parked.rivals.push(begin);
            self.waiting += 1;
        }
    }

    pub(crate) fn is_parked(&self, id: TransactionId) -> bool {
        self.parked.contains_key(&id)
    }

    pub(crate) fn parked(&mut self, id: TransactionId) -> Option<&mut Parked> {
        self.parked.get_mut(&id)
    }

    pub(crate) fn unpark(&mut self, id: TransactionId) -> Option<Parked> {
        let parked = self.parked.remove(&id)?;
        self.waiting -= 1 + parked.rivals.len();
        Some(parked)
    }

    /// The runs that wait, with how many clients joined each or want its key.
    pub(crate) fn all_parked(&self) -> impl Iterator<Item = (TransactionId, usize)> {
        self.parked.iter().map(|(id, parked)| (*id, parked.others.len() + parked.rivals.len()))
    }

    /// The runs that wait, and those that want their keys.
    pub(crate) fn all_begins(&self) -> impl Iterator<Item = TransactionId> {
        let parked = self.parked.values();
        parked.flat_map(|it| core::iter::once(it.begin.id).chain(it.rivals.iter().map(|it| it.id)))
    }

    /// The runs that hold a key.
    pub(crate) fn users(&self) -> impl Iterator<Item = TransactionId> {
        self.in_use.values().map(|(id, _)| *id)
    }

    pub(crate) fn parked_count(&self) -> usize {
        self.waiting
    }
}
