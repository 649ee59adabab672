//! A branch at its participant: `(none) → Prepared → Committed | RolledBack`,
//! and `(none) → RolledBack`, a tombstone; `Committed → RolledBack` where a
//! decision to commit was compensated.
//!
//! Invariants:
//! - A prepared branch leaves that state by a decision only; nothing here looks
//!   at a clock or counts attempts.
//! - A branch that was rolled back, known before or not, refuses every later
//!   prepare.
//! - An unknown branch is never acknowledged as committed, nor as compensated: a
//!   decision to compensate follows one to commit, so that every branch had voted.
//! - What is committed is undone only by a rollback that says so, `compensate`.
//! - A decision with a lower number than the one applied, or known and still to be
//!   applied, changes nothing.
//! - A decision that could not be applied stays, and is applied before an older one.
//! - The answer to an inquiry counts for a prepared branch only, and only that of its
//!   own coordinator; 'not mine' never counts as an abort.
//! - An operator resolves what nobody has decided, and nothing else.
//! - What may have been forgotten is not promised again.

/// What the participant's journal holds of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Branch {
    /// Promised, and not decided or the decision not applied: in doubt after a restart
    /// where none is known.
    Prepared {
        /// A decision that is known and could not be applied yet.
        pending: Option<Verdict>,
    },
    /// The effect is final.
    Committed {
        /// Of the decision that was applied.
        decision_number: u32,
    },
    /// Undone, refused, or never done (a tombstone).
    RolledBack {
        /// Of the decision that was applied; 0 for the participant's own refusal.
        decision_number: u32,
    },
}

/// A decision about a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// To commit; else to roll back.
    pub commit: bool,
    /// Its number: later decisions have greater ones. 0 for an operator's, so that every
    /// decision of the coordinator is newer.
    pub number: u32,
}

/// What came of [`Step::Reserve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reservation {
    /// The resource votes to commit and holds what that needs.
    Made,
    /// The resource has nothing to change.
    ReadOnly,
    /// The resource refused, or failed.
    Refused,
    /// The resource was not asked: there was no room, or no lock.
    NotAsked,
}

/// The answer to an inquiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// This was decided.
    Decided(Verdict),
    /// The coordinator does not know the run that prepared the branch.
    NotMine,
}

/// What happens to a branch: what a coordinator or an operator asks for, or what came of
/// a step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// Promise the branch.
    Prepare {
        /// Whether the payload is the one that the journal holds; true where it
        /// holds none.
        same_payload: bool,
        /// Whether the branch, were it decided, might have been removed by retention.
        forgotten: bool,
        /// Whether it is to be committed in the same call.
        one_phase: bool,
    },
    /// What came of [`Step::Reserve`].
    Reserved {
        /// That.
        reservation: Reservation,
        /// As in the prepare.
        one_phase: bool,
    },
    /// Make the effect final.
    Commit {
        /// 1, or 2 after a decision was compensated.
        decision_number: u32,
    },
    /// Undo it.
    Rollback {
        /// 1, or 2 after a decision was compensated.
        decision_number: u32,
        /// The decision was compensated: undo it even if it is committed.
        compensate: bool,
        /// Whether the participant can do that.
        can_compensate: bool,
    },
    /// The answer to an inquiry.
    Outcome {
        /// That.
        outcome: Outcome,
        /// Whether the branch's own coordinator gives it.
        own: bool,
    },
    /// The participant's own next attempt at a decision that it keeps as pending.
    Retry(Verdict),
    /// The resource failed to do what [`Step::Apply`] asked for.
    Failed(Verdict),
    /// Decide it in place of a coordinator that cannot be asked.
    Resolve {
        /// To commit; else to roll back.
        commit: bool,
    },
}

