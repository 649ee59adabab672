//! Phase two: from the decision until nothing is owed, and recovery into it.

use alloc::{format, sync::Arc};
use core::time::Duration;

use dtc_protocol::JournalId;

use super::{
    Branch, Context, Decision, End, Phase, Trail, Transaction,
    acknowledge::{Awaited, Verdict},
    branch::Attempt,
};
use crate::{
    Acknowledgement, BeginRecord, BranchState, DecisionRecord, HeldLock, Opaque, Options,
    ParticipantId, Reason, TrailKind, failure::brief,
};

impl Transaction {
    /// A participant answered commit or rollback.
    pub(crate) fn acknowledged(
        &mut self,
        from: ParticipantId,
        journal: Option<JournalId>,
        branch_number: u32,
        decision_number: u32,
        acknowledgement: Acknowledgement,
        context: &mut Context,
    ) {
        let index = branch_number as usize;
        // Locks are held until the journal that voted has answered.
        let (compensating, locked) = (self.is_compensating(), self.holds_locks(context));
        let Some(branch) = self.branches.get_mut(index).filter(|branch| branch.participant == from)
        else {
            return;
        };
        if decision_number != self.decision.number + u32::from(branch.resolved.is_some()) {
            return;
        }
        let other = |voted| journal.is_some_and(|journal| journal != voted);
        let own_journal = !branch.journal.is_some_and(other);
        if self.state == Phase::ResolvingOnePhase {
            return self.one_phase_resolved(index, own_journal, acknowledgement, context);
        }
        if !matches!(self.state, Phase::Committing | Phase::Aborting | Phase::Notifying) {
            return;
        }
        let awaited = Awaited {
            state: branch.state,
            commit: self.decision.commit,
            compensating,
            resolved: branch.resolved,
            notify: branch.notify,
            supports_inquiry: branch.supports_inquiry,
            locked,
            own_journal,
        };
        match awaited.judge(&acknowledgement) {
            Verdict::Finish(state, kind) => {
                branch.finish(state);
                self.note(context, kind, Some(index));
                self.branch_ended(index, context);
            }
            Verdict::Retry => self.answered_with_an_error(index, acknowledgement, context),
            Verdict::Ignore => {}
        }
    }

    /// The participant says that it could not do it, or what doesn't fit: that is sent
    /// again, and not sooner because of a new link.
    fn answered_with_an_error(
        &mut self,
        index: usize,
        answer: Acknowledgement,
        context: &mut Context,
    ) {
        let branch = &mut self.branches[index];
        let why = match answer {
            Acknowledgement::Failed(why) => why,
            other => format!("{other:?}, which is no answer to this"),
        };
        branch.heard = Some(brief(&why));
        // One that waits already has failed before.
        if let Attempt::Running(_) = branch.attempt {
            branch.answered = true;
            self.retry_or_leave(index, context);
            self.after_attempts(context);
        }
    }

    fn one_phase_resolved(
        &mut self,
        index: usize,
        own_journal: bool,
        answer: Acknowledgement,
        context: &mut Context,
    ) {
        match answer {
            // The journal that was asked to commit is gone, and whether it did
            // cannot be known.
            Acknowledgement::RolledBack | Acknowledgement::Unknown if !own_journal => {
                self.branches[index].finish(BranchState::Hazard);
                self.note(context, TrailKind::Hazard, Some(index));
                let participant = Some(self.branches[index].participant);
                let message =
                    "the answer is from another journal than the one that was asked to commit";
                let (code, message) = ("JOURNAL_LOST".into(), message.into());
                self.abort(Arc::new(Reason { code, message, participant }), context);
            }
            Acknowledgement::Committed => self.decided_by_participant(context),
            Acknowledgement::RolledBack => {
                self.branches[index].finish(BranchState::RolledBack);
                let branch = &self.branches[index];
                let reason = branch.refusal.clone().unwrap_or_else(|| {
                    let heard = branch.heard(None);
                    let message = format!(
                        "the participant did not commit the branch in one phase by the deadline{heard}"
                    );
                    let code = "PREPARE_TIMEOUT".into();
                    Arc::new(Reason { code, message, participant: Some(branch.participant) })
                });
                self.abort(reason, context);
            }
            Acknowledgement::Unknown | Acknowledgement::Failed(_) => {
                self.answered_with_an_error(index, answer, context);
            }
        }
    }

