//! What a failed gRPC call says: an answer of its peer, or the end of its connection.

use std::error::Error;

use tonic::{Code, Status, TimeoutExpired};

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The peer answered with a status: that is about this call.
    Answered,
    /// Its time was over.
    Late,
    /// The peer, or the connection while it is being closed in order, took no more of this
    /// call.
    CallLost,
    /// The connection is gone, or there was none.
    ConnectionLost,
}

/// What a status comes from. One that was answered has no source: tonic puts the error of
/// the transport there.
pub(super) fn trouble(status: &Status) -> Trouble {
    let Some(source) = status.source() else {
        // Of the channel itself, when its task has ended.
        let own = status.code() == Code::Unknown && status.message().starts_with(NOT_READY);
        return if own { Trouble::ConnectionLost } else { Trouble::Answered };
    };
    let mut cause = Some(source);
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return Trouble::Late;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // A stream that was reset, or a server that is being drained.
            let drained = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            return match error.is_reset() || drained {
                true => Trouble::CallLost,
                false => Trouble::ConnectionLost,
            };
        }
        cause = error.source();
    }
    Trouble::ConnectionLost
}

/// As tonic's generated clients say it.
const NOT_READY: &str = "Service was not ready";

/// A code as the gRPC specification spells it.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_no_lost_connection_whatever_its_code() {
        for code in [Code::Unavailable, Code::Aborted, Code::Cancelled, Code::Unknown] {
            assert_eq!(trouble(&Status::new(code, "overloaded")), Trouble::Answered, "{code:?}");
        }
    }

    #[test]
    fn an_error_of_the_network_or_the_protocol_below_loses_the_connection() {
        let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(trouble(&Status::from_error(Box::new(error))), Trouble::ConnectionLost);
        let error = h2::Error::from(h2::Reason::PROTOCOL_ERROR);
        assert_eq!(trouble(&Status::from_error(Box::new(error))), Trouble::ConnectionLost);
    }
}
