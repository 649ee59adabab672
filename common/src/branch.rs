//! A branch at its participant: `(none) → Prepared → Committed | RolledBack`,
//! and `(none) → RolledBack`, a tombstone; `Committed → RolledBack` where a
//! decision to commit was turned round.
//!
//! Invariants:
//! - A prepared branch leaves that state by a decision only; nothing here looks
//!   at a clock or counts attempts.
//! - A branch that was rolled back, known before or not, refuses every later
//!   prepare.
//! - An unknown branch is never acknowledged as committed.
//! - What is committed is undone only by a rollback that says so, `compensate`.
//! - A decision with a lower number than the one applied changes nothing.

use crate::planted;

/// What the participant's journal holds of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Branch {
    /// Promised, undecided: in doubt after a restart.
    Prepared,
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

/// What a coordinator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// Promise the branch.
    Prepare {
        /// Whether the payload is the one that the journal holds; true where it
        /// holds none.
        same_payload: bool,
    },
    /// Make the effect final.
    Commit {
        /// 1, or 2 after a decision was turned round.
        decision_number: u32,
    },
    /// Undo it.
    Rollback {
        /// 1, or 2 after a decision was turned round.
        decision_number: u32,
        /// The decision was turned round: undo it even if it is committed.
        compensate: bool,
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
    /// No answer: a newer decision was applied, this one is late.
    Ignore,
}

impl Branch {
    /// The number of the decision that was applied; 0 where none was.
    pub fn decision_number(&self) -> u32 {
        match *self {
            Self::Prepared => 0,
            Self::Committed { decision_number } | Self::RolledBack { decision_number } => {
                decision_number
            }
        }
    }
}

impl Request {
    /// The number of the decision that it carries; none for prepare.
    fn decision_number(&self) -> Option<u32> {
        match *self {
            Self::Prepare { .. } => None,
            Self::Commit { decision_number } | Self::Rollback { decision_number, .. } => {
                Some(decision_number)
            }
        }
    }
}

