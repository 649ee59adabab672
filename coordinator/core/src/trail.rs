//! The trail: what happened to a transaction, as it is shown.

use crate::Time;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrailKind {
    /// The transaction was accepted.
    Begun,
    /// Interactive: a branch was added.
    Enlisted,
    /// It waits for locks.
    LocksAwaited,
    /// It waits for links to its participants.
    LinksAwaited,
    /// It has the locks that it asked for.
    Locked,
    /// A branch's prepare was sent.
    PrepareSent,
    /// A branch voted to commit.
    VotedCommit,
    /// A branch voted to abort.
    VotedAbort,
    /// A branch voted read-only.
    VotedReadOnly,
    /// The decision to commit is durable.
    DecidedCommit,
    /// It was decided to abort.
    DecidedAbort,
    /// A branch acknowledged commit.
    CommitAcknowledged,
    /// A branch acknowledged rollback.
    RollbackAcknowledged,
    /// A message was sent again.
    Retried,
    /// A message could not be sent, or its attempt ended without an answer.
    Unreachable,
    /// The decision to commit is compensated, durably.
    CompensationDecided,
    /// It was resolved by an operator.
    Resolved,
    /// Its participant has not acknowledged what an operator resolved; it is waited
    /// for no longer, and notified as soon as it can be.
    Asserted,
    /// It is not to be notified any more: an operator says that it never will.
    Abandoned,
    /// The decision is still being retried after the set number of attempts.
    Stalled,
    /// A rollback is no longer sent; the participant asks when it is back.
    RollbackUnacknowledged,
    /// A participant in doubt asked.
    Asked,
    /// A participant did the opposite of the decision.
    Heuristic,
    /// A participant does not know the branch that it voted for.
    Hazard,
    /// Read from the journal at start.
    Recovered,
    /// Nothing is owed to anybody any more.
    Ended,
}

/// One entry of the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrailEvent {
    /// Time of the event.
    pub at: Time,
    /// The kind of event.
    pub kind: TrailKind,
    /// The branch that it is about.
    pub branch: Option<u32>,
    /// How often the message was sent by then; 0 where that says nothing.
    pub attempt: u32,
}

impl TrailKind {
    /// Kinds that may come without end are kept once a branch, the latest.
    pub(crate) fn repeats(self) -> bool {
        matches!(
            self,
            Self::Retried
                | Self::Unreachable
                | Self::Asked
                | Self::LocksAwaited
                | Self::LinksAwaited
                | Self::Locked
        )
    }
}
