//! A transaction as it may be shown: never more than is durable.

use alloc::{sync::Arc, vec::Vec};

use dtc_protocol::TransactionId;

use crate::{Intervention, ParticipantId, Reason, RequestKey, Time, TrailEvent};

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionState {
    /// Interactive: branches may be enlisted.
    Active,
    /// Votes are being collected.
    Preparing,
    /// Interactive: all votes are in, the client decides.
    Prepared,
    /// Decided to commit; branches are being notified.
    Committing,
    /// Committed, nothing is owed.
    Committed,
    /// Decided to abort; branches are being notified.
    Aborting,
    /// Aborted, nothing is owed.
    Aborted,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Not decided, or not durably.
    Pending,
    /// The commit record is durable.
    Committed,
    /// Aborted.
    Aborted,
    /// A branch did the opposite of the decision.
    HeuristicMixed,
    /// A branch's fate cannot be known.
    HeuristicHazard,
}

/// Where a branch is, as the coordinator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BranchState {
    /// Not sent yet.
    Enlisted,
    /// Prepare sent, no vote.
    Preparing,
    /// Voted to commit.
    Prepared,
    /// Voted read-only; done.
    ReadOnly,
    /// Voted to abort; done.
    Refused,
    /// Decided, not acknowledged.
    Committing,
    /// Acknowledged commit.
    Committed,
    /// Rollback owed.
    RollingBack,
    /// Acknowledged rollback.
    RolledBack,
    /// Rollback no longer sent; the participant asks when it is back.
    RollbackUnacknowledged,
    /// Did the opposite of the decision.
    Heuristic,
    /// Its participant does not know it any more, or its fate cannot be known for
    /// another reason.
    Hazard,
    /// Resolved by an operator as it was decided; its participant has not
    /// acknowledged that.
    Asserted,
}

impl BranchState {
    /// Whether a message is owed to the branch, once the transaction is decided.
    pub fn is_owed(self) -> bool {
        matches!(self, Self::Committing | Self::RollingBack)
    }
}

/// A branch as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchView {
    /// Where it is.
    pub participant: ParticipantId,
    /// How far it is.
    pub state: BranchState,
    /// Its vote to abort.
    pub refusal: Option<Arc<Reason>>,
    /// How often the message that is waited for was sent; 0 where nothing is.
    pub attempts: u32,
    /// What an operator resolved it to: to commit, or to roll back.
    pub resolution: Option<bool>,
    /// Resolved, and its participant is still to be notified. Nobody waits for that.
    pub notification_owed: bool,
}

/// A transaction as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: TransactionId,
    /// See [`Begin::age`](crate::Begin::age).
    pub age: TransactionId,
    /// The client's key.
    pub key: Option<RequestKey>,
    /// Where it is.
    pub state: TransactionState,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the decision to commit is durable.
    pub committed: bool,
    /// Whether its decision is still retried after the set number of attempts.
    pub stalled: bool,
    /// Its branches, by number.
    pub branches: Vec<BranchView>,
    /// Why it was aborted.
    pub reason: Option<Arc<Reason>>,
    /// When it was begun.
    pub begun_at: Time,
    /// When it was decided.
    pub decided_at: Option<Time>,
    /// When nothing was owed any more.
    pub ended_at: Option<Time>,
    /// What was done by an operator.
    pub interventions: Vec<Intervention>,
    /// What happened, where it was asked for.
    pub trail: Vec<TrailEvent>,
}

impl Outcome {
    /// What the decision and the branches' states come to together.
    pub fn of(committed: bool, branches: impl IntoIterator<Item = BranchState>) -> Self {
        let decided = if committed { Self::Committed } else { Self::Aborted };
        branches.into_iter().fold(decided, |outcome, state| match (outcome, state) {
            (_, BranchState::Heuristic) | (Self::HeuristicMixed, _) => Self::HeuristicMixed,
            (_, BranchState::Hazard) => Self::HeuristicHazard,
            (outcome, _) => outcome,
        })
    }

    /// Whether a participant broke its promise, or may have.
    pub fn is_heuristic(self) -> bool {
        matches!(self, Self::HeuristicMixed | Self::HeuristicHazard)
    }
}
