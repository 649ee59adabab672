//! Breaking a promise by hand: people end what the protocol cannot.
//!
//! Invariants:
//! - Nothing is done by force before the record that says by whom and why is durable.
//! - What an operator resolved is shown as acknowledged only when its participant says
//!   so: until then it is asserted, or a hazard (see `notify`).

use alloc::{collections::BTreeSet, format, sync::Arc, vec::Vec};

use dtc_protocol::planted;

use super::{Context, Milestone, State, Transaction};
use crate::{
    BranchState, Intervention, InterventionAction, Reason, TrailKind, intervention::MAX_RETRIES,
};

impl Transaction {
    /// Whether it was retried by hand as often as is kept. (Each branch is forced once,
    /// so that force needs no bound.)
    pub(crate) fn is_retried_out(&self) -> bool {
        let retries = self.interventions.iter().filter(|it| it.action == InterventionAction::Retry);
        retries.count() >= MAX_RETRIES
    }

    /// Ends the transaction or a branch by force. False where its state does not allow
    /// that: nothing is owed, or not all have voted and it is to be committed.
    pub(crate) fn resolve(&mut self, it: Intervention, context: &mut Context) -> bool {
        let commit = it.action == InterventionAction::Commit;
        match self.state {
            State::Active
            | State::Linking
            | State::Locking
            | State::Logging
            | State::Preparing
            | State::Prepared
                if !commit && it.branch.is_none() && self.can_roll_back() =>
            {
                let reason = by_force(&it);
                self.interventions.push(it);
                self.abort(reason, context);
                true
            }
            State::Prepared if commit && it.branch.is_none() => {
                self.interventions.push(it);
                self.become_deciding(context);
                true
            }
            // Whether it was committed in one phase only its participant knows.
            State::Settling if it.branch.unwrap_or(0) == 0 => {
                let reason = by_force(&it);
                self.interventions.push(it);
                // The participant is notified, and may know better.
                self.branches[0].finish(BranchState::Hazard);
                self.note(context, TrailKind::Hazard, Some(0));
                self.forcing = Vec::from([(0, commit)]);
                match commit {
                    true => self.become_deciding(context),
                    false => self.abort(reason, context),
                }
                // The decision is a record of its own, with its own number.
                self.record_again(true, Milestone::Forced, context);
                true
            }
            State::Committing | State::Aborting if self.forcing.is_empty() => {
                self.force(commit, it, context)
            }
            _ => false,
        }
    }

    /// Asks for the record of what is to be done to branches that are owed something.
    fn force(&mut self, commit: bool, it: Intervention, context: &mut Context) -> bool {
        let meant = |index: usize| it.branch.is_none_or(|branch| branch as usize == index);
        let owed = |index: usize| {
            let branch = &self.branches[index];
            // A rollback that is left to be asked for may be forced where it was sent.
            (branch.state.is_owed() || branch.state == BranchState::LeftToAsk)
                && branch.forced.is_none()
        };
        let all = (0..self.branches.len()).filter(|index| meant(*index) && owed(*index));
        self.forcing = all.map(|index| (index, commit)).collect();
        if self.forcing.is_empty() {
            return false;
        }
        self.interventions.push(it);
        self.record_again(true, Milestone::Forced, context);
        if planted!(ForcedEarly) {
            self.become_forced(context);
        }
        true
    }

    /// Whether a branch was asked to commit in one phase and nobody knows whether it did.
    pub(super) fn is_unsettled(&self, index: usize) -> bool {
        self.one_phase && self.branches[index].state == BranchState::Hazard
    }

    /// What a branch is that is told the decision.
    pub(super) fn owed_state(&self) -> BranchState {
        match self.commit {
            true => BranchState::Committing,
            false => BranchState::RollingBack,
        }
    }

    /// Asks for the decision's record once more, with what was done by hand.
    pub(super) fn record_again(
        &mut self,
        forced: bool,
        milestone: Milestone,
        context: &mut Context,
    ) {
        let record = self.decision_record(context);
        self.recorded = self.trail.len();
        context.append(record, forced, milestone);
    }

    /// It is durable: branches are told, but not for ever.
    pub(super) fn become_forced(&mut self, context: &mut Context) {
        let owed = self.owed_state();
        for (index, commit) in core::mem::take(&mut self.forcing) {
            let unsettled = self.is_unsettled(index);
            let branch = &mut self.branches[index];
            let is_open = branch.state.is_owed() || branch.state == BranchState::LeftToAsk;
            let is_open = is_open || unsettled;
            // It may have been acknowledged meanwhile, and the transaction ended.
            if !is_open || !matches!(self.state, State::Committing | State::Aborting) {
                continue;
            }
            branch.forced = Some(commit);
            branch.become_state(if unsettled { BranchState::Hazard } else { owed });
            branch.notify = unsettled;
            self.note(context, TrailKind::Forced, Some(index));
            self.send(index, context);
        }
        self.after_attempts(context);
        self.answer(context);
        self.set_timer(context);
    }

    /// Sends now what waits for its next attempt. False where nothing is waited for.
    pub(crate) fn retry_now(&mut self, it: Intervention, context: &mut Context) -> bool {
        let waits = |branch: &super::Branch| branch.attempt.due().is_some();
        if !self.branches.iter().any(waits) {
            return false;
        }
        self.interventions.push(it);
        if matches!(self.state, State::Committing | State::Aborting | State::Notifying) {
            self.record_again(false, Milestone::Noted, context);
        }
        for participant in self.participants().collect::<BTreeSet<_>>() {
            self.resume(participant, true, context);
        }
        self.after_attempts(context);
        true
    }
}

fn by_force(it: &Intervention) -> Arc<Reason> {
    let message = format!("by hand, by {}: {}", it.caller, it.reason);
    Arc::new(Reason { code: "FORCED".into(), message, participant: None })
}
