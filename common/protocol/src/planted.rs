//! Bugs that a test plants, to see that the checks find them. Each overrides a function
//! at its entry, in builds with the feature `mutants` only.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::{
    branch::{Branch, Outcome, Request, Step, Verdict, is_late, step_in_time},
    fence::{Admission, Run},
};

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name, as in `epoch-ignored`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)*
                }
            }
        }
    };
}

bugs! {
    // A branch and the fence: `common`.
    /// A rollback of an unknown branch leaves nothing.
    TombstoneMissing = "tombstone-missing",
    /// A branch that was rolled back is prepared again.
    TombstoneIgnored = "tombstone-ignored",
    /// A commit for an unknown branch is answered 'committed'.
    UnknownAcknowledged = "unknown-acknowledged",
    /// A prepare with another payload gets the promise of the first.
    OtherPayloadPromised = "other-payload-promised",
    /// A duplicate prepare reserves again.
    ReservesTwice = "reserves-twice",
    /// A decision with a lower number than the one applied is answered.
    NumberIgnored = "number-ignored",
    /// A late rollback undoes a commit.
    CommitUndone = "commit-undone",
    /// A commit that was compensated is not undone.
    CompensationIgnored = "compensation-ignored",
    /// A compensation for an unknown branch is answered 'rolled back'.
    UnknownCompensated = "unknown-compensated",
    /// A second prepare ends a promise.
    PromiseEndsAlone = "promise-ends-alone",
    /// 'Not mine', or another coordinator's word, rolls a branch back.
    NotMineAborts = "not-mine-aborts",
    /// A replaced coordinator is obeyed.
    EpochIgnored = "epoch-ignored",

    // The coordinator's machine: `dtc-core`.
    /// Commits are sent before the record is durable.
    CommitSentEarly = "commit-sent-early",
    /// Clients are shown a commit before the record is durable.
    CommitShownEarly = "commit-shown-early",
    /// A keyed client sees its abort before the record is durable.
    KeyedAbortVisibleEarly = "keyed-abort-visible-early",
    /// One vote is enough.
    OneVoteCommits = "one-vote-commits",
    /// A client may roll back while the commit record is being written.
    DecisionTakenBack = "decision-taken-back",
    /// A transaction ends before its branches have acknowledged.
    EndsUnacknowledged = "ends-unacknowledged",
    /// Nothing is rolled back at a branch whose vote did not arrive.
    LostVoteNotRolledBack = "lost-vote-not-rolled-back",
    /// A question about an undecided transaction is answered 'aborted'.
    PendingAnsweredAborted = "pending-answered-aborted",
    /// A restart does not take up a decided commit.
    CommitForgotten = "commit-forgotten",
    /// One phase: no answer is an abort.
    LostAnswerAborts = "lost-answer-aborts",
    /// Prepare goes to participants that can't ask, with no begin record.
    BeginRecordMissing = "begin-record-missing",
    /// A key's first run is not looked up.
    KeyNotLookedUp = "key-not-looked-up",
    /// Any journal may acknowledge.
    AnyJournalAcknowledges = "any-journal-acknowledges",
    /// 'Unknown' is an acknowledgement.
    UnknownAccepted = "unknown-accepted",
    /// A decision that is compensated is sent before the record is durable.
    CompensatedEarly = "compensated-early",
    /// A client is answered 'committed' though that may be compensated.
    CompensableVisibleEarly = "compensable-visible-early",
    /// A compensating rollback is left to a participant that may have committed.
    CompensationUnacknowledged = "compensation-unacknowledged",
    /// A branch is resolved by an operator before that is durable.
    ResolvedEarly = "resolved-early",
    /// What an operator resolved as it was decided is shown as acknowledged.
    AssertedAsAcknowledged = "asserted-as-acknowledged",
    /// A notification that is owed is forgotten.
    NotificationForgotten = "notification-forgotten",
    /// A branch that was resolved by an operator is shown as it was decided.
    ResolutionDressedUp = "resolution-dressed-up",
    /// Prepare goes out before the locks are held.
    LocksNotAwaited = "locks-not-awaited",
    /// Locks are released at the decision.
    LocksReleasedEarly = "locks-released-early",
    /// A restart does not take the locks of what is unfinished.
    LocksForgotten = "locks-forgotten",
    /// One phase: a refusal by another journal than the one that was asked is the end.
    OtherJournalRefuses = "other-journal-refuses",
    /// A restart forgets which journal was asked to commit in one phase.
    AskedJournalForgotten = "asked-journal-forgotten",
    /// A restart forgets which journal had voted.
    VotedJournalForgotten = "voted-journal-forgotten",
    /// What is resolved as it is compensated undoes no commit.
    ResolvedNotCompensated = "resolved-not-compensated",
    /// What is resolved as it is compensated is asserted, though it may have committed.
    AssertedUncompensated = "asserted-uncompensated",
    /// The compensation of a lost branch is left to its participant.
    LostCompensationLeft = "lost-compensation-left",
    /// The key of a call that enlists is ignored.
    CallKeyIgnored = "call-key-ignored",
    /// A refusal of one attempt among several is the end of its branch.
    RefusalEndsAllAttempts = "refusal-ends-all-attempts",

    // The participant kit: `dtc-participant`.
    /// A vote leaves before it is durable.
    VoteBeforeDurable = "kit-vote-before-durable",
    /// A prepared branch is rolled back when it has waited for long.
    PreparedTimesOut = "kit-prepared-times-out",
    /// A rollback does not tell the domain.
    ReservationKept = "kit-reservation-kept",
    /// Nobody asks about branches in doubt.
    DoubtsUnasked = "kit-doubts-unasked",
}