/// What the participant has to do, in one durable write, before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Ask the resource for its vote; [`Request::Reserved`] says what came of it.
    Reserve,
    /// Record the reservation, and vote to commit.
    Promise,
    /// Make the effect final and record it; vote to commit, committed.
    CommitAtOnce,
    /// Vote read-only; nothing to write.
    AnswerReadOnly,
    /// Answer with the vote that was recorded.
    RepeatVote {
        /// Whether that says 'committed' too.
        committed: bool,
    },
    /// Vote to abort; nothing to write, so that another attempt may succeed.
    Refuse,
    /// Vote to abort: the branch was rolled back, by its refusal or a tombstone.
    RefuseRolledBack,
    /// Vote to abort: another payload came under the same branch.
    RefuseOtherPayload,
    /// Vote to abort: its transaction has ended, and what this branch did in it may
    /// have been removed.
    RefuseForgotten,
    /// Make the effect final, or undo the reservation, and record it.
    Apply(Verdict),
    /// Record a decision that could not be applied, to try it again.
    KeepPending(Verdict),
    /// Undo the effect, which is final, and record that as a rollback.
    Compensate {
        /// Of the decision that was compensated.
        decision_number: u32,
    },
    /// Record the rollback of a branch that is not known, so that a late prepare is refused.
    LeaveTombstone {
        /// Of the decision; 0 for the participant's own refusal, to which it votes to abort.
        decision_number: u32,
    },
    /// Answer 'committed'; nothing to write. To a rollback this is the
    /// announcement that the decision came too late.
    AnswerCommitted,
    /// Answer 'rolled back'; nothing to write. To a commit this is the
    /// announcement of a broken promise.
    AnswerRolledBack,
    /// Answer that the branch is unknown; never an acknowledgement.
    AnswerUnknown,
    /// Refuse to resolve: its coordinator's decision is known.
    RefuseDecided,
    /// No answer: the branch stays in doubt, and people are to know.
    ReportNotMine,
    /// No answer, nothing to write: a newer decision is known, or nobody is in doubt.
    Ignore,
}

/// The answer to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The branch is committed.
    Committed,
    /// The branch is rolled back.
    RolledBack,
    /// The branch is not known.
    Unknown,
}

impl Branch {
    /// Promised, with no decision known.
    pub const PREPARED: Self = Self::Prepared { pending: None };

    /// The number of the decision that was applied; 0 where none was.
    pub fn decision_number(&self) -> u32 {
        match *self {
            Self::Prepared { .. } => 0,
            Self::Committed { decision_number } | Self::RolledBack { decision_number } => {
                decision_number
            }
        }
    }

    /// Whether it is promised and no decision is applied.
    pub fn is_prepared(&self) -> bool {
        matches!(self, Self::Prepared { .. })
    }

    /// Whether it is promised and no decision is known: its coordinator is asked.
    pub fn is_in_doubt(&self) -> bool {
        *self == Self::PREPARED
    }

    /// A decision that is known and could not be applied yet: it is tried again.
    pub fn pending(&self) -> Option<Verdict> {
        match *self {
            Self::Prepared { pending } => pending,
            _ => None,
        }
    }

    /// Whether a decision comes too late: a newer one was applied, or will be.
    fn outruns(&self, verdict: Verdict) -> bool {
        match self.pending() {
            Some(known) => {
                verdict.number < known.number
                    || verdict.number == known.number && verdict.commit != known.commit
            }
            None => verdict.number < self.decision_number(),
        }
    }
}

impl Verdict {
    /// What the branch is once it is applied.
    pub fn applied(self) -> Branch {
        let Self { commit, number: decision_number } = self;
        match commit {
            true => Branch::Committed { decision_number },
            false => Branch::RolledBack { decision_number },
        }
    }
}

impl Request {
    /// The coordinator's decision that it carries, if it carries one.
    pub fn verdict(&self) -> Option<Verdict> {
        match *self {
            Self::Commit { decision_number } => {
                Some(Verdict { commit: true, number: decision_number })
            }
            Self::Rollback { decision_number, .. } => {
                Some(Verdict { commit: false, number: decision_number })
            }
            Self::Outcome { outcome: Outcome::Decided(verdict), own: true }
            | Self::Retry(verdict) => Some(verdict),
            Self::Prepare { .. }
            | Self::Reserved { .. }
            | Self::Outcome { .. }
            | Self::Failed(_)
            | Self::Resolve { .. } => None,
        }
    }
}

impl Step {
    /// What the journal holds of the branch once the step is taken; none where that is
    /// what it held before.
    pub fn records(&self) -> Option<Branch> {
        match *self {
            Self::Promise => Some(Branch::PREPARED),
            Self::CommitAtOnce => Some(Branch::Committed { decision_number: 1 }),
            Self::Apply(verdict) => Some(verdict.applied()),
            Self::KeepPending(verdict) => Some(Branch::Prepared { pending: Some(verdict) }),
            Self::Compensate { decision_number } | Self::LeaveTombstone { decision_number } => {
                Some(Branch::RolledBack { decision_number })
            }
            _ => None,
        }
    }

