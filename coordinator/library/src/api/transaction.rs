//! A transaction as it is shown.

use std::sync::Arc;

use dtc_core::{
    BranchState, Intervention, Outcome, ParticipantId, RequestKey, Time, TrailKind,
    TransactionState, View,
};
use dtc_protocol::TransactionId;

use crate::{
    directory::Names,
    journal::{JournalError, Stored, codec},
};

/// A transaction, from memory or the journal.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its id.
    pub id: TransactionId,
    /// The client's key.
    pub request_key: Option<RequestKey>,
    /// Where it is on its way.
    pub state: TransactionState,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the decision to commit is durable.
    pub committed: bool,
    /// Whether its decision is still sent after the set number of attempts.
    pub stalled: bool,
    /// Its branches, by number.
    pub branches: Vec<Branch>,
    /// Why it was aborted.
    pub reason: Option<Reason>,
    /// When it was begun.
    pub begun_at: Option<Time>,
    /// When it was decided.
    pub decided_at: Option<Time>,
    /// When nothing was owed any more.
    pub ended_at: Option<Time>,
    /// What happened, in order; where one transaction was asked for.
    pub trail: Vec<TrailEvent>,
    /// The first transaction of which it is a retry.
    pub retry_of: Option<TransactionId>,
    /// What was done by operators, in order.
    pub interventions: Vec<Intervention>,
}

/// One participant's part of a transaction.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The participant's name.
    pub participant: Arc<str>,
    /// How far it is.
    pub state: BranchState,
    /// Its vote to abort.
    pub reason: Option<Reason>,
    /// How often the message that is waited for was sent in this run; 0 where nothing is
    /// waited for.
    pub attempts: u32,
    /// What an operator resolved it to: to commit, or to roll back.
    pub resolution: Option<bool>,
    /// Resolved, and its participant is still to be notified. Nobody waits for that.
    pub notification_owed: bool,
}

/// Why a branch voted to abort, or a transaction was aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A short constant in capitals, such as `OUT_OF_STOCK`.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// The participant whose reason it is; none for the coordinator's own.
    pub participant: Option<Arc<str>>,
}

/// Something that happened to a transaction.
#[derive(Debug, Clone)]
pub struct TrailEvent {
    /// Wall-clock time of the event.
    pub at: Time,
    /// The kind of event.
    pub kind: TrailKind,
    /// The branch that it is about.
    pub branch: Option<u32>,
    /// That branch's participant, where the transaction is shown too.
    pub participant: Option<Arc<str>>,
    /// The reason, or the number of the attempt; empty where there is neither.
    pub detail: String,
}

impl Transaction {
    pub(super) fn new(view: View, names: &impl Names) -> Self {
        let name = |id: ParticipantId| names.name(id);
        let reason = |reason: &dtc_core::Reason| Reason {
            code: reason.code.clone(),
            message: reason.message.clone(),
            participant: reason.participant.map(name),
        };
        let branch = |branch: &dtc_core::BranchView| Branch {
            participant: name(branch.participant),
            state: branch.state,
            reason: branch.refusal.as_deref().map(reason),
            attempts: branch.attempts,
            resolution: branch.resolution,
            notification_owed: branch.notification_owed,
        };
        let transaction = Self {
            id: view.id,
            request_key: view.key,
            state: view.state,
            outcome: view.outcome,
            committed: view.committed,
            stalled: view.stalled,
            branches: view.branches.iter().map(branch).collect(),
            reason: view.reason.as_deref().map(reason),
            begun_at: Some(view.begun_at),
            decided_at: view.decided_at,
            ended_at: view.ended_at,
            trail: Vec::new(),
            retry_of: (view.age != view.id).then_some(view.age),
            interventions: view.interventions,
        };
        let events = view.trail.iter();
        let trail = events.map(|event| {
            TrailEvent::new(event, &transaction.branches, transaction.reason.as_ref())
        });
        Self { trail: trail.collect(), ..transaction }
    }

    /// One that is not in memory, as a journal has it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Damaged`] where that is no transaction.
    pub fn in_journal(stored: &Stored) -> Result<Self, JournalError> {
        let (view, names) = codec::view(stored)?;
        Ok(Self::new(view, &names))
    }

    /// Whether all branches have promised, or it is committed already.
    pub fn is_prepared(&self) -> bool {
        self.state == TransactionState::Prepared || self.committed
    }

    /// Whether nothing is owed any more.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, TransactionState::Committed | TransactionState::Aborted)
    }

    /// Whether a participant is still to be notified of what an operator resolved.
    pub fn owes_notifications(&self) -> bool {
        self.branches.iter().any(|branch| branch.notification_owed)
    }
}

impl TrailEvent {
    pub(super) fn new(
        event: &dtc_core::TrailEvent,
        branches: &[Branch],
        why: Option<&Reason>,
    ) -> Self {
        let branch = event.branch.and_then(|number| branches.get(number as usize));
        let in_words = |reason: &Reason| format!("{}: {}", reason.code, reason.message);
        let detail = match event.kind {
            TrailKind::VotedAbort => branch.and_then(|it| it.reason.as_ref()).map(in_words),
            TrailKind::DecidedAbort | TrailKind::CompensationDecided => why.map(in_words),
            _ => (event.attempt > 0).then(|| format!("attempt {}", event.attempt)),
        };
        Self {
            at: event.at,
            kind: event.kind,
            branch: event.branch,
            participant: branch.map(|branch| Arc::clone(&branch.participant)),
            detail: detail.unwrap_or_default(),
        }
    }
}
