//! A journal in memory that forgets, in a crash, what was not synced.

use std::collections::{BTreeMap, VecDeque};

use dtc_core::{
    BeginRecord, DecisionRecord, EndRecord, Fingerprint, FoundBranch, HeldLock, LockMode, Record,
    RequestKey, Sequence, SessionRecord,
};
use dtc_protocol::{SessionId, TransactionId};

#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) durable: BTreeMap<TransactionId, Stored>,
    pub(crate) pending: VecDeque<(Sequence, Record)>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
    pub(crate) pending_sessions: VecDeque<(Sequence, SessionRecord)>,
}

#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) end: Option<EndRecord>,
}

impl Journal {
    /// Makes the oldest `count` pending records durable.
    pub(crate) fn sync(&mut self, count: usize) -> Option<Sequence> {
        let count = count.min(self.pending.len());
        let mut last = None;
        let records: Vec<_> = self.pending.drain(..count).collect();
        for (sequence, record) in records {
            last = Some(sequence);
            match record {
                Record::End(end) => {
                    let stored = self.durable.get_mut(&end.id).expect("an end joins a decision");
                    assert!(matches!(stored.record, Record::Decision(_)), "an end, undecided");
                    assert!(stored.end.is_none(), "a second end");
                    stored.end = Some(end);
                }
                record => {
                    let decided = self.decision(record.id());
                    let number = decided.map(|decided| decided.number);
                    match &record {
                        Record::Decision(new) if number.is_some() => {
                            let (old, stands) = (number, self.commits(new.id) == Some(new.commit));
                            assert!(stands || Some(new.number) > old, "a decision was replaced");
                        }
                        _ => assert!(number.is_none(), "a decision was replaced"),
                    }
                    self.durable.insert(record.id(), Stored { record, end: None });
                }
            }
        }
        last
    }

    /// Makes the records of sessions durable that come before this one, or all.
    pub(crate) fn sync_sessions(&mut self, up_to: Option<Sequence>) -> Option<Sequence> {
        let mut last = None;
        while let Some(&(sequence, _)) = self.pending_sessions.front()
            && up_to.is_none_or(|up_to| sequence <= up_to)
            && let Some((sequence, record)) = self.pending_sessions.pop_front()
        {
            last = Some(sequence);
            match record {
                SessionRecord::Held { id, .. } => drop(self.sessions.insert(id, record)),
                SessionRecord::Released(id) => drop(self.sessions.remove(&id)),
            }
        }
        last
    }

    pub(crate) fn crash(&mut self) {
        self.pending.clear();
        self.pending_sessions.clear();
    }

    /// Whatever is lost, what would be held again can be held together.
    pub(crate) fn check_locks(&self) {
        let mut all = BTreeMap::<&str, Vec<&HeldLock>>::new();
        let unfinished = self.durable.values().filter(|stored| stored.end.is_none());
        let of_transactions = unfinished.flat_map(|stored| match &stored.record {
            Record::Begin(begin) => &begin.locks[..],
            Record::Decision(decision) => &decision.locks[..],
            Record::End(_) => &[],
        });
        let of_sessions = self.sessions.values().flat_map(|record| match record {
            SessionRecord::Held { locks, .. } => &locks[..],
            SessionRecord::Released(_) => &[],
        });
        for lock in of_transactions.chain(of_sessions) {
            all.entry(&lock.key).or_default().push(lock);
        }
        for (key, locks) in all {
            let alone = locks.iter().any(|lock| lock.mode == LockMode::Exclusive);
            assert!(!alone || locks.len() == 1, "'{key}' would be held twice: {locks:?}");
        }
    }

    pub(crate) fn unfinished(&self) -> Vec<Record> {
        let unfinished = self.durable.values().filter(|stored| stored.end.is_none());
        unfinished.map(|stored| stored.record.clone()).collect()
    }

    pub(crate) fn find_key(&self, key: &RequestKey) -> Option<(TransactionId, Fingerprint)> {
        self.durable.iter().find_map(|(id, stored)| {
            let used = match &stored.record {
                Record::Begin(begin) => &begin.key,
                Record::Decision(decision) => &decision.key,
                Record::End(_) => unreachable!("ends are joined"),
            };
            used.as_ref().filter(|(used, _)| used == key).map(|(_, print)| (*id, *print))
        })
    }

    pub(crate) fn find(&self, id: TransactionId, branch: u32) -> Option<FoundBranch> {
        let decision = self.decision(id)?;
        let found = decision.branches.get(branch as usize);
        Some(FoundBranch {
            commit: decision.commit,
            number: decision.number,
            output: found.and_then(|branch| branch.output.clone()),
            known: found.is_some(),
            resolved: found.and_then(|branch| branch.resolved),
        })
    }

    /// What was decided of a branch: by an operator, or with all the others.
    pub(crate) fn commits_branch(&self, id: TransactionId, branch: u32) -> Option<bool> {
        let decision = self.decision(id)?;
        let resolved = decision.branches.get(branch as usize).and_then(|it| it.resolved);
        Some(resolved.unwrap_or(decision.commit))
    }

    pub(crate) fn begin(&self, id: TransactionId) -> Option<&BeginRecord> {
        match &self.durable.get(&id)?.record {
            Record::Begin(begin) => Some(begin),
            _ => None,
        }
    }

    pub(crate) fn decision(&self, id: TransactionId) -> Option<&DecisionRecord> {
        match &self.durable.get(&id)?.record {
            Record::Decision(decision) => Some(decision),
            _ => None,
        }
    }

    pub(crate) fn end(&self, id: TransactionId) -> Option<&EndRecord> {
        self.durable.get(&id)?.end.as_ref()
    }

    /// The durable decision, if there is one.
    pub(crate) fn commits(&self, id: TransactionId) -> Option<bool> {
        self.decision(id).map(|decision| decision.commit)
    }
}
