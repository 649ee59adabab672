//! A participant with a durable journal of branches. How it votes is in the
//! payload, so that a repeated prepare gets the same vote.

use std::{collections::BTreeMap, sync::Arc};

use dtc_core::{
    Acknowledgement, BranchOutcome, Event, Message, Opaque, ParticipantId, Reason, Vote,
};
use dtc_protocol::{
    JournalId, TransactionId,
    branch::{Branch, Request, Step, Verdict, step},
};

/// Payloads.
pub(crate) const YES: u8 = 0;
pub(crate) const NO: u8 = 1;
pub(crate) const READ_ONLY: u8 = 2;

type Key = (TransactionId, u32);

pub(crate) struct Participant {
    pub(crate) id: ParticipantId,
    pub(crate) journal: JournalId,
    pub(crate) supports_inquiry: bool,
    pub(crate) compensates: bool,
    /// Takes 'one phase' for what it is; otherwise only promises.
    pub(crate) commits_at_once: bool,
    pub(crate) branches: BTreeMap<Key, Branch>,
    votes: BTreeMap<Key, (Opaque, Vote)>,
    /// What it was told with its decisions.
    pub(crate) outputs: BTreeMap<Key, Option<Opaque>>,
}

impl Participant {
    pub(crate) fn new(id: ParticipantId) -> Self {
        Self {
            id,
            journal: JournalId::from_bytes([id.0 as u8 + 1; 16]),
            supports_inquiry: true,
            compensates: true,
            commits_at_once: true,
            branches: BTreeMap::new(),
            votes: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }

    /// It comes back with an empty disk.
    pub(crate) fn lose_disk(&mut self) {
        let (supports_inquiry, commits_at_once) = (self.supports_inquiry, self.commits_at_once);
        let journal = JournalId::from_bytes([self.journal.as_bytes()[0] + 100; 16]);
        *self = Self { journal, supports_inquiry, commits_at_once, ..Self::new(self.id) };
    }

    pub(crate) fn in_doubt(&self) -> Vec<Key> {
        let prepared = self.branches.iter().filter(|(_, branch)| branch.is_prepared());
        prepared.map(|(key, _)| *key).collect()
    }

    pub(crate) fn voted_read_only(&self, key: Key) -> bool {
        matches!(self.votes.get(&key), Some((_, Vote::ReadOnly)))
    }

    /// The answer to a message; none where the message is too late for one.
    pub(crate) fn handle(&mut self, key: Key, message: &Message) -> Option<Event> {
        let request = match message {
            Message::Prepare { payload, .. } => {
                let same_payload = self.votes.get(&key).is_none_or(|(held, _)| held == payload);
                Request::Prepare { same_payload, forgotten: false }
            }
            Message::Commit { number, .. } => Request::Commit { decision_number: *number },
            Message::Rollback { number, compensate, .. } => {
                let (decision_number, compensate) = (*number, *compensate);
                Request::Rollback { decision_number, compensate, can_compensate: true }
            }
        };
        let decision_number = match message {
            Message::Prepare { .. } => 0,
            Message::Commit { number, .. } | Message::Rollback { number, .. } => *number,
        };
        let step = step(self.branches.get(&key), &request);
        let acknowledgement = match (step, message) {
            (Step::Reserve, Message::Prepare { payload, one_phase, .. }) => {
                return Some(self.reserve(key, payload, *one_phase));
            }
            (Step::RepeatVote, _) => {
                let vote = self.votes[&key].1.clone();
                return Some(self.vote(key, vote));
            }
            (Step::RefuseRolledBack | Step::RefuseOtherPayload, _) => {
                return Some(self.vote(key, refusal("ROLLED_BACK")));
            }
            (Step::ApplyCommit, Message::Commit { output, .. }) => {
                self.outputs.insert(key, output.clone());
                self.branches.insert(key, Branch::Committed { decision_number });
                Acknowledgement::Committed
            }
            (
                Step::ApplyRollback | Step::LeaveTombstone | Step::Compensate,
                Message::Rollback { output, .. },
            ) => {
                self.outputs.insert(key, output.clone());
                self.branches.insert(key, Branch::RolledBack { decision_number });
                Acknowledgement::RolledBack
            }
            (Step::AnswerCommitted, _) => Acknowledgement::Committed,
            (Step::AnswerRolledBack, _) => Acknowledgement::RolledBack,
            (Step::AnswerUnknown, _) => Acknowledgement::Unknown,
            (Step::Ignore, _) => return None,
            (step, message) => unreachable!("{step:?} for {message:?}"),
        };
        Some(Event::Acknowledged {
            from: self.id,
            journal: Some(self.journal),
            id: key.0,
            branch: key.1,
            number: decision_number,
            acknowledgement,
        })
    }

    /// Learns the outcome of a branch that it asked about.
    pub(crate) fn learn(&mut self, key: Key, outcome: &BranchOutcome) {
        let verdict = match *outcome {
            BranchOutcome::Committed { number, .. } => Verdict { commit: true, number },
            BranchOutcome::Aborted { number } => Verdict { commit: false, number },
            BranchOutcome::Pending | BranchOutcome::NotMine => return,
        };
        let decision_number = verdict.number;
        let branch = match step(self.branches.get(&key), &Request::Outcome(verdict)) {
            Step::ApplyCommit => Branch::Committed { decision_number },
            Step::ApplyRollback => Branch::RolledBack { decision_number },
            _ => return,
        };
        self.branches.insert(key, branch);
    }

    fn reserve(&mut self, key: Key, payload: &Opaque, one_phase: bool) -> Event {
        let committed = one_phase && self.commits_at_once;
        let output = Some(output_of(self.id, key.1));
        let (branch, vote) = match payload.first() {
            Some(&NO) => (Some(Branch::RolledBack { decision_number: 0 }), refusal("OUT_OF_STOCK")),
            Some(&READ_ONLY) => (None, Vote::ReadOnly),
            _ if committed => {
                (Some(Branch::Committed { decision_number: 1 }), Vote::Commit { output, committed })
            }
            _ => (Some(Branch::PREPARED), Vote::Commit { output, committed }),
        };
        if let Some(branch) = branch {
            self.branches.insert(key, branch);
        }
        self.votes.insert(key, (payload.clone(), vote.clone()));
        self.vote(key, vote)
    }

    fn vote(&self, key: Key, vote: Vote) -> Event {
        let journal = Some(self.journal);
        Event::Voted { from: self.id, journal, id: key.0, branch: key.1, vote }
    }
}

/// What prepare returns.
pub(crate) fn output_of(participant: ParticipantId, branch: u32) -> Opaque {
    Opaque::from([participant.0 as u8, branch as u8])
}

fn refusal(code: &str) -> Vote {
    let (code, message) = (code.to_owned(), "no".to_owned());
    Vote::Abort(Arc::new(Reason { code, message, participant: None }))
}
