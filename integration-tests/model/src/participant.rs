//! A participant around the production code: `dtc_protocol::branch::step` and
//! `dtc_protocol::fence::admit` decide, this writes and answers.
//!
//! What a request changes is written at once and durable later; its answer
//! leaves when that is durable. A crash takes what was not durable.

use std::collections::{BTreeMap, BTreeSet};

use dtc_protocol::{
    Incarnation,
    branch::{self, Branch, Outcome, Reservation, Step, Verdict},
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
        self.durable.rows.get(&id).is_some_and(|row| row.branch.is_in_doubt())
    }

    /// The decisions that it keeps, to try them again.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (Id, Verdict)> {
        self.file().rows.iter().filter_map(|(id, row)| Some((*id, row.branch.pending()?)))
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
        matches!(step, Step::Apply(_))
            && admit(file.seen.map(run).as_ref(), &run(epoch)) != Admission::Stale
    }

    /// Tries again what the domain could not do. Nobody is answered.
    pub(crate) fn retry_pending(&mut self, id: Id, vote: Vote) {
        let pending = self.pending().find(|(of, _)| *of == id);
        let Some((_, Verdict { commit, number })) = pending else { return };
        let request = Request::Retry { commit, number: number as u8 };
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
        if let Request::ToldByAnother { .. } = request {
            // Its run is another coordinator's, of which this fence knows nothing.
            self.act(&mut file, id, request, vote);
            self.written = (file != *self.file()).then_some(file).or(self.written.take());
            return;
        }
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
        let asked = asked(row.as_ref(), request);
        let step = branch::step(row.as_ref().map(|row| &row.branch), &asked);
        self.check(row.as_ref(), request, &asked, step);
        if let Step::Apply(verdict) = step
            && vote == Vote::Fails
        {
            if let Some(row) = file.rows.get_mut(&id) {
                let kept = branch::step(Some(&row.branch), &branch::Request::Failed(verdict));
                row.branch = kept.records().unwrap_or(row.branch);
            }
            return None;
        }
        match step {
            Step::Reserve => return Some(self.reserve(file, id, request, vote)),
            Step::RepeatVote { committed } => {
                let payload = row.map_or(0, |row| row.payload);
                return Some(Answer::Yes { payload, committed });
            }
            Step::RefuseRolledBack | Step::RefuseOtherPayload | Step::RefuseForgotten => {
                return Some(Answer::No);
            }
            _ => {}
        }
        if let Some(branch) = step.records() {
            let row = file.rows.entry(id).or_insert(Row::tombstone(branch));
            row.take(step, branch);
        }
        // The coordinator is not told what an operator has done.
        let answer = step.answer().filter(|_| !matches!(request, Request::Resolve { .. }))?;
        let number = asked.verdict().map_or(0, |verdict| verdict.number as u8);
        Some(match answer {
            branch::Answer::Committed => Answer::Committed { number },
            branch::Answer::RolledBack => Answer::RolledBack { number },
            branch::Answer::Unknown => Answer::Unknown { number },
        })
    }

    /// Whether the step is one that the records allow.
    fn check(&mut self, row: Option<&Row>, request: Request, asked: &branch::Request, step: Step) {
        let told = matches!(asked, branch::Request::Outcome { .. });
        if told && row.is_none_or(|row| !row.branch.is_prepared()) && step != Step::Ignore {
            self.broken = Some("the answer to a question changed what is decided");
        }
        let number = asked.verdict().map(|verdict| verdict.number);
        let pending = row.and_then(|row| row.branch.pending());
        if number.zip(pending).is_some_and(|(number, known)| number < known.number)
            && step != Step::Ignore
        {
            self.broken = Some("a decision that is older than the one to be applied was taken");
        }
        let applied = row.map_or(0, |row| row.branch.decision_number());
        if number.is_some_and(|number| number < applied) && step != Step::Ignore {
            self.broken = Some("a decision that is older than the one applied was answered");
        }
        let compensates = matches!(request, Request::Compensate { .. });
        if compensates && row.is_none() && step != Step::AnswerUnknown {
            self.broken = Some("a branch that is not known was answered as compensated");
        }
        if let (Request::Prepare { payload, .. }, Step::RepeatVote { .. }) = (request, step)
            && row.is_none_or(|row| row.payload != payload)
        {
            self.broken = Some("a promise of one payload was given for another");
        }
        self.acted_alone |= match step {
            Step::Apply(Verdict { commit: true, .. }) => !request.tells_commit(),
            Step::Apply(Verdict { commit: false, .. }) => !request.tells_abort(),
            Step::Compensate { .. } => !compensates,
            _ => false,
        };
    }

    fn reserve(&mut self, file: &mut File, id: Id, request: Request, vote: Vote) -> Answer {
        let Request::Prepare { one_phase, payload } = request else {
            self.broken = Some("something other than a prepare was reserved for");
            return Answer::No;
        };
        self.changes.entry(id).or_insert(vote != Vote::ReadOnly);
        let reservation = match vote {
            Vote::Yes | Vote::Plain => Reservation::Made,
            Vote::No => Reservation::Refused,
            Vote::Traceless | Vote::Fails => Reservation::NotAsked,
            Vote::ReadOnly => Reservation::ReadOnly,
        };
        let at_once = one_phase && vote != Vote::Plain;
        let reserved = branch::Request::Reserved { reservation, one_phase: at_once };
        let step = branch::step(None, &reserved);
        if let Some(branch) = step.records() {
            let held = file.rows.get(&id).map_or(0, |row| row.reserved);
            let mut row = Row { payload, reserved: held, ..Row::tombstone(branch) };
            row.take(step, branch);
            file.rows.insert(id, row);
        }
        match step {
            Step::Promise => Answer::Yes { payload, committed: false },
            Step::CommitAtOnce => Answer::Yes { payload, committed: true },
            Step::AnswerReadOnly => Answer::ReadOnly,
            _ => Answer::No,
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
    let decided = |commit, number: u8| Outcome::Decided(Verdict { commit, number: number.into() });
    let told = |outcome| branch::Request::Outcome { outcome, own: true };
    let rollback = |number: u8, compensate| branch::Request::Rollback {
        decision_number: number.into(),
        compensate,
        can_compensate: true,
    };
    match request {
        Request::Prepare { payload, one_phase } => {
            let same_payload = row.is_none_or(|row| row.payload == payload);
            branch::Request::Prepare { same_payload, forgotten: false, one_phase }
        }
        Request::Commit { number } => branch::Request::Commit { decision_number: number.into() },
        Request::Rollback { number } => rollback(number, false),
        Request::Compensate { number } => rollback(number, true),
        Request::AnsweredCommitted { number } => told(decided(true, number)),
        Request::AnsweredAborted { number } => told(decided(false, number)),
        Request::AnsweredNotMine => told(Outcome::NotMine),
        Request::ToldByAnother { commit } => {
            branch::Request::Outcome { outcome: decided(commit, 1), own: false }
        }
        Request::Retry { commit, number } => {
            branch::Request::Retry(Verdict { commit, number: number.into() })
        }
        Request::Resolve { commit } => branch::Request::Resolve { commit },
    }
}

impl Row {
    fn tombstone(branch: Branch) -> Self {
        Self { branch, payload: 0, reserved: 0, applied: 0, at_once: false, undone: false }
    }

    /// The step is taken, and the branch is recorded.
    fn take(&mut self, step: Step, branch: Branch) {
        self.branch = branch;
        match step {
            Step::Promise => self.reserved += 1,
            Step::CommitAtOnce => (self.applied, self.at_once) = (1, true),
            Step::Apply(verdict) => {
                self.reserved = self.reserved.saturating_sub(1);
                self.applied += u8::from(verdict.commit);
            }
            Step::Compensate { .. } => {
                self.applied = self.applied.saturating_sub(1);
                self.undone = true;
            }
            _ => {}
        }
    }
}
