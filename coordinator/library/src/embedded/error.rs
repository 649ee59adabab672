//! What can go wrong for a program that embeds the coordinator.

use std::{fmt, sync::Arc};

use dtc_protocol::TransactionId;

use super::resource::BoxError;
use crate::StartError;

/// What a resource failed with: an error of the program's own.
#[derive(Debug, Clone)]
pub struct Source(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Source {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Source {
    /// The error itself, which may be of a type to look for (`downcast_ref`).
    pub fn get(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl From<BoxError> for Source {
    fn from(error: BoxError) -> Self {
        Self(error.into())
    }
}

/// Equal where they say the same.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Source {}

/// Which phase a resource failed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Votes were being collected.
    Prepare,
    /// The decision to commit was being carried out.
    Commit,
    /// The decision to roll back was being carried out.
    Rollback,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        })
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A resource said no.
    #[error("transaction {transaction} was rolled back: '{resource}' refused in prepare: {cause}")]
    Refused {
        /// The transaction.
        transaction: TransactionId,
        /// The resource's name, or its type where it has none.
        resource: String,
        /// Why, in its words.
        cause: String,
    },
    /// A resource failed to prepare.
    #[error(
        "transaction {transaction} was rolled back: '{resource}' is broken in prepare: {cause}"
    )]
    Broken {
        /// The transaction.
        transaction: TransactionId,
        /// The resource's name, or its type where it has none.
        resource: String,
        /// What it said.
        cause: String,
        /// Its error, where it failed in this process.
        source: Option<Source>,
    },
    /// A resource panicked in prepare.
    #[error("transaction {transaction} was rolled back: '{resource}' panicked in prepare: {cause}")]
    Panicked {
        /// The transaction.
        transaction: TransactionId,
        /// The resource's name, or its type where it has none.
        resource: String,
        /// The panic's message.
        cause: String,
    },
    /// No vote came in time.
    #[error("transaction {transaction} was rolled back: no vote of '{resource}' in time: {cause}")]
    PrepareTimeout {
        /// The transaction.
        transaction: TransactionId,
        /// The resource's name, or its type where it has none.
        resource: String,
        /// How long was waited.
        cause: String,
    },
    /// It was decided to commit, that kept failing at a resource, and what the others
    /// had committed was undone, as [`CommitPolicy::Compensate`](crate::CommitPolicy)
    /// asks.
    #[error("transaction {transaction} was compensated: commit failed at '{resource}': {cause}")]
    CommitFailed {
        /// The transaction.
        transaction: TransactionId,
        /// The resource's name, or its type where it has none.
        resource: String,
        /// How often it was tried.
        cause: String,
    },
    /// It was rolled back, and no resource was the reason.
    #[error("transaction {transaction} was rolled back: {cause}")]
    RolledBack {
        /// The transaction.
        transaction: TransactionId,
        /// The reason of the rollback, as a code and a sentence.
        cause: String,
    },
    /// The decision stands and is durable; a resource has not done it yet and is
    /// called again until it has, or, with
    /// [`CommitPolicy::Compensate`](crate::CommitPolicy), until a commit is compensated.
    #[error(
        "transaction {transaction} is decided, and {phase} failed at '{resource}' in {attempts} attempts: {cause}; it is retried"
    )]
    Unfinished {
        /// The transaction.
        transaction: TransactionId,
        /// The first resource that is waited for.
        resource: String,
        /// What it has to do: the decision.
        phase: Phase,
        /// How often it was called.
        attempts: u32,
        /// What it said last.
        cause: String,
        /// Its error, where it failed in this process.
        source: Option<Source>,
    },
    /// A resource did the opposite of the decision, or may have.
    #[error("transaction {transaction} has a heuristic outcome at '{resource}': {cause}")]
    Heuristic {
        /// The transaction.
        transaction: TransactionId,
        /// The resource's name, or its type where it has none.
        resource: String,
        /// The evidence, in a sentence.
        cause: String,
    },
    /// The call doesn't fit the transaction's state.
    #[error("transaction {transaction}: {cause}")]
    WrongState {
        /// The transaction.
        transaction: TransactionId,
        /// Which state it is in, and what is possible.
        cause: String,
    },
    /// Nothing is known of it.
    #[error("no transaction {0} is known: it was never begun here, or its retention has passed")]
    UnknownTransaction(TransactionId),
    /// A remote participant or its payload cannot be used.
    #[error("{0}")]
    Participant(String),
    /// A bound would be exceeded; nothing was changed.
    #[error("{0}")]
    Exhausted(String),
    /// The journal has failed, or this coordinator was closed: what was going on is found
    /// out at the next start.
    #[error("the coordinator has stopped: {0}")]
    Stopped(String),
}

/// Why a coordinator can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The journal's file is damaged, another program's, or in use.
    #[cfg(feature = "sqlite")]
    #[error("the journal cannot be opened: {0}")]
    Open(#[from] dtc_store::OpenError),
    /// What it holds cannot be taken up.
    #[error("recovery from the journal failed: {0}")]
    Recover(#[from] StartError),
    /// The system gives no thread.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A bug: starting it panicked.
    #[error("the start panicked: {0}")]
    Panicked(String),
}
