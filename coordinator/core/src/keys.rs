//! Request keys in use, and requests that wait for the journal to say whether their
//! key was used before.
//!
//! Invariants:
//! - One look at the journal a key at a time; requests with the same key wait for it
//!   together, in the order in which they came.
//! - What waits is counted: requests that would be begun as such, the others, which
//!   hold no payload, by a bound of their own.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use dtc_protocol::TransactionId;

use crate::{Begin, Fingerprint, Reply, RequestKey};

/// Requests that are looked for only.
pub(crate) const MAX_REPEATS: usize = 65_536;

#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    in_use: BTreeMap<RequestKey, (TransactionId, Fingerprint)>,
    /// By the run that asked the journal.
    pending: BTreeMap<TransactionId, Waiting>,
    /// How many of them would be begun, and the bytes of their payloads.
    new: usize,
    new_bytes: usize,
    /// How many are looked for only.
    repeats: usize,
}

/// Requests that wait for the journal to say whose their key is.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) key: RequestKey,
    first: PendingLookup,
    others: Vec<PendingLookup>,
}

impl Waiting {
    /// In the order in which they came.
    fn iter(&self) -> impl Iterator<Item = &PendingLookup> {
        core::iter::once(&self.first).chain(&self.others)
    }

    /// The same.
    pub(crate) fn into_requests(self) -> impl Iterator<Item = PendingLookup> {
        core::iter::once(self.first).chain(self.others)
    }
}

/// A request that waits for the journal.
#[derive(Debug, Clone)]
pub(crate) struct PendingLookup {
    pub(crate) begin: Box<Begin>,
    /// What is answered where the key is new; none where it is begun then.
    pub(crate) refusal: Option<Reply>,
}

impl PendingLookup {
    /// One that is refused where it is no repeat keeps nothing that it would need.
    pub(crate) fn new(mut begin: Box<Begin>, refusal: Option<Reply>) -> Self {
        if refusal.is_some() {
            (begin.branches, begin.locks) = (Vec::new(), Vec::new());
        }
        Self { begin, refusal }
    }

    fn bytes(&self) -> usize {
        self.begin.branches.iter().map(|branch| branch.payload.len()).sum()
    }
}

impl Keys {
    /// Who uses a key, perhaps a request whose lookup is pending.
    pub(crate) fn user(&self, key: &RequestKey) -> Option<(TransactionId, Fingerprint)> {
        self.in_use.get(key).copied()
    }

    pub(crate) fn take(&mut self, key: RequestKey, id: TransactionId, fingerprint: Fingerprint) {
        self.in_use.insert(key, (id, fingerprint));
    }

    pub(crate) fn release(&mut self, key: &RequestKey, id: TransactionId) {
        if let Some((user, fingerprint)) = self.in_use.remove(key).filter(|(user, _)| *user != id) {
            self.in_use.insert(key.clone(), (user, fingerprint));
        }
    }

    pub(crate) fn is_looked_up(&self, id: TransactionId) -> bool {
        self.pending.contains_key(&id)
    }

    /// Whether one more may be looked for only.
    pub(crate) fn has_room_for_a_repeat(&self) -> bool {
        self.repeats < MAX_REPEATS
    }

    /// Keeps a request until the journal has been asked for its key, whose `user` is
    /// pending, if there is one. True where that is to be asked for it, false where it is
    /// being asked for another.
    pub(crate) fn look_up(
        &mut self,
        key: RequestKey,
        fingerprint: Fingerprint,
        user: Option<TransactionId>,
        pending: PendingLookup,
    ) -> bool {
        match pending.refusal {
            None => (self.new, self.new_bytes) = (self.new + 1, self.new_bytes + pending.bytes()),
            Some(_) => self.repeats += 1,
        }
        if let Some(waiting) = user.and_then(|id| self.pending.get_mut(&id)) {
            // Whoever begins with this body does so for this one as well.
            if pending.begin.id_may_be_known {
                let mut all = core::iter::once(&mut waiting.first).chain(&mut waiting.others);
                let same = |it: &&mut PendingLookup| {
                    it.refusal.is_none() && it.begin.key == pending.begin.key
                };
                if let Some(same) = all.find(same) {
                    same.begin.id_may_be_known = true;
                }
            }
            waiting.others.push(pending);
            return false;
        }
        let id = pending.begin.id;
        self.take(key.clone(), id, fingerprint);
        self.pending.insert(id, Waiting { key, first: pending, others: Vec::new() });
        true
    }

    /// Those that waited for an answer of the journal. Their key stays the first one's
    /// until [`Self::answered`].
    pub(crate) fn unpark(&mut self, id: TransactionId) -> Option<Waiting> {
        let waiting = self.pending.remove(&id)?;
        for pending in waiting.iter() {
            match pending.refusal {
                None => {
                    self.new -= 1;
                    self.new_bytes -= pending.bytes();
                }
                Some(_) => self.repeats -= 1,
            }
        }
        Some(waiting)
    }

    /// The journal has answered about a key that `first` waited with: it is that of the run
    /// that has begun with it, or nobody's.
    pub(crate) fn answered(
        &mut self,
        key: &RequestKey,
        first: TransactionId,
        begun: Option<(TransactionId, Fingerprint)>,
    ) {
        match begun {
            Some((user, _)) if user == first => {}
            Some((user, fingerprint)) => self.take(key.clone(), user, fingerprint),
            None => self.release(key, first),
        }
    }

    /// The requests that asked the journal, with how many others wait with each.
    pub(crate) fn all_pending(&self) -> impl Iterator<Item = (TransactionId, usize)> {
        self.pending.iter().map(|(id, waiting)| (*id, waiting.others.len()))
    }

    /// The runs that wait, and those that want their keys.
    pub(crate) fn all_begins(&self) -> impl Iterator<Item = TransactionId> {
        let pending = self.pending.values();
        pending.flat_map(Waiting::iter).map(|it| it.begin.id)
    }

    /// The runs that hold a key.
    pub(crate) fn users(&self) -> impl Iterator<Item = TransactionId> {
        self.in_use.values().map(|(id, _)| *id)
    }

    /// Requests that would be begun.
    pub(crate) fn pending_count(&self) -> usize {
        self.new
    }

    /// The bytes of their payloads.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.new_bytes
    }
}
