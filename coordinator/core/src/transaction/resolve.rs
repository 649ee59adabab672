//! Heuristic decisions: an operator ends what the protocol cannot.
//!
//! Invariants:
//! - Nothing is done before the record that says by whom and why is durable.
//! - What an operator resolved is shown as acknowledged only when its participant says
//!   so: until then it is asserted, or a hazard (see `notify`).

use alloc::{collections::BTreeSet, format, sync::Arc, vec::Vec};

use super::{Context, Phase, RecordPurpose, Transaction};
use crate::{
    BranchState, Intervention, InterventionAction, Reason, TrailKind, intervention::MAX_RETRIES,
};

impl Transaction {
    /// Whether it was retried by an operator as often as is kept. (Each branch is resolved
    /// once, so that resolving needs no bound.)
    pub(crate) fn is_retried_out(&self) -> bool {
        let retries = self.interventions.iter().filter(|it| it.action == InterventionAction::Retry);
        retries.count() >= MAX_RETRIES
    }

    /// Resolves the transaction or a branch. False where its state does not allow
    /// that: nothing is owed, or not all have voted and it is to be committed.
    pub(crate) fn resolve(&mut self, it: Intervention, context: &mut Context) -> bool {
        let commit = it.action == InterventionAction::Commit;
        match self.state {
            Phase::Active
            | Phase::Linking
            | Phase::Locking
            | Phase::ForcingBegin
            | Phase::Preparing
            | Phase::Prepared
                if !commit && it.branch.is_none() && self.can_roll_back() =>
            {
                let reason = by_operator(&it);
                self.interventions.push(it);
                self.abort(reason, context);
                true
            }
            Phase::Prepared if commit && it.branch.is_none() => {
                self.interventions.push(it);
                self.become_deciding(context);
                true
            }
            // Whether it was committed in one phase only its participant knows.
            Phase::ResolvingOnePhase if it.branch.unwrap_or(0) == 0 => {
                let reason = by_operator(&it);
                self.interventions.push(it);
                // The participant is notified, and may know better.
                self.branches[0].finish(BranchState::Hazard);
                self.note(context, TrailKind::Hazard, Some(0));
                self.resolving = Vec::from([(0, commit)]);
                match commit {
                    true => self.become_deciding(context),
                    false => self.abort(reason, context),
                }
                // The decision is a record of its own, with its own number.
                self.record_again(true, RecordPurpose::Resolved, context);
                true
            }
            Phase::Committing | Phase::Aborting if self.resolving.is_empty() => {
                self.resolve_owed(commit, it, context)
            }
            _ => false,
        }
    }

    /// Asks for the record of what is to be done to branches that are owed something.
    fn resolve_owed(&mut self, commit: bool, it: Intervention, context: &mut Context) -> bool {
        let meant = |index: usize| it.branch.is_none_or(|branch| branch as usize == index);
        let owed = |index: usize| {
            let branch = &self.branches[index];
            // A rollback that is unacknowledged may be resolved where it was sent.
            (branch.state.is_owed() || branch.state == BranchState::RollbackUnacknowledged)
                && branch.resolved.is_none()
        };
        let all = (0..self.branches.len()).filter(|index| meant(*index) && owed(*index));
        self.resolving = all.map(|index| (index, commit)).collect();
        if self.resolving.is_empty() {
            return false;
        }
        self.interventions.push(it);
        self.record_again(true, RecordPurpose::Resolved, context);
        true
    }

    /// Whether a branch was asked to commit in one phase and nobody knows whether it did.
    pub(super) fn is_outcome_unknown(&self, index: usize) -> bool {
        self.one_phase && self.branches[index].state == BranchState::Hazard
    }

    /// The state of a branch that is notified of the decision.
    pub(super) fn owed_state(&self) -> BranchState {
        match self.decision.commit {
            true => BranchState::Committing,
            false => BranchState::RollingBack,
        }
    }

    /// Asks for the decision's record once more, with what was done by an operator.
    pub(super) fn record_again(
        &mut self,
        sync: bool,
        purpose: RecordPurpose,
        context: &mut Context,
    ) {
        let record = self.decision_record(context);
        self.trail.recorded = self.trail.events.len();
        self.append(record, sync, purpose, context);
    }

    /// It is durable: branches are notified, but not for ever.
    pub(super) fn become_resolved(&mut self, context: &mut Context) {
        let owed = self.owed_state();
        for (index, commit) in core::mem::take(&mut self.resolving) {
            let unknown = self.is_outcome_unknown(index);
            let branch = &mut self.branches[index];
            let is_open =
                branch.state.is_owed() || branch.state == BranchState::RollbackUnacknowledged;
            let is_open = is_open || unknown;
            // It may have been acknowledged meanwhile, and the transaction ended.
            if !is_open || !matches!(self.state, Phase::Committing | Phase::Aborting) {
                continue;
            }
            branch.resolved = Some(commit);
            branch.become_state(if unknown { BranchState::Hazard } else { owed });
            branch.notify = unknown;
            self.note(context, TrailKind::Resolved, Some(index));
            self.send(index, context);
        }
        self.go_on(context);
    }

    /// Sends now what waits for its next attempt. False where nothing is waited for.
    pub(crate) fn retry_now(&mut self, it: Intervention, context: &mut Context) -> bool {
        let waits = |branch: &super::Branch| branch.attempt.due().is_some();
        if !self.branches.iter().any(waits) {
            return false;
        }
        self.interventions.push(it);
        if matches!(self.state, Phase::Committing | Phase::Aborting | Phase::Notifying) {
            self.record_again(false, RecordPurpose::Noted, context);
        }
        for participant in self.participants().collect::<BTreeSet<_>>() {
            self.resume(participant, true, context);
        }
        self.go_on(context);
        true
    }
}

fn by_operator(it: &Intervention) -> Arc<Reason> {
    let message = format!("by operator {}: {}", it.caller, it.reason);
    Arc::new(Reason { code: "RESOLVED".into(), message, participant: None })
}
