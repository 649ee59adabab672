//! A participant around the production code: `dtc_protocol::branch::step` and
//! `dtc_protocol::fence::admit` decide, this writes and answers.
//!
//! What a request changes is written at once and durable later; its answer
//! leaves when that is durable. A crash takes what was not durable.

use std::collections::{BTreeMap, BTreeSet};

use dtc_protocol::{
    Incarnation,
    branch::{self, Branch, Step, Verdict},
    fence::{Admission, Run, admit},
};

use crate::network::{Answer, Id, Request};

/// What the domain says to a prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// Commit.
    Yes,
    /// Commit, and one phase is not known here.
    Plain,
    /// Abort; a tombstone is left.
    No,
    /// Abort; nothing is left behind.
    Traceless,
    /// Nothing to change.
    ReadOnly,
    /// To a decision: it cannot be done now.
    Fails,
}

/// A branch in the participant's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// As the protocol has it.
    pub branch: Branch,
    /// What was prepared.
    pub payload: u8,
    /// Reservations that are held.
    pub reserved: u8,
    /// How often the effect was made final.
    pub applied: u8,
    /// In one phase, committed at once.
    pub at_once: bool,
    /// Committed, and undone.
    pub undone: bool,
}

/// The participant's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct File {
    /// The newest run that was seen.
    pub seen: Option<u8>,
    /// The branches.
    pub rows: BTreeMap<Id, Row>,
}

/// What ever became durable of a branch, in any of the participant's files.
/// Nothing that the participant reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The journals in which it was promised, a bit each.
    pub promised: u8,
    /// The journals in which it was committed.
    pub committed: u8,
    /// The journals in which it was rolled back.
    pub rolled_back: u8,
    /// The journals in which its commit was undone.
    pub undone: u8,
    /// Voted read-only.
    pub read_only: bool,
}

/// A participant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Participant {
    /// It asks when in doubt.
    pub supports_inquiry: bool,
    /// The file's identity: how many came before.
    pub journal: u8,
    /// What survives a crash.
    pub durable: File,
    /// What does not yet; none where it is the same.
    pub written: Option<File>,
    /// Answers that wait for it, each for the run that asked.
    pub held: BTreeSet<(Id, u8, Answer)>,
    /// Whether a branch changes anything: a trait of its payload, fixed when the
    /// domain is first asked.
    pub changes: BTreeMap<Id, bool>,
    /// By transaction.
    pub history: BTreeMap<Id, History>,
    /// It acted on a run that is older than one it had seen.
    pub obeyed_stale: bool,
    /// It decided a promised branch with no word of the coordinator.
    pub acted_alone: bool,
    /// It did something that its own records forbid.
    pub broken: Option<&'static str>,
}

/// The run of an epoch.
pub(crate) fn run(epoch: u8) -> Run {
    Run { epoch: epoch.into(), incarnation: Incarnation::from_bytes([epoch; 16]) }
}

impl Participant {
    /// What it works with.
    pub fn file(&self) -> &File {
        self.written.as_ref().unwrap_or(&self.durable)
    }

    /// What ever became durable of a branch.
    pub fn history(&self, id: Id) -> History {
        self.history.get(&id).copied().unwrap_or_default()
    }

    /// Whether the durable branch is promised, and no decision is applied.
    pub fn is_in_doubt(&self, id: Id) -> bool {
        self.durable.rows.get(&id).is_some_and(|row| row.branch.is_prepared())
    }

    /// Whether no decision of it is known either, so that it asks.
    pub(crate) fn asks_about(&self, id: Id) -> bool {
        self.durable.rows.get(&id).is_some_and(|row| row.branch == Branch::PREPARED)
    }

