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
//! - The answer to an inquiry counts for a prepared branch only.
//! - An operator resolves what nobody has decided, and nothing else.
//! - What may have been forgotten is not promised again.

use crate::planted;

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
    /// Its number: later decisions have greater ones.
    pub number: u32,
}

/// What a coordinator, or an operator, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// Promise the branch.
    Prepare {
        /// Whether the payload is the one that the journal holds; true where it
        /// holds none.
        same_payload: bool,
        /// Whether the branch, were it decided, might have been removed by retention.
        forgotten: bool,
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
    /// The same decisions as the answer to an inquiry, or as the participant's own next
    /// attempt at what it keeps as pending.
    Outcome(Verdict),
    /// Decide it in place of a coordinator that cannot be asked.
    Resolve {
        /// To commit; else to roll back.
        commit: bool,
    },
}

/// What the participant has to do, in one durable write, before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Ask the resource for its vote, and record that with the reservation.
    Reserve,
    /// Answer with the vote that was recorded.
    RepeatVote,
    /// Vote to abort: the branch was rolled back, by its refusal or a tombstone.
    RefuseRolledBack,
    /// Vote to abort: another payload came under the same branch.
    RefuseOtherPayload,
    /// Vote to abort: its transaction has ended, and what this branch did in it may
    /// have been removed.
    RefuseForgotten,
    /// Make the effect final and record it.
    ApplyCommit,
    /// Undo the reservation and record it.
    ApplyRollback,
    /// Undo the effect, which is final, and record that as a rollback.
    Compensate,
    /// Record the rollback of a branch that was never seen, so that a late
    /// prepare is refused.
    LeaveTombstone,
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
    /// No answer: a newer decision is known, or nobody is in doubt any more.
    Ignore,
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

    /// Whether a decision comes too late: a newer one was applied, or will be.
    fn outruns(&self, verdict: Verdict) -> bool {
        match *self {
            Self::Prepared { pending: Some(known) } => {
                verdict.number < known.number
                    || verdict.number == known.number && verdict.commit != known.commit
            }
            _ => verdict.number < self.decision_number(),
        }
    }
}

impl Request {
    /// The coordinator's decision that it carries, if it carries one.
    fn verdict(&self) -> Option<Verdict> {
        match *self {
            Self::Prepare { .. } | Self::Resolve { .. } => None,
            Self::Commit { decision_number } => {
                Some(Verdict { commit: true, number: decision_number })
            }
            Self::Rollback { decision_number, .. } => {
                Some(Verdict { commit: false, number: decision_number })
            }
            Self::Outcome(verdict) => Some(verdict),
        }
    }
}

/// The transition function: what to do with `request`, where the journal holds `branch`.
pub fn step(branch: Option<&Branch>, request: &Request) -> Step {
    let late =
        branch.zip(request.verdict()).is_some_and(|(branch, verdict)| branch.outruns(verdict));
    if late && !planted!(NumberIgnored) {
        return Step::Ignore;
    }
    match *request {
        Request::Prepare { same_payload, forgotten } => prepare(branch, same_payload, forgotten),
        Request::Commit { .. } => match branch {
            None if planted!(UnknownAcknowledged) => Step::AnswerCommitted,
            None => Step::AnswerUnknown,
            Some(Branch::Prepared { .. }) => Step::ApplyCommit,
            Some(Branch::Committed { .. }) => Step::AnswerCommitted,
            Some(Branch::RolledBack { .. }) => Step::AnswerRolledBack,
        },
        Request::Rollback { compensate, can_compensate, .. } => {
            rollback(branch, compensate, can_compensate)
        }
        Request::Outcome(Verdict { commit, .. }) => match branch {
            Some(Branch::Prepared { .. }) => apply(commit),
            _ => Step::Ignore,
        },
        Request::Resolve { commit } => match branch {
            None => Step::AnswerUnknown,
            Some(Branch::Prepared { pending }) if pending.is_none_or(|it| it.commit == commit) => {
                apply(commit)
            }
            Some(_) => Step::RefuseDecided,
        },
    }
}

fn apply(commit: bool) -> Step {
    if commit { Step::ApplyCommit } else { Step::ApplyRollback }
}