    /// Takes up a transaction whose outcome was not recorded: it is aborted, or
    /// its participant is asked.
    pub(crate) fn recover_begun(record: BeginRecord, context: &mut Context) -> Self {
        let branches = record.branches.into_iter().map(|begun| Branch {
            supports_inquiry: begun.supports_inquiry,
            journal: begun.journal,
            sent: true,
            state: BranchState::Preparing,
            ..Branch::new(begun.participant, Opaque::default())
        });
        let options = recovered_options(record.attempt_timeout, context);
        let mut transaction = Self {
            age: record.age,
            key: record.key,
            interactive: record.interactive,
            state: match record.one_phase {
                true => Phase::ResolvingOnePhase,
                false => Phase::Preparing,
            },
            branches: branches.collect(),
            trail: Trail { events: record.trail, ..Trail::default() },
            one_phase: record.one_phase,
            ..Self::recovered(record.id, record.begun_at, options)
        };
        transaction.register(&record.locks, context);
        transaction.restore_calls(record.calls);
        transaction.note(context, TrailKind::Recovered, None);
        if transaction.one_phase {
            transaction.send(0, context);
            transaction.set_timer(context);
        } else {
            let message = format!(
                "the coordinator was restarted before a decision; {} branches are rolled back",
                transaction.branches.len()
            );
            let reason =
                Reason { code: "COORDINATOR_RESTARTED".into(), message, participant: None };
            transaction.abort(Arc::new(reason), context);
        }
        transaction
    }

    /// Takes up a transaction that was decided and whose branches were perhaps
    /// not all notified.
    pub(crate) fn recover_decided(record: DecisionRecord, context: &mut Context) -> Self {
        let branches = record.branches.into_iter().map(|decided| Branch {
            state: decided.state,
            journal: decided.journal,
            output: decided.output,
            refusal: decided.refusal,
            supports_inquiry: decided.supports_inquiry,
            resolved: decided.resolved,
            notify: decided.notify,
            sent: true,
            ..Branch::new(decided.participant, Opaque::default())
        });
        let options = recovered_options(record.attempt_timeout, context);
        let options = Options { commit_policy: record.policy, ..options };
        let mut transaction = Self {
            age: record.age,
            key: record.key,
            state: match record.ended_at {
                Some(_) => Phase::Notifying,
                None if record.commit => Phase::Committing,
                None => Phase::Aborting,
            },
            branches: branches.collect(),
            trail: Trail { recorded: record.trail.len(), events: record.trail, ..Trail::default() },
            decision: Decision {
                commit: record.commit,
                number: record.number,
                at: Some(record.decided_at),
                reason: record.reason,
                is_visible: true,
            },
            end: End {
                at: record.ended_at,
                is_durable: record.ended_at.is_some(),
                is_closed: record.ended_at.is_some(),
            },
            interventions: record.interventions,
            ..Self::recovered(record.id, record.begun_at, options)
        };
        transaction.register(&record.locks, context);
        transaction.restore_calls(record.calls);
        // Nobody waits for a notification.
        if !transaction.is_closed() {
            transaction.note(context, TrailKind::Recovered, None);
        }
        transaction.send_decision(context);
        transaction.end_if_notified(context);
        transaction
    }

    fn register(&mut self, locks: &[HeldLock], context: &mut Context) {
        context.locks.restore(context.now, self.owner(), self.age, locks);
        self.register_owed(context);
    }
}

/// What was recorded of its options, and for the rest what is configured now.
fn recovered_options(attempt_timeout: Option<Duration>, context: &Context) -> Options {
    let options = context.config.options.clone();
    Options {
        commit_attempt_timeout: attempt_timeout.unwrap_or(options.commit_attempt_timeout),
        ..options
    }
}