    /// The answer to the decision that it follows from; none where there is none.
    pub fn answer(&self) -> Option<Answer> {
        match self {
            Self::Apply(Verdict { commit: true, .. }) | Self::AnswerCommitted => {
                Some(Answer::Committed)
            }
            Self::Apply(Verdict { commit: false, .. })
            | Self::Compensate { .. }
            | Self::LeaveTombstone { .. }
            | Self::AnswerRolledBack => Some(Answer::RolledBack),
            Self::AnswerUnknown => Some(Answer::Unknown),
            _ => None,
        }
    }
}

/// The transition function: what to do with `request`, where the journal holds `branch`.
pub fn step(branch: Option<&Branch>, request: &Request) -> Step {
    #[cfg(feature = "mutants")]
    if let Some(step) = crate::planted::step(branch, request) {
        return step;
    }
    match is_late(branch, request) {
        true => Step::Ignore,
        false => step_in_time(branch, request),
    }
}

/// Whether a newer decision is known than the one that the request carries.
pub(crate) fn is_late(branch: Option<&Branch>, request: &Request) -> bool {
    branch.zip(request.verdict()).is_some_and(|(branch, verdict)| branch.outruns(verdict))
}

pub(crate) fn step_in_time(branch: Option<&Branch>, request: &Request) -> Step {
    match *request {
        Request::Prepare { same_payload, forgotten, one_phase } => match branch {
            None if forgotten => Step::RefuseForgotten,
            None => Step::Reserve,
            Some(Branch::RolledBack { .. }) => Step::RefuseRolledBack,
            Some(_) if !same_payload => Step::RefuseOtherPayload,
            Some(branch) => Step::RepeatVote { committed: one_phase && !branch.is_prepared() },
        },
        Request::Reserved { reservation, one_phase } => match reservation {
            Reservation::Made if one_phase => Step::CommitAtOnce,
            Reservation::Made => Step::Promise,
            Reservation::ReadOnly => Step::AnswerReadOnly,
            Reservation::Refused => Step::LeaveTombstone { decision_number: 0 },
            Reservation::NotAsked => Step::Refuse,
        },
        Request::Commit { decision_number: number } => match branch {
            None => Step::AnswerUnknown,
            Some(Branch::Prepared { .. }) => Step::Apply(Verdict { commit: true, number }),
            Some(Branch::Committed { .. }) => Step::AnswerCommitted,
            Some(Branch::RolledBack { .. }) => Step::AnswerRolledBack,
        },
        Request::Rollback { decision_number, compensate, can_compensate } => match branch {
            // It had voted: what became of it is lost. A tombstone would answer the next
            // attempt as if it had been undone.
            None if compensate => Step::AnswerUnknown,
            None => Step::LeaveTombstone { decision_number },
            Some(Branch::Prepared { .. }) => {
                Step::Apply(Verdict { commit: false, number: decision_number })
            }
            Some(Branch::Committed { .. }) if compensate && can_compensate => {
                Step::Compensate { decision_number }
            }
            Some(Branch::Committed { .. }) => Step::AnswerCommitted,
            Some(Branch::RolledBack { .. }) => Step::AnswerRolledBack,
        },
        Request::Outcome { outcome, own } => match (branch, outcome) {
            (Some(Branch::Prepared { .. }), Outcome::Decided(verdict)) if own => {
                Step::Apply(verdict)
            }
            (Some(branch), _) if branch.is_in_doubt() => Step::ReportNotMine,
            _ => Step::Ignore,
        },
        Request::Retry(verdict) => match branch.and_then(Branch::pending) {
            Some(pending) if pending == verdict => Step::Apply(verdict),
            _ => Step::Ignore,
        },
        Request::Failed(verdict) => match branch {
            // An operator gets the failure, and tries again.
            Some(Branch::Prepared { .. }) if verdict.number > 0 => Step::KeepPending(verdict),
            _ => Step::Ignore,
        },
        Request::Resolve { commit } => match branch {
            None => Step::AnswerUnknown,
            Some(Branch::Prepared { pending }) if pending.is_none_or(|it| it.commit == commit) => {
                Step::Apply(Verdict { commit, number: 0 })
            }
            Some(_) => Step::RefuseDecided,
        },
    }
}

#[cfg(test)]
mod tests;
