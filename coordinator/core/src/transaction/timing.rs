//! Attempts: sending, timing out, waiting, sending again.

use alloc::sync::Arc;
use core::time::Duration;

use super::{Branch, Context, Phase, Transaction, branch::Attempt};
use crate::{
    Action, BranchState, Failure, Message, ParticipantId, Reason, TrailKind, backoff::backoff,
};

/// No attempt's time-out grows beyond this, unless it was configured so.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(60);

impl Transaction {
    /// Makes the next attempt of the message that a branch is owed.
    pub(super) fn send(&mut self, index: usize, context: &mut Context) {
        let timeout = self.attempt_timeout(index);
        let branch = &mut self.branches[index];
        branch.attempts = branch.attempts.saturating_add(1);
        branch.made = branch.made.wrapping_add(1);
        branch.answered = false;
        let participant = context.participants.get(branch.participant);
        if !participant.connected {
            return self.not_sent(index, context);
        }
        if self.one_phase && self.state == Phase::Preparing && !branch.sent {
            // It may commit with no vote that arrives: only this journal knows.
            let named = core::mem::replace(&mut branch.journal, participant.journal);
            if self.logged && named != participant.journal {
                return self.log_again(context);
            }
        }
        let first = !branch.sent;
        branch.sent = true;
        branch.attempt = Attempt::Running(context.now + timeout);
        if first {
            self.note(context, TrailKind::PrepareSent, Some(index));
        } else if branch.attempts > 1 && !branch.notify {
            self.note(context, TrailKind::Retried, Some(index));
        }
        self.push_message(index, timeout, context);
    }

    /// How long the next attempt may take. That of a decision grows with the attempts that
    /// were cut off: who is slow is not cut off for ever.
    fn attempt_timeout(&self, index: usize) -> Duration {
        if self.state == Phase::Preparing {
            return self.options.prepare_attempt_timeout;
        }
        let first = self.options.commit_attempt_timeout;
        let branch = &self.branches[index];
        // An operator waits: what takes longer goes on with nobody waiting.
        if branch.resolved.is_some() && branch.state.is_owed() {
            return first;
        }
        let longest = first.max(LONGEST_ATTEMPT);
        first.saturating_mul(1 << branch.cut.min(16)).min(longest)
    }

    /// Makes the next attempt, unless older ones are still sent to a participant
    /// that is back: then this one follows them.
    fn send_in_turn(&mut self, index: usize, context: &mut Context) {
        let participant = self.branches[index].participant;
        if context.participants.get(participant).awaits_turn(self.id) {
            let later = context.now + self.longest_wait(index, context);
            self.branches[index].attempt = Attempt::Waiting(later);
        } else {
            self.send(index, context);
        }
    }

    /// Sends what a branch is owed, with no attempt counted or timed.
    pub(super) fn send_once(&mut self, index: usize, context: &mut Context) {
        self.push_message(index, self.attempt_timeout(index), context);
    }

    fn push_message(&mut self, index: usize, timeout: Duration, context: &mut Context) {
        debug_assert_ne!(self.state, Phase::Compensating);
        let branch = &self.branches[index];
        context.actions.push(Action::Send {
            to: branch.participant,
            id: self.id,
            branch: index as u32,
            attempt: branch.made,
            message: self.message(index),
            timeout,
            trace: self.trace.clone(),
        });
    }

    /// The message that a branch is owed.
    fn message(&self, index: usize) -> Message {
        #[cfg(feature = "mutants")]
        if let Some(message) = super::mutants::message(self, index) {
            return message;
        }
        let branch = &self.branches[index];
        let (number, output) = (self.decision.number, branch.output.clone());
        let compensate = self.is_compensating();
        match self.state {
            _ if branch.resolved == Some(true) => Message::Commit { number: number + 1, output },
            _ if branch.resolved == Some(false) => {
                Message::Rollback { number: number + 1, output, compensate }
            }
            Phase::Preparing => {
                let (payload, one_phase) = (branch.payload.clone(), self.one_phase);
                let may_compensate = self.attempts_to_commit().is_some();
                Message::Prepare { payload, one_phase, may_compensate, age: self.age }
            }
            Phase::Committing => Message::Commit { number, output },
            _ => Message::Rollback { number, output, compensate },
        }
    }

