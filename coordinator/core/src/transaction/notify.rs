//! Resolved by an operator, and not acknowledged: the branch is shown as asserted, its
//! transaction ends for its clients, and its participant is notified all the same.
//!
//! Invariants:
//! - What was asserted is shown as acknowledged only when its participant has said so.
//! - Nobody waits for a notification: locks are released, bounds are freed, and no
//!   attempt of it is put on the trail.
//! - It is owed, across restarts, until the participant has answered or an operator has
//!   said, durably, that it never will.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use super::{Branch, Context, Phase, RecordPurpose, Transaction};
use crate::{BranchState, EndRecord, Intervention, Outcome, ParticipantId, Record, TrailKind};

/// Attempts that nobody waits for come so much more seldom at most than others.
const QUIET: u32 = 2;

impl Transaction {
    /// The participant has not answered to what was resolved, and is waited for no
    /// longer. Where its answer may be another one than the operator's, its fate is not
    /// known until it comes.
    pub(super) fn assert_resolved(&mut self, index: usize, context: &mut Context) {
        let state = self.asserted(index);
        let branch = &mut self.branches[index];
        branch.state = state;
        branch.notify = true;
        let is_sure = state != BranchState::Hazard;
        let kind = if is_sure { TrailKind::Asserted } else { TrailKind::Hazard };
        self.note(context, kind, Some(index));
        self.retry_later(index, context);
    }

    /// What a resolved branch is shown as until its participant answers.
    fn asserted(&self, index: usize) -> BranchState {
        #[cfg(feature = "mutants")]
        if let Some(state) = super::mutants::asserted(self, index) {
            return state;
        }
        let as_decided = self.branches[index].resolved == Some(self.decision.commit);
        // One that is to be compensated may have committed before anybody resolved it.
        match as_decided && !self.is_compensating() {
            true => BranchState::Asserted,
            false => BranchState::Hazard,
        }
    }

    /// Whether a participant is still to be notified of what was resolved.
    pub(super) fn owes_notifications(&self) -> bool {
        #[cfg(feature = "mutants")]
        if super::mutants::forgets_notifications() {
            return false;
        }
        self.branches.iter().any(|branch| branch.notify)
    }

