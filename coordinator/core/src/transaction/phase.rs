//! Where a transaction is.

/// Where a transaction is, to itself; [`TransactionState`](crate::TransactionState)
/// is what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Interactive, not durable yet.
    Opening,
    /// Interactive, may be enlisted to.
    Active,
    /// Waits for links to its participants; nothing was sent.
    Linking,
    /// Waits for its locks; nothing was sent.
    Locking,
    /// The begin record is being written; prepare comes next.
    ForcingBegin,
    /// Votes are being collected.
    Preparing,
    /// One phase, and the answer is lost: the participant is being asked.
    ResolvingOnePhase,
    /// Interactive: all votes are in.
    Prepared,
    /// The commit record is being written.
    Deciding,
    /// Committed; branches are being notified.
    Committing,
    /// The record that compensates the decision is being written.
    Compensating,
    /// Aborted; branches are being notified.
    Aborting,
    /// It has ended for its clients; a participant is still to be notified of what an
    /// operator resolved.
    Notifying,
    /// Nothing is owed; to be forgotten once that is durable.
    Ended,
}
