//! The coordinator's journal: records are appended, and durable later, in order.

use std::collections::{BTreeMap, BTreeSet};

use dtc_core::{DecisionRecord, EndRecord, Fingerprint, FoundBranch, Record, RequestKey, Sequence};
use dtc_protocol::TransactionId;

use crate::network::Id;

/// What is durable of a transaction.
#[derive(Debug, Clone)]
pub struct Stored {
    /// A begin record, or the decision that replaced it.
    pub record: Record,
    /// Its end.
    pub end: Option<EndRecord>,
}

/// The journal.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// What survives a crash.
    pub durable: BTreeMap<Id, Stored>,
    /// What does not yet, oldest first.
    pub pending: Vec<(Sequence, Record)>,
    /// Decisions to commit that were compensated, durably.
    pub compensated: BTreeSet<Id>,
    /// A record that contradicts what is durable.
    pub broken: Option<&'static str>,
}

/// A transaction's number in the model.
pub(crate) fn number(id: TransactionId) -> Id {
    id.as_bytes()[15]
}

/// The id of a transaction's number.
pub(crate) fn id(number: Id) -> TransactionId {
    TransactionId::from_bytes(u128::from(number).to_be_bytes())
}

impl Journal {
    /// Makes the oldest of the pending records durable.
    pub(crate) fn sync(&mut self) -> Sequence {
        let (sequence, record) = self.pending.remove(0);
        let number = number(record.id());
        let old = self.durable.get_mut(&number);
        match (record, old) {
            (Record::End(end), Some(Stored { record: Record::Decision(_), end: ended })) => {
                if ended.is_some() {
                    self.broken = Some("a second end");
                }
                *ended = Some(end);
            }
            (Record::End(_), _) => self.broken = Some("an end of something undecided"),
            (Record::Begin(_), Some(Stored { record: Record::Decision(_), .. })) => {
                self.broken = Some("a decision was taken back");
            }
            (Record::Decision(new), Some(Stored { record: Record::Decision(old), .. }))
                if old.commit && !new.commit && new.number > old.number =>
            {
                self.compensated.insert(number);
                self.durable.insert(number, Stored { record: Record::Decision(new), end: None });
            }
            (Record::Decision(new), Some(Stored { record: Record::Decision(old), .. }))
                if old.commit != new.commit =>
            {
                self.broken = Some("a decision was replaced by its opposite");
                self.durable.insert(number, Stored { record: Record::Decision(new), end: None });
            }
            (record, _) => {
                self.durable.insert(number, Stored { record, end: None });
            }
        }
        sequence
    }

    /// A crash, when the oldest `survivors` had reached the disk unreported.
    pub(crate) fn crash(&mut self, survivors: usize) {
        (0..survivors).for_each(|_| {
            self.sync();
        });
        self.pending.clear();
    }

    /// What recovery takes up.
    pub(crate) fn unfinished(&self) -> Vec<Record> {
        let unfinished = self.durable.values().filter(|stored| stored.end.is_none());
        unfinished.map(|stored| stored.record.clone()).collect()
    }

    pub(crate) fn find_key(&self, key: &RequestKey) -> Option<(TransactionId, Fingerprint)> {
        self.durable.values().find_map(|stored| {
            let (id, used) = match &stored.record {
                Record::Begin(begin) => (begin.id, &begin.key),
                Record::Decision(decision) => (decision.id, &decision.key),
                Record::End(_) => return None,
            };
            used.as_ref().filter(|(used, _)| used == key).map(|(_, print)| (id, *print))
        })
    }

    pub(crate) fn find(&self, number: Id, branch: u32) -> Option<FoundBranch> {
        let decision = self.decision(number)?;
        let found = decision.branches.get(branch as usize);
        Some(FoundBranch {
            commit: decision.commit,
            number: decision.number,
            output: found.and_then(|branch| branch.output.clone()),
            known: found.is_some(),
            resolved: found.and_then(|branch| branch.resolved),
        })
    }

    /// What was durably decided of a branch by an operator. Branches and participants have
    /// the same numbers.
    pub fn resolved(&self, number: Id, participant: usize) -> Option<bool> {
        self.decision(number)?.branches.get(participant)?.resolved
    }

    /// The durable decision record.
    pub fn decision(&self, number: Id) -> Option<&DecisionRecord> {
        match &self.durable.get(&number)?.record {
            Record::Decision(decision) => Some(decision),
            _ => None,
        }
    }

    /// The durable decision.
    pub fn commits(&self, number: Id) -> Option<bool> {
        self.decision(number).map(|decision| decision.commit)
    }

    /// The durable end record.
    pub fn end(&self, number: Id) -> Option<&EndRecord> {
        self.durable.get(&number)?.end.as_ref()
    }
}