    /// Whether it has ended for its clients.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, Phase::Notifying | Phase::Ended)
    }

    /// The longest wait between two attempts.
    pub(super) fn longest_wait(&self, index: usize, context: &Context) -> Duration {
        match self.branches[index].notify {
            true => context.config.backoff_cap.saturating_mul(QUIET),
            false => context.config.backoff_cap,
        }
    }

    /// Nothing is owed that anybody waits for: the end is asked to be written, or, where
    /// participants are still to be notified, that it has ended for its clients.
    pub(super) fn become_ended(&mut self, context: &mut Context) {
        debug_assert!(matches!(self.state, Phase::Committing | Phase::Aborting));
        let notifies = self.owes_notifications();
        self.state = if notifies { Phase::Notifying } else { Phase::Ended };
        self.stalled = false;
        self.end.at = Some(context.now);
        self.note(context, TrailKind::Ended, None);
        match notifies {
            true => {
                let sync = self.end_is_waited_for();
                self.record_again(sync, RecordPurpose::Closed, context);
            }
            false => self.append_end(context),
        }
        // Whoever gets them writes that later than this end.
        context.locks.release_all(context.now, self.owner());
        self.answer(context);
    }

    /// All have answered, or never will.
    fn become_notified(&mut self, context: &mut Context) {
        debug_assert_eq!(self.state, Phase::Notifying);
        self.state = Phase::Ended;
        self.append_end(context);
        self.answer(context);
    }

    fn append_end(&mut self, context: &mut Context) {
        let states: Vec<_> = self.branches.iter().map(|branch| branch.state).collect();
        let heuristic = Outcome::of(self.decision.commit, states.iter().copied()).is_heuristic();
        let record = EndRecord {
            id: self.id,
            ended_at: self.end.at.unwrap_or(context.now),
            heuristic,
            kept: heuristic || !self.interventions.is_empty(),
            branches: states,
            abandoned: (0..)
                .zip(&self.branches)
                .filter_map(|(number, branch)| branch.abandoned.then_some(number))
                .collect(),
            trail: self.trail.events[self.trail.recorded..].to_vec(),
        };
        let sync = self.end_is_waited_for();
        self.append(Record::End(record), sync, RecordPurpose::Ended, context);
    }

    /// A broken promise must not be forgotten in a crash, and clients wait for a commit
    /// that could be compensated until then.
    fn end_is_waited_for(&self) -> bool {
        let outcome =
            Outcome::of(self.decision.commit, self.branches.iter().map(|branch| branch.state));
        outcome.is_heuristic() || !self.commit_stands() && self.decision.commit
    }

    /// A branch has ended, with the last word of its participant.
    pub(super) fn branch_ended(&mut self, index: usize, context: &mut Context) {
        match self.state {
            Phase::Notifying => {
                self.leave(self.branches[index].participant, context);
                self.end_if_notified(context);
            }
            Phase::Committing | Phase::Aborting if self.owes_nothing() => {
                self.become_ended(context);
            }
            _ => {}
        }
    }

    /// It has ended for its clients, durably: what is reported to them stands, and
    /// participants that have answered may forget their branches.
    pub(super) fn become_closed(&mut self, context: &mut Context) {
        let was_counted = self.is_counted();
        (self.end.is_durable, self.end.is_closed) = (true, true);
        context.actions.append(&mut self.trail.withheld);
        for participant in self.participants().collect::<BTreeSet<_>>() {
            let known = context.participants.get(participant);
            if was_counted && known.unfinished.contains(&self.id) {
                known.begun -= 1;
            }
            self.leave(participant, context);
        }
        context.participants.elsewhere.forget(self.id);
        for (_, voted) in self.journals() {
            context.participants.elsewhere.add(voted, self.id);
        }
        self.answer(context);
    }

    /// A participant that it owes nothing may forget it.
    fn leave(&self, participant: ParticipantId, context: &mut Context) {
        let owed = |branch: &Branch| branch.notify && branch.participant == participant;
        if self.end.is_durable && !self.branches.iter().any(owed) {
            context.participants.get(participant).unfinished.remove(&self.id);
        }
    }

    /// Notifies no more, once that is durable. False where nothing is owed.
    pub(crate) fn abandon(&mut self, it: Intervention, context: &mut Context) -> bool {
        let meant = |index: usize| it.branch.is_none_or(|branch| branch as usize == index);
        let owed = |index: usize| self.branches[index].notify && meant(index);
        let all: Vec<_> = (0..self.branches.len()).filter(|index| owed(*index)).collect();
        if self.state != Phase::Notifying || !self.abandoning.is_empty() || all.is_empty() {
            return false;
        }
        self.abandoning = all;
        self.interventions.push(it);
        self.record_again(true, RecordPurpose::Abandoned, context);
        true
    }

    /// It is durable that they are not to be notified any more.
    pub(super) fn become_abandoned(&mut self, context: &mut Context) {
        for index in core::mem::take(&mut self.abandoning) {
            // Its participant may have answered meanwhile.
            if self.branches[index].notify {
                let state = self.branches[index].state;
                self.branches[index].finish(state);
                self.branches[index].abandoned = true;
                self.note(context, TrailKind::Abandoned, Some(index));
                self.leave(self.branches[index].participant, context);
            }
        }
        self.end_if_notified(context);
        self.answer(context);
    }

    /// Its end is asked to be written where that is all that is left of it.
    pub(super) fn end_if_notified(&mut self, context: &mut Context) {
        let waits = self.owes_notifications() || !self.abandoning.is_empty();
        if self.state == Phase::Notifying && !waits {
            self.become_notified(context);
        }
    }

    /// Whether it has ended for its clients before its end, durably.
    pub(crate) fn is_closed(&self) -> bool {
        self.end.is_closed
    }

    /// Has the participants that it owes something keep it.
    pub(super) fn register_owed(&self, context: &mut Context) {
        let all = self.state != Phase::Notifying;
        for branch in self.branches.iter().filter(|branch| all || branch.notify) {
            context.participants.get(branch.participant).unfinished.insert(self.id);
        }
        // A name may be another's by now, or nobody's.
        for (_, voted) in self.journals() {
            context.participants.elsewhere.add(voted, self.id);
        }
    }
}