fn prepare(branch: Option<&Branch>, same_payload: bool, forgotten: bool) -> Step {
    match branch {
        Some(Branch::RolledBack { .. }) if planted!(TombstoneIgnored) => Step::Reserve,
        Some(Branch::Prepared { .. }) if planted!(ReservesTwice) => Step::Reserve,
        Some(Branch::Prepared { .. }) if planted!(PromiseEndsAlone) => Step::ApplyRollback,
        Some(Branch::Prepared { .. }) if planted!(OtherPayloadPromised) => Step::RepeatVote,

        None if forgotten => Step::RefuseForgotten,
        None => Step::Reserve,
        Some(Branch::RolledBack { .. }) => Step::RefuseRolledBack,
        Some(_) if same_payload => Step::RepeatVote,
        Some(_) => Step::RefuseOtherPayload,
    }
}

fn rollback(branch: Option<&Branch>, compensate: bool, can_compensate: bool) -> Step {
    match branch {
        Some(Branch::Committed { .. }) if planted!(CommitUndone) => Step::ApplyRollback,

        // It had voted: what became of it is lost. A tombstone would answer the next
        // attempt as if it had been undone.
        None if compensate && !planted!(UnknownCompensated) => Step::AnswerUnknown,
        None if planted!(TombstoneMissing) => Step::AnswerRolledBack,
        None => Step::LeaveTombstone,
        Some(Branch::Prepared { .. }) => Step::ApplyRollback,
        Some(Branch::Committed { .. })
            if compensate && can_compensate && !planted!(CompensationIgnored) =>
        {
            Step::Compensate
        }
        Some(Branch::Committed { .. }) => Step::AnswerCommitted,
        Some(Branch::RolledBack { .. }) => Step::AnswerRolledBack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREPARE: Request = Request::Prepare { same_payload: true, forgotten: false };
    const COMMIT: Request = Request::Commit { decision_number: 1 };
    const ROLLBACK: Request =
        Request::Rollback { decision_number: 1, compensate: false, can_compensate: true };
    const COMPENSATE: Request =
        Request::Rollback { decision_number: 2, compensate: true, can_compensate: true };
    const COMMITTED: Branch = Branch::Committed { decision_number: 1 };
    const ROLLED_BACK: Branch = Branch::RolledBack { decision_number: 1 };

    #[test]
    fn a_branch_goes_from_prepared_to_its_decision() {
        assert_eq!(step(None, &PREPARE), Step::Reserve);
        assert_eq!(step(Some(&Branch::PREPARED), &COMMIT), Step::ApplyCommit);
        assert_eq!(step(Some(&Branch::PREPARED), &ROLLBACK), Step::ApplyRollback);
    }

    #[test]
    fn duplicates_get_the_first_answer() {
        assert_eq!(step(Some(&Branch::PREPARED), &PREPARE), Step::RepeatVote);
        assert_eq!(step(Some(&COMMITTED), &PREPARE), Step::RepeatVote);
        assert_eq!(step(Some(&COMMITTED), &COMMIT), Step::AnswerCommitted);
        assert_eq!(step(Some(&ROLLED_BACK), &ROLLBACK), Step::AnswerRolledBack);
    }

    #[test]
    fn another_payload_under_the_same_branch_is_refused() {
        let other = Request::Prepare { same_payload: false, forgotten: false };
        assert_eq!(step(Some(&Branch::PREPARED), &other), Step::RefuseOtherPayload);
        assert_eq!(step(Some(&COMMITTED), &other), Step::RefuseOtherPayload);
    }

    #[test]
    fn a_tombstone_refuses_the_late_prepare() {
        assert_eq!(step(None, &ROLLBACK), Step::LeaveTombstone);
        assert_eq!(step(Some(&ROLLED_BACK), &PREPARE), Step::RefuseRolledBack);
        let other = Request::Prepare { same_payload: false, forgotten: false };
        assert_eq!(step(Some(&ROLLED_BACK), &other), Step::RefuseRolledBack);
    }

    #[test]
    fn an_unknown_branch_is_never_acknowledged() {
        assert_eq!(step(None, &COMMIT), Step::AnswerUnknown);
    }

    #[test]
    fn a_decision_that_was_compensated_makes_the_first_one_late() {
        let compensating = Branch::RolledBack { decision_number: 2 };
        assert_eq!(step(Some(&compensating), &COMMIT), Step::Ignore);
        assert_eq!(step(Some(&compensating), &ROLLBACK), Step::Ignore);
        assert_eq!(step(Some(&compensating), &COMPENSATE), Step::AnswerRolledBack);
    }

    #[test]
    fn what_is_committed_is_undone_only_by_a_decision_that_was_compensated() {
        let plain =
            Request::Rollback { decision_number: 2, compensate: false, can_compensate: true };
        assert_eq!(step(Some(&COMMITTED), &plain), Step::AnswerCommitted);
        assert_eq!(step(Some(&COMMITTED), &COMPENSATE), Step::Compensate);
        assert_eq!(step(Some(&Branch::PREPARED), &COMPENSATE), Step::ApplyRollback);
    }

    #[test]
    fn an_unknown_branch_is_never_acknowledged_as_compensated() {
        let cannot =
            Request::Rollback { decision_number: 2, compensate: true, can_compensate: false };
        assert_eq!(step(None, &COMPENSATE), Step::AnswerUnknown);
        assert_eq!(step(None, &cannot), Step::AnswerUnknown);
        assert_eq!(step(Some(&COMMITTED), &cannot), Step::AnswerCommitted);
    }

    #[test]
    fn a_pending_decision_is_replaced_by_later_ones_only() {
        let commit = Branch::Prepared { pending: Some(Verdict { commit: true, number: 2 }) };
        let rollback = Branch::Prepared { pending: Some(Verdict { commit: false, number: 2 }) };
        let second = Request::Commit { decision_number: 2 };
        assert_eq!(step(Some(&rollback), &COMMIT), Step::Ignore);
        assert_eq!(step(Some(&rollback), &second), Step::Ignore);
        assert_eq!(
            step(Some(&rollback), &Request::Commit { decision_number: 3 }),
            Step::ApplyCommit
        );
        assert_eq!(step(Some(&commit), &second), Step::ApplyCommit);
        assert_eq!(step(Some(&commit), &COMPENSATE), Step::Ignore);
        let outcome = |commit, number| Request::Outcome(Verdict { commit, number });
        assert_eq!(step(Some(&commit), &outcome(false, 1)), Step::Ignore);
        assert_eq!(step(Some(&commit), &outcome(true, 2)), Step::ApplyCommit);
        assert_eq!(step(Some(&commit), &PREPARE), Step::RepeatVote);
    }

    #[test]
    fn a_branch_with_a_pending_decision_is_still_prepared() {
        let pending = Branch::Prepared { pending: Some(Verdict { commit: true, number: 1 }) };
        assert!(Branch::PREPARED.is_prepared());
        assert!(pending.is_prepared());
        assert!(!COMMITTED.is_prepared());
        assert!(!ROLLED_BACK.is_prepared());
    }

    #[test]
    fn the_answer_to_an_inquiry_counts_for_a_prepared_branch_only() {
        for commit in [true, false] {
            let outcome = Request::Outcome(Verdict { commit, number: 1 });
            assert_eq!(step(Some(&Branch::PREPARED), &outcome), apply(commit));
            for decided in [None, Some(&COMMITTED), Some(&ROLLED_BACK)] {
                assert_eq!(step(decided, &outcome), Step::Ignore);
            }
        }
    }

    #[test]
    fn an_operator_resolves_only_what_nobody_has_decided() {
        for commit in [true, false] {
            let resolve = Request::Resolve { commit };
            assert_eq!(step(Some(&Branch::PREPARED), &resolve), apply(commit));
            assert_eq!(step(None, &resolve), Step::AnswerUnknown);
            for decided in [COMMITTED, ROLLED_BACK] {
                assert_eq!(step(Some(&decided), &resolve), Step::RefuseDecided);
            }
            let pending =
                |commit| Branch::Prepared { pending: Some(Verdict { commit, number: 1 }) };
            assert_eq!(step(Some(&pending(commit)), &resolve), apply(commit));
            assert_eq!(step(Some(&pending(!commit)), &resolve), Step::RefuseDecided);
        }
    }

    #[test]
    fn what_may_have_been_forgotten_is_not_promised_again() {
        let late = Request::Prepare { same_payload: true, forgotten: true };
        assert_eq!(step(None, &late), Step::RefuseForgotten);
        assert_eq!(step(Some(&Branch::PREPARED), &late), Step::RepeatVote);
        assert_eq!(step(Some(&COMMITTED), &late), Step::RepeatVote);
    }

    #[test]
    fn a_decided_branch_tells_what_it_did() {
        assert_eq!(step(Some(&ROLLED_BACK), &COMMIT), Step::AnswerRolledBack);
        assert_eq!(step(Some(&COMMITTED), &ROLLBACK), Step::AnswerCommitted);
    }
}
