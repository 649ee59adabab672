//! Why a call is refused. Each edge maps it once to its own codes.

use crate::{directory::Directory, driver::Stopped, journal::JournalError};
use dtc_core::{Refused, TransactionState};
use dtc_protocol::{SessionId, TransactionId};

/// Why a call is refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its path within the request, such as `branches[0].participant`.
        field: String,
        /// What is wrong with which value, and what would be right.
        problem: String,
    },
    /// An address that may not be called.
    #[error(
        "{field}: '{address}' is neither registered nor allowed; register the participant by a name, or start the coordinator with --allow-participant {pattern}"
    )]
    NotAllowed {
        /// The field's path.
        field: String,
        /// The address.
        address: String,
        /// What would allow it.
        pattern: String,
    },
    /// A participant that takes no new transactions.
    #[error("{field}: participant '{name}' {why}")]
    NotOpen {
        /// The field's path.
        field: String,
        /// The participant's name.
        name: String,
        /// Why not, as the rest of a sentence.
        why: String,
    },
    /// No such participant.
    #[error("no participant '{0}' is registered")]
    UnknownParticipant(String),
    /// A participant that is still needed.
    #[error(
        "participant '{name}' has {count} unfinished transactions; deregister it with drain, which waits for them, or when they have ended"
    )]
    StillUnfinished {
        /// Its name.
        name: String,
        /// How many transactions.
        count: usize,
    },
    /// A bound would be exceeded.
    #[error("{0}")]
    Exhausted(String),
    /// A transaction has all that one may have; waiting changes nothing.
    #[error("{0}")]
    Full(String),
    /// Another request has the key.
    #[error(
        "request_key '{0}' belongs to a request with another body (branches, options or locks); send that one again, or use a new key"
    )]
    KeyTaken(String),
    /// No such transaction.
    #[error("no transaction {0} is known: it was never begun here, or its retention has passed")]
    UnknownTransaction(TransactionId),
    /// No transaction has the key.
    #[error("no transaction with request_key '{0}' is known")]
    UnknownKey(String),
    /// The call doesn't fit the transaction's state.
    #[error("{call} is not possible: the transaction is {}; {instead}", word(*state))]
    WrongState {
        /// The call, such as `commit`.
        call: &'static str,
        /// The state.
        state: TransactionState,
        /// What is possible instead.
        instead: &'static str,
    },
    /// Locks that would close a circle of waits.
    #[error("{message}")]
    Deadlock {
        /// Which lock, and which transactions.
        message: String,
        /// What a retry names, so that it keeps its age.
        retry_of: TransactionId,
    },
    /// A wait for locks that has ended.
    #[error("{0}; nothing was locked")]
    LockTimeout(String),
    /// A second call while the first waits.
    #[error("the transaction waits for locks; call again when that call has been answered")]
    WaitsForLocks,
    /// No such session.
    #[error(
        "no session {0} holds locks: it was never begun here, has released them, or its lease has run out"
    )]
    UnknownSession(SessionId),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Being stopped.
    #[error("{Stopped}")]
    Stopping,
}

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::Stopping
    }
}

impl Error {
    /// A field that is wrong.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// From the machine's refusal, with names.
    pub(crate) fn refused(refused: &Refused, directory: &Directory) -> Self {
        match refused {
            Refused::KeyTaken(key) => Self::KeyTaken(key.to_string()),
            Refused::KeyUnreadable(why) => Self::Journal(JournalError::Damaged(format!(
                "cannot determine whether this request was run before: {why}"
            ))),
            Refused::TooManyInFlight { limit } => Self::Exhausted(format!(
                "{limit} transactions are in flight, the limit (--max-in-flight); try again later"
            )),
            Refused::TooManyAtParticipant { participant, limit } => Self::Exhausted(format!(
                "participant '{}' has {limit} unfinished transactions, the limit \
                 (--max-per-participant); try again when it has caught up",
                directory.name(*participant)
            )),
            Refused::TooManyBytes { limit } => Self::Exhausted(format!(
                "payloads in flight, and what prepares returned, would exceed {limit} bytes, the \
                 limit (--max-in-flight-bytes); try again later"
            )),
            Refused::TooManyRepeats { limit } => Self::Exhausted(format!(
                "{limit} request keys are being looked for, the limit; try again later"
            )),
            Refused::TooManyCalls { limit } => Self::Full(format!(
                "a transaction may have {limit} calls with a request_key at most \
                 (--max-branches and --max-lock-keys together)"
            )),
            Refused::TooManyBranches { limit } => Self::Full(format!(
                "a transaction may have {limit} branches at most (--max-branches)"
            )),
            Refused::TooManyRetries { limit } => Self::Full(format!(
                "it was retried by an operator {limit} times, the limit; resolve it"
            )),
            Refused::TooManyLocks { limit } => Self::Exhausted(format!(
                "{limit} locks may be held and waited for, the limit (--max-locks); try again later"
            )),
            Refused::TooManyLocksOfOne { limit } => Self::Full(format!(
                "a transaction may hold {limit} locks at most (--max-lock-keys)"
            )),
            Refused::Deadlock { blocked, first } => {
                Self::Deadlock { message: blocked.deadlock(*first), retry_of: *first }
            }
            Refused::LockTimeout(message) => Self::LockTimeout(message.clone()),
            Refused::WaitsForLocks => Self::WaitsForLocks,
            Refused::UnknownSession(id) => Self::UnknownSession(*id),
            Refused::WrongState { state, call } => {
                Self::WrongState { call, state: *state, instead: instead(call, *state) }
            }
        }
    }
}

/// What can still be done with a transaction.
fn instead(call: &str, state: TransactionState) -> &'static str {
    match state {
        _ if call == "abandon" => "no notification of a resolution is owed",
        TransactionState::Committed | TransactionState::Aborted if call == "resolve" => {
            "every branch is acknowledged or resolved"
        }
        TransactionState::Active => "enlist, prepare, commit or roll it back",
        TransactionState::Preparing => "its outcome is being decided, Get shows it",
        TransactionState::Prepared => "commit it or roll it back",
        TransactionState::Committing | TransactionState::Committed => {
            "a commit decision is not taken back"
        }
        TransactionState::Aborting | TransactionState::Aborted => "begin a new one",
    }
}

fn word(state: TransactionState) -> String {
    format!("{state:?}").to_lowercase()
}
