//! Phase two: from the decision until nothing is owed, and recovery into it.

use alloc::{format, sync::Arc, vec::Vec};
use core::time::Duration;

use common::{JournalId, planted};

use super::{Branch, Context, Milestone, State, Transaction, branch::Attempt};
use crate::{
    Acknowledgement, BeginRecord, BranchState, DecisionRecord, EndRecord, HeldLock, Opaque,
    Options, Outcome, ParticipantId, Reason, Record, TrailKind, failure::brief,
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
        let (turned_round, locked) = (self.is_turned_round(), self.holds_locks(context));
        let Some(branch) = self.branches.get_mut(index).filter(|branch| branch.participant == from)
        else {
            return;
        };
        let forced = branch.forced;
        if decision_number != self.number + u32::from(forced.is_some()) {
            return;
        }
        let other = |voted| journal.is_some_and(|journal| journal != voted);
        let own_journal = planted!(AnyJournalAcknowledges) || !branch.journal.is_some_and(other);
        if self.state == State::Settling {
            return self.settled(index, own_journal, acknowledgement, context);
        }
        if !matches!(self.state, State::Committing | State::Aborting) {
            return;
        }
        if forced.is_some() && branch.state.is_owed() {
            let answer = own_journal.then_some(acknowledgement);
            self.end_forced(index, answer, context);
            return self.after_attempts(context);
        }
        let (state, kind) = match (branch.state, acknowledgement) {
            (BranchState::Committing, Acknowledgement::Committed) if own_journal => {
                (BranchState::Committed, TrailKind::CommitAcknowledged)
            }
            (BranchState::Committing, Acknowledgement::Unknown) if planted!(UnknownAccepted) => {
                (BranchState::Committed, TrailKind::CommitAcknowledged)
            }
            (BranchState::Committing, Acknowledgement::Committed | Acknowledgement::Unknown) => {
                (BranchState::Hazard, TrailKind::Hazard)
            }
            (BranchState::Committing, Acknowledgement::RolledBack) if own_journal => {
                (BranchState::Heuristic, TrailKind::Heuristic)
            }
            (BranchState::Committing, Acknowledgement::RolledBack) => {
                (BranchState::Hazard, TrailKind::Hazard)
            }
            (BranchState::RollingBack | BranchState::LeftToAsk, Acknowledgement::RolledBack)
                if own_journal =>
            {
                (BranchState::RolledBack, TrailKind::RollbackAcknowledged)
            }
            // It may have committed, and cannot be asked whether it undid that.
            (BranchState::RollingBack, Acknowledgement::RolledBack) if turned_round => {
                (BranchState::Hazard, TrailKind::Hazard)
            }
            // It had voted, so that what became of it there is lost.
            (BranchState::RollingBack, Acknowledgement::Unknown)
                if turned_round && !planted!(UnknownAccepted) =>
            {
                (BranchState::Hazard, TrailKind::Hazard)
            }
            (BranchState::RollingBack, Acknowledgement::Unknown) if turned_round => {
                (BranchState::RolledBack, TrailKind::RollbackAcknowledged)
            }
            // The journal that voted is not there; it will ask when it is back.
            (BranchState::RollingBack, Acknowledgement::RolledBack) if branch.asks && !locked => {
                (BranchState::LeftToAsk, TrailKind::LeftToAsk)
            }
            (BranchState::RollingBack | BranchState::LeftToAsk, Acknowledgement::Committed) => {
                (BranchState::Heuristic, TrailKind::Heuristic)
            }
            (BranchState::Committing | BranchState::RollingBack, answer) => {
                return self.answered_with_an_error(index, answer, context);
            }
            _ => return,
        };
        branch.finish(state);
        self.note(context, kind, Some(index));
        if self.owes_nothing() {
            self.become_ended(context);
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

    fn settled(
        &mut self,
        index: usize,
        own_journal: bool,
        answer: Acknowledgement,
        context: &mut Context,
    ) {
        match answer {
            // The journal that was asked to commit is gone, and whether it did
            // cannot be known.
            Acknowledgement::RolledBack if !own_journal => {
                self.branches[index].finish(BranchState::Hazard);
                self.note(context, TrailKind::Hazard, Some(index));
                let participant = Some(self.branches[index].participant);
                let message = "another journal answers than the one that was asked to commit";
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
                        "the participant did not commit it in one phase by the deadline{heard}"
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

    /// Nothing is owed: the end is asked to be written, unless the decision
    /// record says it already.
    pub(super) fn become_ended(&mut self, context: &mut Context) {
        debug_assert!(matches!(self.state, State::Committing | State::Aborting));
        self.state = State::Ended;
        self.stalled = false;
        self.ended_at = Some(context.now);
        self.note(context, TrailKind::Ended, None);
        let states: Vec<_> = self.branches.iter().map(|branch| branch.state).collect();
        let outcome = Outcome::of(self.commit, states.iter().copied());
        let record = EndRecord {
            id: self.id,
            ended_at: context.now,
            heuristic: outcome.is_heuristic(),
            kept: outcome.is_heuristic() || !self.interventions.is_empty(),
            branches: states,
            trail: self.trail[self.recorded..].to_vec(),
        };
        // A broken promise must not be forgotten in a crash, and clients wait for a
        // commit that could be turned round until then.
        let forced = outcome.is_heuristic() || !self.commit_stands() && self.commit;
        context.append(Record::End(record), forced, Milestone::Ended);
        // Whoever gets them writes that later than this end.
        context.locks.release_all(context.now, self.owner());
        self.answer(context);
    }

    /// Takes up a transaction whose outcome was not recorded: it is aborted, or
    /// its participant is asked.
    pub(crate) fn recover_begun(record: BeginRecord, context: &mut Context) -> Self {
        let branches = record.branches.into_iter().map(|begun| Branch {
            asks: begun.asks,
            sent: true,
            state: BranchState::Preparing,
            ..Branch::new(begun.participant, Opaque::default())
        });
        let mut transaction = Self {
            age: record.age,
            key: record.key,
            options: recovered_options(record.attempt_timeout, context),
            interactive: record.interactive,
            state: State::Preparing,
            branches: branches.collect(),
            trail: record.trail,
            one_phase: record.one_phase,
            ..Self::recovered(record.id, record.begun_at)
        };
        transaction.register(&record.locks, context);
        transaction.restore_calls(record.calls);
        transaction.note(context, TrailKind::Recovered, None);
        if transaction.one_phase {
            transaction.state = State::Settling;
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
    /// not all told.
    pub(crate) fn recover_decided(record: DecisionRecord, context: &mut Context) -> Self {
        let branches = record.branches.into_iter().map(|decided| Branch {
            state: decided.state,
            journal: decided.journal,
            output: decided.output,
            refusal: decided.refusal,
            asks: decided.asks,
            forced: decided.forced,
            sent: true,
            ..Branch::new(decided.participant, Opaque::default())
        });
        let options = recovered_options(record.attempt_timeout, context);
        let mut transaction = Self {
            age: record.age,
            key: record.key,
            options: Options { commit_policy: record.policy, ..options },
            state: if record.commit { State::Committing } else { State::Aborting },
            branches: branches.collect(),
            recorded: record.trail.len(),
            trail: record.trail,
            decided_at: Some(record.decided_at),
            reason: record.reason,
            interventions: record.interventions,
            commit: record.commit,
            number: record.number,
            tellable: true,
            ..Self::recovered(record.id, record.begun_at)
        };
        transaction.register(&record.locks, context);
        transaction.restore_calls(record.calls);
        transaction.note(context, TrailKind::Recovered, None);
        transaction.tell_branches(context);
        transaction
    }

    fn register(&mut self, locks: &[HeldLock], context: &mut Context) {
        if !planted!(LocksForgotten) {
            context.locks.restore(context.now, self.owner(), self.age, locks);
        }
        for (participant, voted) in self.journals() {
            context.participants.get(participant).unfinished.insert(self.id);
            // The name may be another's by now, or nobody's.
            context.participants.elsewhere.add(voted, self.id);
        }
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
