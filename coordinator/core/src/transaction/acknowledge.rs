//! What an answer to commit or rollback means for its branch, as a pure function of
//! all that it depends on.
//!
//! Invariants:
//! - Only the journal that voted, or was asked to commit in one phase, acknowledges. An
//!   answer without a journal, or about a branch whose journal is not known, counts.
//! - 'Unknown' acknowledges nothing.
//! - An abort is retried for as long as the journal that voted may come back and ask;
//!   where it can't ask, another journal's answer is the end, as a hazard.

use crate::{Acknowledgement, BranchState, TrailKind};

/// A branch that an answer came for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) state: BranchState,
    /// The decision.
    pub(super) commit: bool,
    /// The decision to commit was compensated.
    pub(super) compensating: bool,
    /// What an operator resolved it to.
    pub(super) resolved: Option<bool>,
    /// Its participant is still to be notified of that.
    pub(super) notify: bool,
    /// Its participant asks when in doubt.
    pub(super) supports_inquiry: bool,
    /// Its transaction holds locks, until the journal that voted has answered.
    pub(super) locked: bool,
    /// The answer is not of another journal than the one that voted.
    pub(super) own_journal: bool,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The branch has ended so.
    Finish(BranchState, TrailKind),
    /// The message is sent again.
    Retry,
    /// Nothing.
    Ignore,
}

pub(super) const COMMITTED: Verdict =
    Verdict::Finish(BranchState::Committed, TrailKind::CommitAcknowledged);
pub(super) const ROLLED_BACK: Verdict =
    Verdict::Finish(BranchState::RolledBack, TrailKind::RollbackAcknowledged);
const OPPOSITE: Verdict = Verdict::Finish(BranchState::Heuristic, TrailKind::Heuristic);
const HAZARD: Verdict = Verdict::Finish(BranchState::Hazard, TrailKind::Hazard);
const ROLLBACK_UNACKNOWLEDGED: Verdict =
    Verdict::Finish(BranchState::RollbackUnacknowledged, TrailKind::RollbackUnacknowledged);

impl Awaited {
    /// Judges the answer to the message that is owed, of its decision's number.
    pub(super) fn judge(&self, answer: &Acknowledgement) -> Verdict {
        let rollback_unacknowledged = self.state == BranchState::RollbackUnacknowledged;
        if !(self.state.is_owed() || self.notify || rollback_unacknowledged) {
            return Verdict::Ignore;
        }
        #[cfg(feature = "mutants")]
        if let Some(verdict) = super::mutants::judge(self, answer) {
            return verdict;
        }
        let verdict = match self.commit {
            true => self.judge_commit(answer),
            false => self.judge_abort(answer),
        };
        match verdict {
            // Nothing is sent any more.
            Verdict::Retry | ROLLBACK_UNACKNOWLEDGED if rollback_unacknowledged => Verdict::Ignore,
            verdict => verdict,
        }
    }

    fn judge_commit(&self, answer: &Acknowledgement) -> Verdict {
        match answer {
            Acknowledgement::Failed(_) => Verdict::Retry,
            Acknowledgement::Committed if self.own_journal => COMMITTED,
            Acknowledgement::RolledBack if self.own_journal => OPPOSITE,
            _ => HAZARD,
        }
    }

