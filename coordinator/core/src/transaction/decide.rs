//! The decision.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

#[cfg(feature = "mutants")]
use super::mutants;
use super::{Context, Phase, RecordPurpose, Transaction};
use crate::{
    BranchState, DecisionBranch, DecisionRecord, Opaque, Reason, Record, TrailEvent, TrailKind,
};

impl Transaction {
    /// The client wants it committed.
    pub(crate) fn commit(&mut self, context: &mut Context) {
        self.commit_requested = true;
        match self.state {
            Phase::Active => self.start_prepare(context),
            Phase::Prepared => self.become_deciding(context),
            _ => {}
        }
    }

    /// The client wants its votes collected.
    pub(crate) fn prepare(&mut self, context: &mut Context) {
        if self.state == Phase::Active {
            self.start_prepare(context);
        }
    }

    /// The client wants it rolled back; the caller has seen that it can be.
    pub(crate) fn roll_back(&mut self, context: &mut Context) {
        let message = "the client rolled it back".into();
        let reason = Reason { code: "CLIENT_ROLLBACK".into(), message, participant: None };
        self.abort(Arc::new(reason), context);
    }

    /// All voted for it: the commit record is asked for.
    pub(super) fn become_deciding(&mut self, context: &mut Context) {
        debug_assert!(matches!(
            self.state,
            Phase::Preparing | Phase::ResolvingOnePhase | Phase::Prepared
        ));
        self.state = Phase::Deciding;
        self.decision.commit = true;
        self.deadline = None;
        self.decision.at = Some(context.now);
        for branch in &mut self.branches {
            branch.payload = Opaque::default();
            if branch.state == BranchState::Prepared {
                branch.become_state(BranchState::Committing);
            }
        }
        let record = self.decision_record(context);
        self.append(record, true, RecordPurpose::Committed, context);
    }

    /// One phase: the participant has committed it.
    pub(super) fn decided_by_participant(&mut self, context: &mut Context) {
        self.branches[0].finish(BranchState::Committed);
        self.become_deciding(context);
    }

    /// The commit record is durable: now, and not before, it is visible.
    pub(super) fn become_committing(&mut self, context: &mut Context) {
        debug_assert_eq!(self.state, Phase::Deciding);
        self.state = Phase::Committing;
        self.note(context, TrailKind::DecidedCommit, None);
        self.trail.recorded = self.trail.events.len();
        self.send_decision(context);
    }

    /// Sends the decision to all that are owed it, or what an operator resolved.
    pub(super) fn send_decision(&mut self, context: &mut Context) {
        // An attempt that fails at once may lead to compensation.
        let owed = self.owed_state();
        for index in 0..self.branches.len() {
            if self.branches[index].state == owed || self.branches[index].notify {
                self.send(index, context);
            }
        }
        self.go_on(context);
    }

    /// Decides to abort.
    pub(super) fn abort(&mut self, reason: Arc<Reason>, context: &mut Context) {
        #[cfg(feature = "mutants")]
        mutants::aborts(self);
        debug_assert!(!self.is_decided());
        self.stop_linking(context);
        self.state = Phase::Aborting;
        self.stop_locking(context);
        self.deadline = None;
        self.decision.at = Some(context.now);
        self.decision.reason = Some(reason);
        // A key's client is answered once its abort is durable, or a duplicate of
        // its request could commit after a crash.
        // The operator who rolls it back is answered once that is on record.
        let waits = self.key.is_some() || !self.interventions.is_empty();
        self.decision.is_visible = !waits;
        self.note(context, TrailKind::DecidedAbort, None);
        for branch in &mut self.branches {
            branch.payload = Opaque::default();
            match branch.state {
                BranchState::Prepared => branch.become_state(BranchState::RollingBack),
                BranchState::Preparing if branch.sent => {
                    branch.become_state(BranchState::RollingBack);
                }
                BranchState::Preparing => branch.finish(BranchState::Enlisted),
                _ => {}
            }
        }
        let record = self.decision_record(context);
        self.append(record, waits, RecordPurpose::Aborted, context);
        self.trail.recorded = self.trail.events.len();
        self.send_decision(context);
    }

    pub(super) fn decision_record(&self, context: &Context) -> Record {
        // What is being forced is in every record that is asked for meanwhile.
        let resolving = |index: usize| {
            let found = self.resolving.iter().find(|(resolved, _)| *resolved == index);
            found.map(|(_, commit)| *commit)
        };
        let branch = |(index, branch): (usize, &super::Branch)| DecisionBranch {
            participant: branch.participant,
            state: match resolving(index) {
                Some(_) if !self.is_outcome_unknown(index) => self.owed_state(),
                _ => branch.state,
            },
            journal: branch.journal,
            output: branch.output.clone(),
            refusal: branch.refusal.clone(),
            supports_inquiry: branch.supports_inquiry,
            resolved: resolving(index).or(branch.resolved),
            notify: branch.notify && !self.abandoning.contains(&index)
                || resolving(index).is_some() && self.is_outcome_unknown(index),
        };
        let mut trail = self.trail.events.clone();
        let decided = match self.state {
            Phase::Deciding => Some(TrailKind::DecidedCommit),
            Phase::Compensating => Some(TrailKind::CompensationDecided),
            _ => None,
        };
        if let Some(kind) = decided {
            trail.push(TrailEvent { at: context.now, kind, branch: None, attempt: 0 });
        }
        Record::Decision(DecisionRecord {
            id: self.id,
            age: self.age,
            key: self.key.clone(),
            commit: self.decision.commit,
            number: self.decision.number,
            policy: self.options.commit_policy,
            attempt_timeout: self.own_attempt_timeout(context),
            begun_at: self.begun_at,
            decided_at: self.decision.at.unwrap_or(context.now),
            ended_at: self.end.at,
            locks: match self.has_ended() {
                true => Vec::new(),
                false => context.locks.held_by(self.owner()),
            },
            branches: self.branches.iter().enumerate().map(branch).collect(),
            calls: self.enlist_calls(),
            reason: self.decision.reason.clone(),
            interventions: self.interventions.clone(),
            trail,
        })
    }

    /// How long an attempt of its decision may take, where that is not what is configured.
    pub(super) fn own_attempt_timeout(&self, context: &Context) -> Option<Duration> {
        let own = self.options.commit_attempt_timeout;
        (own != context.config.options.commit_attempt_timeout).then_some(own)
    }

    pub(super) fn owes_nothing(&self) -> bool {
        #[cfg(feature = "mutants")]
        if mutants::ends_early() {
            return true;
        }
        // What is being resolved would not be known of a transaction that has ended.
        self.resolving.is_empty() && !self.branches.iter().any(|it| it.state.is_owed())
    }
}
