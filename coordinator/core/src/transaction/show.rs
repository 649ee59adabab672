//! What may be shown of a transaction, to clients and to participants in doubt.

use alloc::vec::Vec;

use super::{Context, Phase, Transaction};
use crate::{BranchOutcome, BranchState, BranchView, Outcome, TrailKind, TransactionState, View};

impl Transaction {
    /// The transaction as it may be shown now.
    pub(crate) fn view(&self, with_trail: bool) -> View {
        let state = self.shown_state();
        let decided = self.is_durably_decided();
        let branches = self.branches.iter().map(|branch| {
            let state = match branch.state {
                BranchState::RollingBack if self.state == Phase::Compensating => {
                    BranchState::Committing
                }
                // Decided, not durably: to the outside nothing has happened.
                BranchState::Committing
                | BranchState::RollingBack
                | BranchState::RolledBack
                | BranchState::RollbackUnacknowledged
                    if !decided =>
                {
                    BranchState::Prepared
                }
                state => state,
            };
            // What has ended is read from its record, which has no attempts.
            let waited_for = is_waited_for(state) || branch.notify;
            BranchView {
                participant: branch.participant,
                state,
                refusal: branch.refusal.clone(),
                attempts: if waited_for { branch.attempts } else { 0 },
                resolution: branch.resolved,
                notification_owed: branch.notify,
            }
        });
        let branches: Vec<_> = branches.collect();
        let outcome = match self.is_outcome_visible() {
            true => Outcome::of(self.decision.commit, branches.iter().map(|branch| branch.state)),
            false => Outcome::Pending,
        };
        let hidden = |kind| self.is_outcome_hidden() && shows_a_decision(kind);
        let trail = match with_trail {
            true => self.trail.events.iter().filter(|event| !hidden(event.kind)).copied().collect(),
            false => Vec::new(),
        };
        View {
            id: self.id,
            age: self.age,
            key: self.key.as_ref().map(|(key, _)| key.clone()),
            state,
            outcome,
            committed: self.is_outcome_visible() && self.decision.commit,
            stalled: self.stalled,
            branches,
            reason: self.decision.reason.clone().filter(|_| decided),
            begun_at: self.begun_at,
            decided_at: self.decision.at.filter(|_| decided),
            ended_at: self.end.at.filter(|_| decided),
            interventions: self.interventions.clone(),
            trail,
        }
    }

    /// Where it is, to the outside.
    pub(crate) fn shown_state(&self) -> TransactionState {
        match self.state {
            Phase::Opening | Phase::Active => TransactionState::Active,
            Phase::Linking
            | Phase::Locking
            | Phase::ForcingBegin
            | Phase::Preparing
            | Phase::ResolvingOnePhase
            | Phase::Deciding => TransactionState::Preparing,
            Phase::Prepared => TransactionState::Prepared,
            Phase::Committing | Phase::Compensating => TransactionState::Committing,
            Phase::Notifying | Phase::Ended if self.decision.commit && self.is_outcome_hidden() => {
                TransactionState::Committing
            }
            Phase::Aborting | Phase::Notifying | Phase::Ended if self.is_outcome_hidden() => {
                TransactionState::Preparing
            }
            Phase::Aborting => TransactionState::Aborting,
            Phase::Notifying | Phase::Ended if self.decision.commit => TransactionState::Committed,
            Phase::Notifying | Phase::Ended => TransactionState::Aborted,
        }
    }

    /// Whether the client may still roll it back.
    pub(crate) fn can_roll_back(&self) -> bool {
        let only_participant_knows = self.state == Phase::ResolvingOnePhase
            || self.state == Phase::Preparing && self.may_be_committed();
        !self.is_decided() && !only_participant_knows
    }

    /// Whether it was decided to abort.
    pub(crate) fn is_aborting(&self) -> bool {
        (self.state == Phase::Aborting || self.has_ended()) && !self.decision.commit
    }

    /// Whether its begin record is not durable, so that no client has its id.
    pub(crate) fn is_opening(&self) -> bool {
        self.state == Phase::Opening
    }

    /// Whether branches may be enlisted.
    pub(crate) fn is_active(&self) -> bool {
        self.state == Phase::Active
    }

    /// Answers a participant in doubt.
    pub(crate) fn inquired(&mut self, number: u32, context: &mut Context) -> BranchOutcome {
        let index = number as usize;
        if index >= self.branches.len() {
            return BranchOutcome::NotMine;
        }
        #[cfg(feature = "mutants")]
        if let Some(outcome) = super::mutants::inquired(self) {
            return outcome;
        }
        if self.state != Phase::Ended {
            self.note(context, TrailKind::Asked, Some(index));
        }
        let resolved = self.branches[index].resolved;
        match (resolved, self.state) {
            (Some(true), _) => return self.committed(index, self.decision.number + 1),
            (Some(false), _) => return BranchOutcome::Aborted { number: self.decision.number + 1 },
            _ => {}
        }
        match self.state {
            Phase::Committing => self.committed(index, self.decision.number),
            Phase::Notifying | Phase::Ended if self.decision.commit => {
                self.committed(index, self.decision.number)
            }
            Phase::Aborting | Phase::Notifying | Phase::Ended => {
                BranchOutcome::Aborted { number: self.decision.number }
            }
            _ => BranchOutcome::Pending,
        }
    }

    fn committed(&self, index: usize, number: u32) -> BranchOutcome {
        let output = self.branches[index].output.clone();
        BranchOutcome::Committed { number, output }
    }
}

pub(super) fn shows_a_decision(kind: TrailKind) -> bool {
    matches!(
        kind,
        TrailKind::DecidedAbort
            | TrailKind::RollbackAcknowledged
            | TrailKind::RollbackUnacknowledged
            | TrailKind::Stalled
            | TrailKind::Heuristic
            | TrailKind::Ended
    )
}

fn is_waited_for(state: BranchState) -> bool {
    matches!(state, BranchState::Preparing | BranchState::Committing | BranchState::RollingBack)
}