    /// The decisions that it keeps, to try them again.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (Id, Verdict)> {
        self.file().rows.iter().filter_map(|(id, row)| match row.branch {
            Branch::Prepared { pending } => Some((*id, pending?)),
            _ => None,
        })
    }

    /// Whether a prepare would be put to the domain.
    pub(crate) fn would_reserve(&self, id: Id, epoch: u8, payload: u8) -> bool {
        let file = self.file();
        let row = file.rows.get(&id);
        let request = asked(row, Request::Prepare { one_phase: false, payload });
        let seen = file.seen.map(run);
        branch::step(row.map(|row| &row.branch), &request) == Step::Reserve
            && admit(seen.as_ref(), &run(epoch)) != Admission::Stale
    }

    /// Whether a decision would be put to the domain, which may fail.
    pub(crate) fn would_apply(&self, id: Id, epoch: u8, request: Request) -> bool {
        let file = self.file();
        let row = file.rows.get(&id);
        let step = branch::step(row.map(|row| &row.branch), &asked(row, request));
        matches!(step, Step::ApplyCommit | Step::ApplyRollback)
            && admit(file.seen.map(run).as_ref(), &run(epoch)) != Admission::Stale
    }

    /// Tries again what the domain could not do. Nobody is answered.
    pub(crate) fn retry_pending(&mut self, id: Id, vote: Vote) {
        let pending = self.pending().find(|(of, _)| *of == id);
        let Some((_, Verdict { commit, number })) = pending else { return };
        let number = number as u8;
        let request = match commit {
            true => Request::ToldCommitted { number },
            false => Request::ToldAborted { number },
        };
        let mut file = self.file().clone();
        self.act(&mut file, id, request, vote);
        if file != *self.file() {
            self.written = Some(file);
        }
    }

    /// Takes a request; true if it was answered, or is to be when durable.
    pub(crate) fn take(&mut self, id: Id, epoch: u8, request: Request, vote: Vote) {
        let mut file = self.file().clone();
        let seen = file.seen.map(run);
        match admit(seen.as_ref(), &run(epoch)) {
            Admission::Stale => return,
            Admission::Newer => file.seen = Some(epoch),
            Admission::Current => {}
        }
        if seen.is_some_and(|seen| seen.epoch > epoch.into()) {
            self.obeyed_stale = true;
        }
        let answer = self.act(&mut file, id, request, vote);
        if file != *self.file() {
            self.written = Some(file);
        }
        self.held.extend(answer.map(|answer| (id, epoch, answer)));
        if self.written.is_none() {
            self.note(id);
        }
    }

    fn act(&mut self, file: &mut File, id: Id, request: Request, vote: Vote) -> Option<Answer> {
        let row = file.rows.get(&id).copied();
        let number = match request {
            Request::Prepare { .. } | Request::Resolve { .. } => 0,
            Request::Commit { number }
            | Request::ToldCommitted { number }
            | Request::Rollback { number }
            | Request::ToldAborted { number }
            | Request::Compensate { number } => number,
        };
        let told = matches!(request, Request::ToldCommitted { .. } | Request::ToldAborted { .. });
        let applied = row.map_or(0, |row| row.branch.decision_number());
        let step = branch::step(row.as_ref().map(|row| &row.branch), &asked(row.as_ref(), request));
        if told && row.is_none_or(|row| !row.branch.is_prepared()) && step != Step::Ignore {
            self.broken = Some("the answer to a question changed what is decided");
        }
        if let Some(Row { branch: Branch::Prepared { pending: Some(known) }, .. }) = row
            && number > 0
            && u32::from(number) < known.number
            && step != Step::Ignore
        {
            self.broken = Some("a decision that is older than the one to be applied was taken");
        }
        let compensates = matches!(request, Request::Compensate { .. });
        if compensates && row.is_none() && step != Step::AnswerUnknown {
            self.broken = Some("a branch that is not known was answered as compensated");
        }
        if number > 0 && u32::from(number) < applied && step != Step::Ignore {
            self.broken = Some("a decision that is older than the one applied was answered");
        }
        let decision_number = number.into();
        if vote == Vote::Fails && matches!(step, Step::ApplyCommit | Step::ApplyRollback) {
            // An operator is told that it failed, and tries again.
            if let Some(row) = file.rows.get_mut(&id).filter(|_| number > 0) {
                let commit = step == Step::ApplyCommit;
                let pending = Some(Verdict { commit, number: decision_number });
                row.branch = Branch::Prepared { pending };
            }
            return None;
        }
        match step {
            Step::Reserve => return Some(self.reserve(file, id, request, vote)),
            Step::RepeatVote => {
                let payload = row.map_or(0, |row| row.payload);
                let one_phase = matches!(request, Request::Prepare { one_phase: true, .. });
                let asked = match request {
                    Request::Prepare { payload, .. } => payload,
                    _ => payload,
                };
                if asked != payload {
                    self.broken = Some("a promise of one payload was given for another");
                }
                let committed = one_phase
                    && row.is_some_and(|row| matches!(row.branch, Branch::Committed { .. }));
                return Some(Answer::Yes { payload, committed });
            }
            Step::RefuseRolledBack | Step::RefuseOtherPayload | Step::RefuseForgotten => {
                return Some(Answer::No);
            }
            Step::ApplyCommit => {
                self.acted_alone |= !request.tells_commit();
                if let Some(row) = file.rows.get_mut(&id) {
                    row.branch = Branch::Committed { decision_number };
                    row.reserved = row.reserved.saturating_sub(1);
                    row.applied += 1;
                }
                Some(Answer::Committed { number })
            }
            Step::ApplyRollback => {
                self.acted_alone |= !request.tells_abort();
                if let Some(row) = file.rows.get_mut(&id) {
                    row.branch = Branch::RolledBack { decision_number };
                    row.reserved = row.reserved.saturating_sub(1);
                }
                Some(Answer::RolledBack { number })
            }
            Step::Compensate => {
                self.acted_alone |= !compensates;
                if let Some(row) = file.rows.get_mut(&id) {
                    row.branch = Branch::RolledBack { decision_number };
                    row.applied = row.applied.saturating_sub(1);
                    row.undone = true;
                }
                Some(Answer::RolledBack { number })
            }
            Step::LeaveTombstone => {
                file.rows.insert(id, Row::tombstone(decision_number));
                Some(Answer::RolledBack { number })
            }
            Step::AnswerCommitted => Some(Answer::Committed { number }),
            Step::AnswerRolledBack => Some(Answer::RolledBack { number }),
            Step::AnswerUnknown => Some(Answer::Unknown { number }),
            Step::RefuseDecided | Step::Ignore => None,
        }
        // The coordinator is not told what an operator has done.
        .filter(|_| !matches!(request, Request::Resolve { .. }))
    }

    fn reserve(&mut self, file: &mut File, id: Id, request: Request, vote: Vote) -> Answer {
        let Request::Prepare { one_phase, payload } = request else {
            self.broken = Some("something other than a prepare was reserved for");
            return Answer::No;
        };
        self.changes.entry(id).or_insert(vote != Vote::ReadOnly);
        let held = file.rows.get(&id).map_or(0, |row| row.reserved);
        match vote {
            Vote::Yes | Vote::Plain => {
                let at_once = one_phase && vote == Vote::Yes;
                let (branch, reserved, applied) = match at_once {
                    true => (Branch::Committed { decision_number: 1 }, held, 1),
                    false => (Branch::PREPARED, held + 1, 0),
                };
                file.rows
                    .insert(id, Row { branch, payload, reserved, applied, at_once, undone: false });
                Answer::Yes { payload, committed: at_once }
            }
            Vote::No => {
                file.rows.insert(id, Row::tombstone(0));
                Answer::No
            }
            Vote::Traceless | Vote::Fails => Answer::No,
            Vote::ReadOnly => Answer::ReadOnly,
        }
    }

    /// What was written is durable; returns the answers that may leave now.
    pub(crate) fn sync(&mut self) -> BTreeSet<(Id, u8, Answer)> {
        if let Some(written) = self.written.take() {
            let changed: Vec<Id> = written.rows.keys().copied().collect();
            self.durable = written;
            changed.into_iter().for_each(|id| self.note(id));
        }
        let held = std::mem::take(&mut self.held);
        for (id, _, answer) in &held {
            match answer {
                Answer::ReadOnly => self.history.entry(*id).or_default().read_only = true,
                // Promised and decided within one write.
                Answer::Yes { .. } if self.durable.rows.contains_key(id) => {
                    self.history.entry(*id).or_default().promised |= 1 << self.journal;
                }
                _ => {}
            }
        }
        held
    }

    /// Keeps in mind what is durable of a branch.
    fn note(&mut self, id: Id) {
        let Some(row) = self.durable.rows.get(&id) else { return };
        let journal = 1 << self.journal;
        let history = self.history.entry(id).or_default();
        match row.branch {
            Branch::Prepared { .. } => history.promised |= journal,
            Branch::Committed { .. } => history.committed |= journal,
            Branch::RolledBack { .. } => history.rolled_back |= journal,
        }
        if row.undone {
            history.undone |= journal;
        }
        if row.at_once {
            history.promised |= journal;
        }
    }

    /// It is killed and comes back.
    pub(crate) fn crash(&mut self) {
        self.written = None;
        self.held.clear();
    }

    /// It is killed and comes back with an empty disk.
    pub(crate) fn lose_disk(&mut self) {
        self.crash();
        self.durable = File::default();
        self.journal += 1;
    }
}

/// What production code is asked.
fn asked(row: Option<&Row>, request: Request) -> branch::Request {
    match request {
        Request::Prepare { payload, .. } => {
            let same_payload = row.is_none_or(|row| row.payload == payload);
            branch::Request::Prepare { same_payload, forgotten: false }
        }
        Request::Commit { number } => branch::Request::Commit { decision_number: number.into() },
        Request::Rollback { number } => branch::Request::Rollback {
            decision_number: number.into(),
            compensate: false,
            can_compensate: true,
        },
        Request::Compensate { number } => branch::Request::Rollback {
            decision_number: number.into(),
            compensate: true,
            can_compensate: true,
        },
        Request::ToldCommitted { number } => {
            branch::Request::Outcome(Verdict { commit: true, number: number.into() })
        }
        Request::ToldAborted { number } => {
            branch::Request::Outcome(Verdict { commit: false, number: number.into() })
        }
        Request::Resolve { commit } => branch::Request::Resolve { commit },
    }
}

impl Row {
    fn tombstone(decision_number: u32) -> Self {
        let branch = Branch::RolledBack { decision_number };
        Self { branch, payload: 0, reserved: 0, applied: 0, at_once: false, undone: false }
    }
}
