//! The journal in memory, for tests and for programs that embed the coordinator: a
//! new identity at each start.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use dtc_core::{Intervention, RequestKey};
use dtc_protocol::{CoordinatorId, Incarnation, SessionId, TransactionId, fence::Run};
use tokio::time::Instant;

use super::{
    Durable, Entry, Forgotten, Journal, JournalError, Keep, Key, Recalled, Registration, Retention,
    Stored, User, body,
};

/// See [`Journal`].
#[derive(Debug)]
pub struct MemoryJournal {
    coordinator: CoordinatorId,
    run: Run,
    opened: Instant,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    transactions: BTreeMap<TransactionId, Kept>,
    keys: BTreeMap<String, User>,
    participants: BTreeMap<String, Registration>,
    sessions: BTreeMap<SessionId, Vec<u8>>,
    /// The newest that was removed.
    watermark: Option<TransactionId>,
}

/// A transaction, with what clean-up needs to know.
#[derive(Debug)]
struct Kept {
    stored: Stored,
    /// When, since the journal was made.
    ended: Duration,
    keep: Keep,
    key: Option<String>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryJournal {
    /// An empty one, of a new coordinator.
    pub fn new() -> Self {
        Self {
            coordinator: CoordinatorId::from_bytes(rand::random()),
            run: Run { epoch: 1, incarnation: Incarnation::from_bytes(rand::random()) },
            opened: Instant::now(),
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn write(&mut self, entry: Entry, now: Duration) {
        match entry {
            Entry::Begin { id, key, body } => self.transaction(id, key).stored.begin = Some(body),
            Entry::Decision { id, key, body } => {
                let stored = &mut self.transaction(id, key).stored;
                (stored.begin, stored.decision) = (None, Some(body));
            }
            Entry::End { id, keep, body } => {
                let transaction = self.transaction(id, None);
                transaction.stored.end = Some(body);
                (transaction.ended, transaction.keep) = (now, keep);
            }
            Entry::Session { id, body } => drop(self.sessions.insert(id, body)),
            Entry::SessionEnd { id } => drop(self.sessions.remove(&id)),
        }
    }

    /// A new one, if need be, with its key.
    fn transaction(&mut self, id: TransactionId, key: Option<Key>) -> &mut Kept {
        let transaction = self.transactions.entry(id).or_insert_with(|| Kept {
            stored: Stored { id, begin: None, decision: None, end: None },
            ended: Duration::ZERO,
            keep: Keep::default(),
            key: None,
        });
        if let Some((key, fingerprint)) = key {
            transaction.key = Some(key.clone());
            self.keys.insert(key, (id, fingerprint));
        }
        transaction
    }

    fn forget(&mut self, id: TransactionId) {
        self.watermark = self.watermark.max(Some(id));
        let Some(Kept { key: Some(key), .. }) = self.transactions.remove(&id) else {
            return;
        };
        // A later transaction may have it by now.
        if self.keys.get(&key).is_some_and(|(user, _)| *user == id) {
            self.keys.remove(&key);
        }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    fn coordinator(&self) -> CoordinatorId {
        self.coordinator
    }

    fn run(&self) -> Run {
        self.run
    }

    fn was_mine(&self, run: &Run) -> bool {
        *run == self.run
    }

    async fn is_replaced(&self) -> Result<bool, JournalError> {
        Ok(false)
    }

    fn append(&self, entries: Vec<Entry>, _forced: bool, durable: Durable) {
        let mut held = self.held();
        let now = self.opened.elapsed();
        entries.into_iter().for_each(|entry| held.write(entry, now));
        drop(held);
        durable();
    }

    async fn find_keys(&self, keys: Vec<RequestKey>) -> Result<Vec<Option<User>>, JournalError> {
        let held = self.held();
        Ok(keys.iter().map(|key| held.keys.get(&**key).copied()).collect())
    }

    async fn find(&self, id: TransactionId) -> Result<Option<Stored>, JournalError> {
        Ok(self.held().transactions.get(&id).map(|it| it.stored.clone()))
    }

    async fn recall(&self, id: TransactionId, _epoch: u64) -> Result<Recalled, JournalError> {
        let held = self.held();
        Ok(match held.transactions.get(&id) {
            Some(found) => Recalled::Stored(Box::new(found.stored.clone())),
            None if Some(id) <= held.watermark => Recalled::Forgotten,
            None => Recalled::Never,
        })
    }

    fn notified(&self, id: TransactionId, branch: u32) {
        let now = self.opened.elapsed();
        let mut held = self.held();
        let Some(transaction) = held.transactions.get_mut(&id) else { return };
        let Some(end) = &mut transaction.stored.end else { return };
        let Ok((body, all)) = body::with_notified(end, branch) else { return };
        *end = body;
        if transaction.keep.unnotified && all {
            transaction.keep.unnotified = false;
            transaction.ended = now;
        }
    }

    async fn finished(
        &self,
        before: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let held = self.held();
        let newest = held.transactions.values().rev().map(|it| &it.stored);
        let older = newest.filter(|stored| before.is_none_or(|before| stored.id < before));
        Ok(older.filter(|stored| stored.end.is_some()).take(limit).cloned().collect())
    }

    async fn unfinished(&self) -> Result<Vec<Stored>, JournalError> {
        let held = self.held();
        let all = held.transactions.values().map(|it| &it.stored);
        Ok(all.filter(|stored| stored.end.is_none()).cloned().collect())
    }

    async fn lost(&self) -> Result<Vec<Stored>, JournalError> {
        Ok(Vec::new())
    }

    async fn sessions(&self) -> Result<Vec<(SessionId, Vec<u8>)>, JournalError> {
        Ok(self.held().sessions.iter().map(|(id, session)| (*id, session.clone())).collect())
    }

    async fn newest(&self) -> Result<Option<TransactionId>, JournalError> {
        Ok(self.held().transactions.keys().next_back().copied())
    }

    async fn register(&self, registration: Registration) -> Result<(), JournalError> {
        self.held().participants.insert(registration.name.clone(), registration);
        Ok(())
    }

    async fn deregister(&self, name: &str) -> Result<(), JournalError> {
        self.held().participants.remove(name);
        Ok(())
    }

    async fn registered(&self) -> Result<Vec<Registration>, JournalError> {
        Ok(self.held().participants.values().cloned().collect())
    }

    async fn release(&self, id: TransactionId, done: Intervention) -> Result<bool, JournalError> {
        let mut held = self.held();
        let Some(transaction) = held.transactions.get_mut(&id).filter(|it| it.keep.operator) else {
            return Ok(false);
        };
        if let Some(end) = &mut transaction.stored.end {
            *end = body::with_intervention(end, &done)?;
        }
        transaction.keep.operator = false;
        Ok(true)
    }

    async fn forget(&self, retention: Retention, limit: usize) -> Result<Forgotten, JournalError> {
        let Some(cutoff) = self.opened.elapsed().checked_sub(retention.age) else {
            return Ok(Forgotten::default());
        };
        let mut held = self.held();
        let may_go =
            |it: &Kept| it.keep == Keep::default() && it.stored.end.is_some() && it.ended < cutoff;
        let old = held.transactions.iter().filter(|(_, it)| may_go(it));
        let gone: Vec<_> = old.map(|(id, _)| *id).take(limit).collect();
        gone.iter().for_each(|id| held.forget(*id));
        let count = gone.len();
        Ok(Forgotten { count, more: count == limit, ..Forgotten::default() })
    }

    fn keep_time(&self) {}

    fn kept(&self) -> (u64, u64) {
        let held = self.held();
        let count = |which: fn(&Keep) -> bool| {
            held.transactions.values().filter(|it| which(&it.keep)).count() as u64
        };
        (count(|it| it.operator), count(|it| it.unnotified))
    }

    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::conformance::Subject;

    struct InMemory;

    impl Subject for InMemory {
        fn open(&self) -> Arc<dyn Journal> {
            Arc::new(MemoryJournal::new())
        }

        fn take_over(&self) -> Option<Arc<dyn Journal>> {
            None
        }

        fn restore(&self) -> Option<Arc<dyn Journal>> {
            None
        }

        fn has_stopped(&self) -> bool {
            false
        }

        fn is_durable(&self) -> bool {
            false
        }

        fn counts_bytes(&self) -> bool {
            false
        }
    }

    crate::journal_conformance!(InMemory);
}