    /// An attempt could not be made, because the participant is away.
    fn not_sent(&mut self, index: usize, context: &mut Context) {
        if self.may_leave_to_ask(index, context) {
            return self.leave_to_ask(index, context);
        }
        // At a start nobody is linked yet; that is no news.
        let news = !self.recovered || self.branches[index].attempts > 1;
        if news && !self.branches[index].notify {
            self.note(context, TrailKind::Unreachable, Some(index));
        }
        self.retry_or_leave(index, context);
    }

    /// The shell could not hand a message over, or it got no answer that counts.
    pub(crate) fn unreachable(
        &mut self,
        participant: ParticipantId,
        number: u32,
        attempt: u32,
        why: Failure,
        context: &mut Context,
    ) {
        let index = number as usize;
        let owed = |it: &&mut Branch| it.participant == participant && it.attempt != Attempt::None;
        let Some(branch) = self.branches.get_mut(index).filter(owed) else {
            return;
        };
        branch.heard = Some(why.what);
        // One that comes late ends no later attempt.
        if branch.made != attempt {
            return;
        }
        branch.answered = why.answered;
        if matches!(branch.attempt, Attempt::Running(_)) {
            self.attempt_failed(index, context);
            self.after_attempts(context);
        }
    }

    /// An attempt ended without an answer.
    fn attempt_failed(&mut self, index: usize, context: &mut Context) {
        if !self.branches[index].notify {
            self.note(context, TrailKind::Unreachable, Some(index));
        }
        context.participants.get(self.branches[index].participant).freed += 1;
        self.retry_or_leave(index, context);
    }

    /// Plans the next attempt, where another is owed.
    pub(super) fn retry_or_leave(&mut self, index: usize, context: &mut Context) {
        let tried = self.branches[index].attempts >= context.config.rollback_attempts;
        let waited_for = self.branches[index].state.is_owed();
        if tried && waited_for && self.branches[index].resolved.is_some() {
            return self.assert_resolved(index, context);
        }
        if tried && self.may_leave_to_ask(index, context) {
            return self.leave_to_ask(index, context);
        }
        self.retry_later(index, context);
    }

    /// Whether a rollback is best effort: its participant asks when it is back. One
    /// that has committed has no doubt, and must be notified to undo it.
    fn may_leave_to_ask(&self, index: usize, context: &Context) -> bool {
        #[cfg(feature = "mutants")]
        if let Some(may) = super::mutants::may_leave_to_ask(self, index) {
            return may;
        }
        let branch = &self.branches[index];
        let compensating = self.is_compensating();
        let resolved = branch.resolved.is_some();
        let best_effort = branch.supports_inquiry && branch.state == BranchState::RollingBack;
        // What it has locked may be changed by others once it has ended.
        best_effort && !compensating && !resolved && !self.holds_locks(context)
    }

    fn leave_to_ask(&mut self, index: usize, context: &mut Context) {
        self.branches[index].finish(BranchState::RollbackUnacknowledged);
        self.note(context, TrailKind::RollbackUnacknowledged, Some(index));
    }

    /// Plans the next attempt.
    pub(super) fn retry_later(&mut self, index: usize, context: &mut Context) {
        let longest = self.longest_wait(index, context);
        let branch = &mut self.branches[index];
        let wait = backoff(context.config, longest, &self.id, index, branch.attempts.max(1));
        branch.attempt = Attempt::Waiting(context.now + wait);
        if self.has_failed_to_commit(index) {
            return self.compensate(index, context);
        }
        let branch = &self.branches[index];
        let owed = self.state == Phase::ResolvingOnePhase || branch.state.is_owed();
        if owed && branch.tries() >= context.config.stalled_after && !self.stalled {
            self.stalled = true;
            self.note(context, TrailKind::Stalled, Some(index));
        }
        self.set_timer(context);
    }