static PLANTED: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Bug {
    /// The bug of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// Plants one bug in this process, or none, in place of what was planted.
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(usize::MAX, |bug| bug as usize), Relaxed);
}

/// Whether a bug is planted.
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.load(Relaxed) == bug as usize
}

/// The bug that is planted.
pub fn planted() -> Option<Bug> {
    Bug::ALL.get(PLANTED.load(Relaxed)).copied()
}

/// What the planted bug makes of a branch's step, where it changes that.
pub(crate) fn step(branch: Option<&Branch>, request: &Request) -> Option<Step> {
    let bug = planted()?;
    if is_late(branch, request) {
        return (bug == Bug::NumberIgnored).then(|| step_in_time(branch, request));
    }
    let in_doubt = branch.is_some_and(Branch::is_in_doubt);
    Some(match (bug, request, branch) {
        (Bug::TombstoneIgnored, Request::Prepare { .. }, Some(Branch::RolledBack { .. })) => {
            Step::Reserve
        }
        (Bug::ReservesTwice, Request::Prepare { .. }, Some(Branch::Prepared { .. })) => {
            Step::Reserve
        }
        (Bug::PromiseEndsAlone, Request::Prepare { .. }, Some(Branch::Prepared { .. })) => {
            Step::Apply(Verdict { commit: false, number: 0 })
        }
        (Bug::OtherPayloadPromised, Request::Prepare { .. }, Some(Branch::Prepared { .. })) => {
            Step::RepeatVote { committed: false }
        }
        (Bug::UnknownAcknowledged, Request::Commit { .. }, None) => Step::AnswerCommitted,
        (Bug::TombstoneMissing, Request::Rollback { compensate: false, .. }, None) => {
            Step::AnswerRolledBack
        }
        (
            Bug::UnknownCompensated,
            &Request::Rollback { compensate: true, decision_number, .. },
            None,
        ) => Step::LeaveTombstone { decision_number },
        (
            Bug::CommitUndone,
            &Request::Rollback { decision_number: number, .. },
            Some(Branch::Committed { .. }),
        ) => Step::Apply(Verdict { commit: false, number }),
        (Bug::CompensationIgnored, Request::Rollback { .. }, Some(Branch::Committed { .. })) => {
            Step::AnswerCommitted
        }
        (
            Bug::NotMineAborts,
            Request::Outcome { outcome: Outcome::NotMine, .. }
            | Request::Outcome { own: false, .. },
            _,
        ) if in_doubt => Step::Apply(Verdict { commit: false, number: 1 }),
        _ => return None,
    })
}

/// What the planted bug makes of the fence, where it changes that.
pub(crate) fn admit(highest: Option<&Run>, presented: &Run) -> Option<Admission> {
    let is_old = highest.is_some_and(|it| presented != it && presented.epoch <= it.epoch);
    (is_planted(Bug::EpochIgnored) && is_old).then_some(Admission::Current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_found_by_its_name() {
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(*bug));
        }
        assert_eq!(Bug::named("none"), None);
    }
}