    fn judge_abort(&self, answer: &Acknowledgement) -> Verdict {
        match answer {
            Acknowledgement::Failed(_) => Verdict::Retry,
            Acknowledgement::Committed => OPPOSITE,
            Acknowledgement::RolledBack if self.own_journal => ROLLED_BACK,
            // It may have committed, and cannot be asked whether it undid that.
            _ if self.compensating => HAZARD,
            Acknowledgement::Unknown if self.own_journal && self.resolved.is_some() => HAZARD,
            // No tombstone was left: its prepare may come yet.
            Acknowledgement::Unknown if self.own_journal => Verdict::Retry,
            // The journal that voted is not there, and will never ask.
            _ if !self.supports_inquiry => HAZARD,
            // It will ask when it is back.
            _ if self.locked || self.resolved.is_some() => Verdict::Retry,
            Acknowledgement::RolledBack => ROLLBACK_UNACKNOWLEDGED,
            Acknowledgement::Unknown => Verdict::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec::Vec};

    const ANSWERS: [Acknowledgement; 4] = [
        Acknowledgement::Committed,
        Acknowledgement::RolledBack,
        Acknowledgement::Unknown,
        Acknowledgement::Failed(String::new()),
    ];
    const BOTH: [bool; 2] = [true, false];

    /// Every branch that can be, with every answer to it.
    fn all() -> Vec<(Awaited, Acknowledgement)> {
        let mut all = Vec::new();
        for bits in 0..1_u32 << 6 {
            let [commit, compensating, notify, supports_inquiry, locked, own_journal] =
                core::array::from_fn(|bit| bits & 1 << bit != 0);
            for resolved in [None, Some(true), Some(false)] {
                let owed = match commit {
                    true => BranchState::Committing,
                    false => BranchState::RollingBack,
                };
                use BranchState::{
                    Asserted, Committed, Hazard, Refused, RollbackUnacknowledged, RolledBack,
                };
                for state in
                    [owed, RollbackUnacknowledged, Asserted, Hazard, Committed, RolledBack, Refused]
                {
                    let awaited = Awaited {
                        state,
                        commit,
                        compensating: compensating && !commit,
                        resolved,
                        notify: notify && resolved.is_some() && matches!(state, Asserted | Hazard),
                        supports_inquiry,
                        locked,
                        own_journal,
                    };
                    all.extend(ANSWERS.map(|answer| (awaited, answer)));
                }
            }
        }
        all
    }

    fn is_awaited(it: &Awaited) -> bool {
        it.state.is_owed() || it.notify
    }

    #[test]
    fn nothing_follows_where_nothing_is_awaited() {
        for (it, answer) in all() {
            if !is_awaited(&it) && it.state != BranchState::RollbackUnacknowledged {
                assert_eq!(it.judge(&answer), Verdict::Ignore, "{it:?} {answer:?}");
            }
        }
    }

    #[test]
    fn what_was_left_to_ask_is_neither_sent_again_nor_left_once_more() {
        for (it, answer) in all() {
            if it.state == BranchState::RollbackUnacknowledged {
                let verdict = it.judge(&answer);
                assert!(
                    !matches!(verdict, Verdict::Retry | ROLLBACK_UNACKNOWLEDGED),
                    "{it:?} {answer:?}"
                );
            }
        }
    }

    #[test]
    fn only_the_journal_that_voted_acknowledges_and_only_what_was_decided() {
        for (it, answer) in all() {
            let acknowledged = match it.judge(&answer) {
                Verdict::Finish(BranchState::Committed, kind) => {
                    assert_eq!(kind, TrailKind::CommitAcknowledged);
                    it.commit && answer == Acknowledgement::Committed
                }
                Verdict::Finish(BranchState::RolledBack, kind) => {
                    assert_eq!(kind, TrailKind::RollbackAcknowledged);
                    !it.commit && answer == Acknowledgement::RolledBack
                }
                _ => continue,
            };
            assert!(acknowledged && it.own_journal, "{it:?} {answer:?}");
        }
    }

    #[test]
    fn every_answer_that_says_something_is_the_end_but_for_a_journal_that_may_come_back() {
        for (it, answer) in all() {
            let failed = matches!(answer, Acknowledgement::Failed(_));
            if failed || !is_awaited(&it) {
                continue;
            }
            let retried = it.judge(&answer) == Verdict::Retry;
            let may_ask = !it.own_journal && it.supports_inquiry;
            let no_tombstone = it.own_journal && it.resolved.is_none();
            let unknown = answer == Acknowledgement::Unknown;
            let rolled_back = answer == Acknowledgement::RolledBack;
            let expected = !it.commit
                && !it.compensating
                && (may_ask && (unknown || rolled_back && (it.locked || it.resolved.is_some()))
                    || unknown && no_tombstone);
            assert_eq!(retried, expected, "{it:?} {answer:?}");
        }
    }

    #[test]
    fn what_did_the_opposite_is_mixed_and_what_cannot_be_known_a_hazard() {
        for (it, answer) in all() {
            let opposite = match answer {
                Acknowledgement::Committed => !it.commit,
                Acknowledgement::RolledBack => it.commit && it.own_journal,
                _ => false,
            };
            let awaited = is_awaited(&it) || it.state == BranchState::RollbackUnacknowledged;
            let is_mixed = it.judge(&answer) == OPPOSITE;
            assert_eq!(is_mixed, awaited && opposite, "{it:?} {answer:?}");
            if it.judge(&answer) == HAZARD {
                let unknown = answer == Acknowledgement::Unknown;
                assert!(!it.own_journal || unknown, "{it:?} {answer:?}");
            }
        }
    }

    #[test]
    fn a_failure_ends_nothing() {
        for (it, answer) in all() {
            if let Acknowledgement::Failed(_) = answer {
                assert!(!matches!(it.judge(&answer), Verdict::Finish(..)), "{it:?}");
            }
        }
    }

    #[test]
    fn a_rollback_is_left_only_to_one_that_asks_and_owes_nobody_an_answer() {
        for (it, answer) in all() {
            if it.judge(&answer) == ROLLBACK_UNACKNOWLEDGED {
                let nobody_waits = !it.locked && !it.compensating && it.resolved.is_none();
                assert!(
                    it.supports_inquiry && !it.own_journal && nobody_waits,
                    "{it:?} {answer:?}"
                );
            }
        }
        // It is, where that is so.
        for own_journal in BOTH {
            let it = Awaited {
                state: BranchState::RollingBack,
                commit: false,
                compensating: false,
                resolved: None,
                notify: false,
                supports_inquiry: true,
                locked: false,
                own_journal,
            };
            let expected = if own_journal { ROLLED_BACK } else { ROLLBACK_UNACKNOWLEDGED };
            assert_eq!(it.judge(&Acknowledgement::RolledBack), expected);
        }
    }
}
