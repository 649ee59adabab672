//! A transaction as a checker compares it.

use super::{
    Transaction,
    branch::{Attempt, Branch},
};
use crate::{
    BranchState, Config, Phase,
    projection::{BranchProjection, Pace, TransactionProjection},
};

impl Transaction {
    pub(crate) fn newest_attempt(&self, branch: u32) -> Option<u32> {
        self.branches.get(branch as usize).map(|branch| branch.made)
    }

    pub(crate) fn projection(&self, config: &Config) -> TransactionProjection {
        TransactionProjection {
            id: self.id,
            phase: self.state,
            branches: self.branches.iter().map(|it| self.project(it, config)).collect(),
            waiters: self.waiters.iter().map(|waiter| waiter.at).collect(),
            keyed: self.key.is_some(),
            interactive: self.interactive,
            answered: self.answered.len(),
            commit: self.decision.commit,
            number: self.decision.number,
            one_phase: self.one_phase,
            commit_requested: self.commit_requested,
            outcome_visible: self.decision.is_visible,
            deadline: self.deadline.is_some(),
            recovered: self.recovered,
            resolving: self.resolving.clone(),
            abandoning: self.abandoning.clone(),
            is_final: self.end.is_durable,
            intervened: !self.interventions.is_empty(),
            commit_policy: self.options.commit_policy,
        }
    }

    fn project(&self, branch: &Branch, config: &Config) -> BranchProjection {
        // Who asks how often the message was sent, and how often at most.
        let limit = match (self.state, branch.state) {
            (Phase::ResolvingOnePhase, _) => None,
            (_, BranchState::Preparing) if self.options.prepare_attempts > 0 => {
                Some(self.options.prepare_attempts)
            }
            (_, state) if branch.resolved.is_some() && state.is_owed() => {
                Some(config.rollback_attempts)
            }
            (_, BranchState::RollingBack) if branch.supports_inquiry && !self.is_compensating() => {
                Some(config.rollback_attempts)
            }
            (Phase::Committing, BranchState::Committing) => {
                // One more after a restart.
                self.attempts_to_commit().map(|attempts| attempts + 1)
            }
            _ => None,
        };
        let counted = match branch.state {
            // A refusal of the only attempt is the end of it.
            BranchState::Preparing if self.state != Phase::ResolvingOnePhase => {
                limit.unwrap_or(0).max(2)
            }
            _ => limit.unwrap_or(0),
        };
        BranchProjection {
            participant: branch.participant,
            state: branch.state,
            journal: branch.journal,
            supports_inquiry: branch.supports_inquiry,
            resolved: branch.resolved,
            notify: branch.notify,
            sent: branch.sent && !self.is_decided(),
            attempts: branch.attempts.min(counted),
            pace: match branch.attempt {
                Attempt::None => Pace::Still,
                _ if limit.is_none() => Pace::Owed,
                Attempt::Running(_) => Pace::Running,
                Attempt::Waiting(_) => Pace::Waiting,
            },
        }
    }
}
