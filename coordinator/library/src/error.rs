//! Why a call is refused, and its one mapping to gRPC's status.

use dtc_core::{Refused, TransactionState};
use dtc_protocol::{SessionId, TransactionId};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{directory::Directory, journal::JournalError};

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "dtc.v1";

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field}: {problem}")]
    Invalid { field: String, problem: String },
    /// An address that may not be called.
    #[error(
        "{field}: '{address}' is neither registered nor allowed; register the participant by a name, or start the coordinator with --allow-participant {pattern}"
    )]
    NotAllowed { field: String, address: String, pattern: String },
    /// A participant that takes no new transactions.
    #[error("{field}: participant '{name}' {why}")]
    NotOpen { field: String, name: String, why: String },
    /// No such participant.
    #[error("no participant '{0}' is registered")]
    UnknownParticipant(String),
    /// A participant that is still needed.
    #[error(
        "participant '{name}' has {count} unfinished transactions; deregister it with drain, which waits for them, or when they have ended"
    )]
    StillUnfinished { name: String, count: usize },
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
    #[error("{call} is not possible: the transaction is {state}; {instead}")]
    WrongState { call: String, state: String, instead: &'static str },
    /// Locks that would close a circle of waits.
    #[error("{message}")]
    Deadlock { message: String, retry_of: TransactionId },
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
    #[error("the coordinator is being stopped; its outcome will be known when it is back")]
    Stopping,
}

impl Error {
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// From the machine's refusal, with names.
    pub fn refused(refused: &Refused, directory: &Directory) -> Self {
        match refused {
            Refused::KeyTaken(key) => Self::KeyTaken(key.to_string()),
            Refused::KeyUnreadable(why) => Self::Journal(JournalError::Damaged(format!(
                "whether this request was run before cannot be known: {why}"
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
            Refused::WrongState { state, call } => Self::WrongState {
                call: (*call).into(),
                state: format!("{state:?}").to_lowercase(),
                instead: instead(call, *state),
            },
        }
    }
}

/// What can still be done with a transaction.
fn instead(call: &str, state: TransactionState) -> &'static str {
    match state {
        _ if call == "abandon" => "no notification of what was resolved is owed",
        TransactionState::Committed | TransactionState::Aborted if call == "resolve" => {
            "nothing is owed that is not resolved"
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

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let info = |reason: &str| ErrorDetails::with_error_info(reason, DOMAIN, []);
        let (code, details) = match &error {
            Error::Invalid { field, problem } => {
                (Code::InvalidArgument, ErrorDetails::with_bad_request_violation(field, problem))
            }
            Error::NotAllowed { .. } => (Code::PermissionDenied, info("PARTICIPANT_NOT_ALLOWED")),
            Error::NotOpen { .. } => (Code::FailedPrecondition, info("PARTICIPANT_NOT_OPEN")),
            Error::UnknownParticipant(_) => (Code::NotFound, info("UNKNOWN_PARTICIPANT")),
            Error::StillUnfinished { .. } => {
                (Code::FailedPrecondition, info("PARTICIPANT_UNFINISHED"))
            }
            Error::Exhausted(_) | Error::Full(_) => (Code::ResourceExhausted, info("LIMIT")),
            Error::KeyTaken(_) => (Code::AlreadyExists, info("REQUEST_KEY_TAKEN")),
            Error::UnknownTransaction(_) | Error::UnknownKey(_) => {
                (Code::NotFound, info("UNKNOWN_TRANSACTION"))
            }
            Error::WrongState { .. } => (Code::FailedPrecondition, info("WRONG_STATE")),
            Error::Deadlock { retry_of, .. } => {
                let metadata = [("retry_of".to_owned(), retry_of.to_string())];
                (Code::Aborted, ErrorDetails::with_error_info("DEADLOCK", DOMAIN, metadata))
            }
            Error::LockTimeout(_) => (Code::DeadlineExceeded, info("LOCK_TIMEOUT")),
            Error::WaitsForLocks => (Code::FailedPrecondition, info("WAITS_FOR_LOCKS")),
            Error::UnknownSession(_) => (Code::NotFound, info("UNKNOWN_SESSION")),
            Error::Journal(JournalError::Damaged(_)) => (Code::DataLoss, info("JOURNAL_DAMAGED")),
            Error::Journal(JournalError::Failed(_)) => (Code::Internal, info("JOURNAL")),
            Error::Stopping | Error::Journal(JournalError::Closed) => {
                (Code::Unavailable, info("STOPPING"))
            }
        };
        Self::with_error_details(code, message, details)
    }
}
