//! Clients that wait for an answer.

use crate::Time;

/// Which moment a client wants to be answered at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnswerAt {
    /// When its id is good for asking, whatever crashes: its begin record, or its
    /// outcome, is durable.
    Begun,
    /// When all votes are in.
    Prepared,
    /// When the outcome is decided and visible.
    Decision,
    /// When every branch has acknowledged it.
    Completion,
}

/// A client that waits for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// The shell's number for the call, returned with the reply.
    pub token: u64,
    /// When it wants to be answered.
    pub at: AnswerAt,
    /// When it is answered with what is known then.
    pub until: Time,
}