/// The transition function: what to do with `request`, where the journal holds `branch`.
pub fn step(branch: Option<&Branch>, request: &Request) -> Step {
    let applied = branch.map_or(0, Branch::decision_number);
    let is_late = request.decision_number().is_some_and(|number| number < applied);
    if is_late && !planted!(NumberIgnored) {
        return Step::Ignore;
    }
    match (branch, request) {
        (None, Request::Rollback { .. }) if planted!(TombstoneMissing) => Step::AnswerRolledBack,
        (None, Request::Commit { .. }) if planted!(UnknownAcknowledged) => Step::AnswerCommitted,
        (Some(Branch::RolledBack { .. }), Request::Prepare { .. })
            if planted!(TombstoneIgnored) =>
        {
            Step::Reserve
        }
        (Some(Branch::Prepared), Request::Prepare { .. }) if planted!(ReservesTwice) => {
            Step::Reserve
        }
        (Some(Branch::Prepared), Request::Prepare { .. }) if planted!(PromiseEndsAlone) => {
            Step::ApplyRollback
        }
        (Some(Branch::Prepared), Request::Prepare { .. }) if planted!(OtherPayloadPromised) => {
            Step::RepeatVote
        }
        (Some(Branch::Committed { .. }), Request::Rollback { .. }) if planted!(CommitUndone) => {
            Step::ApplyRollback
        }

        (None, Request::Prepare { .. }) => Step::Reserve,
        (None, Request::Commit { .. }) => Step::AnswerUnknown,
        (None, Request::Rollback { .. }) => Step::LeaveTombstone,

        (Some(Branch::RolledBack { .. }), Request::Prepare { .. }) => Step::RefuseRolledBack,
        (Some(_), Request::Prepare { same_payload: false }) => Step::RefuseOtherPayload,
        (Some(_), Request::Prepare { same_payload: true }) => Step::RepeatVote,

        (Some(Branch::Prepared), Request::Commit { .. }) => Step::ApplyCommit,
        (Some(Branch::Prepared), Request::Rollback { .. }) => Step::ApplyRollback,

        (Some(Branch::Committed { .. }), Request::Rollback { compensate: true, .. })
            if !planted!(CompensationIgnored) =>
        {
            Step::Compensate
        }
        (Some(Branch::Committed { .. }), Request::Commit { .. } | Request::Rollback { .. }) => {
            Step::AnswerCommitted
        }
        (Some(Branch::RolledBack { .. }), Request::Commit { .. } | Request::Rollback { .. }) => {
            Step::AnswerRolledBack
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREPARE: Request = Request::Prepare { same_payload: true };
    const COMMIT: Request = Request::Commit { decision_number: 1 };
    const ROLLBACK: Request = Request::Rollback { decision_number: 1, compensate: false };
    const TURN_ROUND: Request = Request::Rollback { decision_number: 2, compensate: true };
    const COMMITTED: Branch = Branch::Committed { decision_number: 1 };
    const ROLLED_BACK: Branch = Branch::RolledBack { decision_number: 1 };

    #[test]
    fn a_branch_goes_from_prepared_to_its_decision() {
        assert_eq!(step(None, &PREPARE), Step::Reserve);
        assert_eq!(step(Some(&Branch::Prepared), &COMMIT), Step::ApplyCommit);
        assert_eq!(step(Some(&Branch::Prepared), &ROLLBACK), Step::ApplyRollback);
    }

    #[test]
    fn duplicates_get_the_first_answer() {
        assert_eq!(step(Some(&Branch::Prepared), &PREPARE), Step::RepeatVote);
        assert_eq!(step(Some(&COMMITTED), &PREPARE), Step::RepeatVote);
        assert_eq!(step(Some(&COMMITTED), &COMMIT), Step::AnswerCommitted);
        assert_eq!(step(Some(&ROLLED_BACK), &ROLLBACK), Step::AnswerRolledBack);
    }

    #[test]
    fn another_payload_under_the_same_branch_is_refused() {
        let other = Request::Prepare { same_payload: false };
        assert_eq!(step(Some(&Branch::Prepared), &other), Step::RefuseOtherPayload);
        assert_eq!(step(Some(&COMMITTED), &other), Step::RefuseOtherPayload);
    }

    #[test]
    fn a_tombstone_refuses_the_late_prepare() {
        assert_eq!(step(None, &ROLLBACK), Step::LeaveTombstone);
        assert_eq!(step(Some(&ROLLED_BACK), &PREPARE), Step::RefuseRolledBack);
        let other = Request::Prepare { same_payload: false };
        assert_eq!(step(Some(&ROLLED_BACK), &other), Step::RefuseRolledBack);
    }

    #[test]
    fn an_unknown_branch_is_never_acknowledged() {
        assert_eq!(step(None, &COMMIT), Step::AnswerUnknown);
    }

    #[test]
    fn a_decision_that_was_turned_round_makes_the_first_one_late() {
        let turned_round = Branch::RolledBack { decision_number: 2 };
        assert_eq!(step(Some(&turned_round), &COMMIT), Step::Ignore);
        assert_eq!(step(Some(&turned_round), &ROLLBACK), Step::Ignore);
        assert_eq!(step(Some(&turned_round), &TURN_ROUND), Step::AnswerRolledBack);
    }

    #[test]
    fn what_is_committed_is_undone_only_by_a_decision_that_was_turned_round() {
        let plain = Request::Rollback { decision_number: 2, compensate: false };
        assert_eq!(step(Some(&COMMITTED), &plain), Step::AnswerCommitted);
        assert_eq!(step(Some(&COMMITTED), &TURN_ROUND), Step::Compensate);
        assert_eq!(step(Some(&Branch::Prepared), &TURN_ROUND), Step::ApplyRollback);
        assert_eq!(step(None, &TURN_ROUND), Step::LeaveTombstone);
    }

    #[test]
    fn a_decided_branch_tells_what_it_did() {
        assert_eq!(step(Some(&ROLLED_BACK), &COMMIT), Step::AnswerRolledBack);
        assert_eq!(step(Some(&COMMITTED), &ROLLBACK), Step::AnswerCommitted);
    }
}
