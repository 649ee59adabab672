//! A participant with a durable journal of branches. How it votes is in the
//! payload, so that a repeated prepare gets the same vote.

use std::{collections::BTreeMap, sync::Arc};

use dtc_core::{
    Acknowledgement, BranchOutcome, Event, Message, Opaque, ParticipantId, Reason, Vote,
};
use dtc_protocol::{
    JournalId, TransactionId,
    branch::{Answer, Branch, Outcome, Request, Reservation, Step, Verdict, step},
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
            Message::Prepare { payload, one_phase, .. } => {
                let same_payload = self.votes.get(&key).is_none_or(|(held, _)| held == payload);
                Request::Prepare { same_payload, forgotten: false, one_phase: *one_phase }
            }
            Message::Commit { number, .. } => Request::Commit { decision_number: *number },
            Message::Rollback { number, compensate, .. } => {
                let (decision_number, compensate) = (*number, *compensate);
                Request::Rollback { decision_number, compensate, can_compensate: true }
            }
        };
        let step = step(self.branches.get(&key), &request);
        match (step, message) {
            (Step::Reserve, Message::Prepare { payload, one_phase, .. }) => {
                return Some(self.reserve(key, payload, *one_phase));
            }
            (Step::RepeatVote { .. }, _) => {
                let vote = self.votes[&key].1.clone();
                return Some(self.vote(key, vote));
            }
            (Step::RefuseRolledBack | Step::RefuseOtherPayload, _) => {
                return Some(self.vote(key, refusal("ROLLED_BACK")));
            }
            (_, Message::Prepare { .. }) => unreachable!("{step:?} for {message:?}"),
            (_, Message::Commit { output, .. } | Message::Rollback { output, .. }) => {
                if let Some(branch) = step.records() {
                    self.outputs.insert(key, output.clone());
                    self.branches.insert(key, branch);
                }
            }
        }
        Some(Event::Acknowledged {
            from: self.id,
            journal: Some(self.journal),
            id: key.0,
            branch: key.1,
            number: request.verdict().map_or(0, |verdict| verdict.number),
            acknowledgement: match step.answer()? {
                Answer::Committed => Acknowledgement::Committed,
                Answer::RolledBack => Acknowledgement::RolledBack,
                Answer::Unknown => Acknowledgement::Unknown,
            },
        })
    }

    /// Learns the outcome of a branch that it asked about.
    pub(crate) fn learn(&mut self, key: Key, outcome: &BranchOutcome) {
        let outcome = match *outcome {
            BranchOutcome::Committed { number, .. } => {
                Outcome::Decided(Verdict { commit: true, number })
            }
            BranchOutcome::Aborted { number } => {
                Outcome::Decided(Verdict { commit: false, number })
            }
            BranchOutcome::NotMine => Outcome::NotMine,
            BranchOutcome::Pending => return,
        };
        let step = step(self.branches.get(&key), &Request::Outcome { outcome, own: true });
        self.branches.extend(step.records().map(|branch| (key, branch)));
    }

    fn reserve(&mut self, key: Key, payload: &Opaque, one_phase: bool) -> Event {
        let committed = one_phase && self.commits_at_once;
        let output = Some(output_of(self.id, key.1));
        let (reservation, vote) = match payload.first() {
            Some(&NO) => (Reservation::Refused, refusal("OUT_OF_STOCK")),
            Some(&READ_ONLY) => (Reservation::ReadOnly, Vote::ReadOnly),
            _ => (Reservation::Made, Vote::Commit { output, committed }),
        };
        let step = step(None, &Request::Reserved { reservation, one_phase: committed });
        self.branches.extend(step.records().map(|branch| (key, branch)));
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
