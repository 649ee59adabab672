//! Errors as gRPC statuses.

use dtc::{api::Error, journal::JournalError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "dtc.v1";

/// The one mapping of errors to codes.
pub(super) fn status(error: Error) -> Status {
    let message = error.to_string();
    let info = |reason: &str| ErrorDetails::with_error_info(reason, DOMAIN, []);
    let (code, details) = match &error {
        Error::Invalid { field, problem } => {
            (Code::InvalidArgument, ErrorDetails::with_bad_request_violation(field, problem))
        }
        Error::NotAllowed { .. } => (Code::PermissionDenied, info("PARTICIPANT_NOT_ALLOWED")),
        Error::NotOpen { .. } => (Code::FailedPrecondition, info("PARTICIPANT_NOT_OPEN")),
        Error::UnknownParticipant(_) => (Code::NotFound, info("UNKNOWN_PARTICIPANT")),
        Error::StillUnfinished { .. } => (Code::FailedPrecondition, info("PARTICIPANT_UNFINISHED")),
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
    Status::with_error_details(code, message, details)
}