    /// Sends at once what is owed to a participant that is back, but for what it has
    /// answered with an error: that waits on, unless `all` is to be sent. Returns how many
    /// messages that were.
    pub(crate) fn resume(
        &mut self,
        participant: ParticipantId,
        all: bool,
        context: &mut Context,
    ) -> usize {
        let mut sent = 0;
        for index in 0..self.branches.len() {
            let branch = &self.branches[index];
            let owed = branch.participant == participant && branch.attempt != Attempt::None;
            let waits_on = branch.answered && !all;
            if owed && !waits_on && !self.out_of_attempts(index) {
                self.send(index, context);
                sent += 1;
            }
        }
        self.set_timer(context);
        sent
    }

    /// Whether the timer that is set is of this time.
    pub(crate) fn is_timed_at(&self, at: crate::Time) -> bool {
        self.timer == Some(at)
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, at: crate::Time, context: &mut Context) {
        if self.timer != Some(at) {
            return;
        }
        self.timer = None;
        self.answer(context);
        for index in 0..self.branches.len() {
            match self.branches[index].attempt {
                Attempt::Running(due) if due <= context.now => {
                    let branch = &mut self.branches[index];
                    // Without its link it was cut off with that.
                    if context.participants.get(branch.participant).connected {
                        branch.cut = branch.cut.saturating_add(1);
                    }
                    self.attempt_failed(index, context);
                }
                Attempt::Waiting(due) if due <= context.now && !self.out_of_attempts(index) => {
                    self.send_in_turn(index, context);
                }
                _ => {}
            }
        }
        self.after_attempts(context);
        self.stop_waiting_for_locks(context);
        if self.deadline.is_some_and(|deadline| deadline <= context.now) {
            match self.state {
                Phase::Active | Phase::Prepared => self.abort_idle(context),
                Phase::Preparing | Phase::ForcingBegin => {
                    self.give_up_prepare("PREPARE_TIMEOUT", context);
                }
                Phase::Locking => self.give_up_locking(context),
                Phase::Linking => self.give_up_links(context),
                _ => {}
            }
        }
        self.set_timer(context);
    }

    fn out_of_attempts(&self, index: usize) -> bool {
        let limit = self.options.prepare_attempts;
        limit > 0 && self.state == Phase::Preparing && self.branches[index].attempts >= limit
    }

    /// After messages were sent: the end, where nothing is owed any more, or the next timer.
    pub(super) fn go_on(&mut self, context: &mut Context) {
        self.after_attempts(context);
        self.answer(context);
        self.set_timer(context);
    }

    /// What follows when attempts have failed.
    pub(super) fn after_attempts(&mut self, context: &mut Context) {
        match self.state {
            Phase::Preparing => {
                let failed = |index: usize| {
                    matches!(self.branches[index].attempt, Attempt::Waiting(_))
                        && self.out_of_attempts(index)
                };
                if (0..self.branches.len()).any(failed) {
                    self.give_up_prepare("PREPARE_ATTEMPTS", context);
                }
            }
            Phase::Committing | Phase::Aborting if self.owes_nothing() => {
                self.become_ended(context);
            }
            _ => {}
        }
    }

    fn abort_idle(&mut self, context: &mut Context) {
        let limit = self.options.idle_timeout;
        let message = alloc::format!("the client was silent for its idle limit of {limit:?}");
        let reason = Reason { code: "IDLE_TIMEOUT".into(), message, participant: None };
        self.abort(Arc::new(reason), context);
    }

    /// Sets a timer where none that is early enough is set.
    pub(super) fn set_timer(&mut self, context: &mut Context) {
        let attempts = self.branches.iter().filter_map(|branch| branch.attempt.due());
        let waiters = self.waiters.iter().filter(|_| self.is_known());
        let locking = self.locking.iter().map(|locking| locking.until);
        let waits = waiters.map(|waiter| waiter.until).chain(locking);
        let Some(due) = attempts.chain(waits).chain(self.deadline).min() else {
            return;
        };
        if self.timer.is_none_or(|set| due < set) {
            self.timer = Some(due);
            context.timers.set(due, self.id);
        }
    }
}
