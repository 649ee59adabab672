//! The mark of the protocol on a participant's error. Frameworks and proxies answer with
//! the same codes for reasons of their own: without the mark they say nothing about a
//! branch.

#[cfg(feature = "services")]
use tonic::{Status, metadata::MetadataValue};

/// Metadata (of a gRPC status) that holds one of the codes below. Over HTTP they are the
/// `code` of the JSON body.
pub const MARKER: &str = "dtc-code";
/// Metadata, or header, with the newest epoch that a participant knows.
pub const EPOCH: &str = "dtc-epoch";
/// The same with the incarnation of that run.
pub const INCARNATION: &str = "dtc-incarnation";

/// `FAILED_PRECONDITION`, 412: a newer run of the coordinator is known. With [`EPOCH`] and
/// [`INCARNATION`].
pub const FENCED: &str = "FENCED";
/// `NOT_FOUND`, 404, to commit: this journal does not know the branch.
pub const UNKNOWN_BRANCH: &str = "UNKNOWN_BRANCH";
/// `ABORTED`, 409, to commit: the branch was rolled back before.
pub const ROLLED_BACK: &str = "ROLLED_BACK";
/// 409, to rollback: the branch was committed before.
pub const COMMITTED: &str = "COMMITTED";
/// `FAILED_PRECONDITION`: a decision with a higher number was applied.
pub const LATE_DECISION: &str = "LATE_DECISION";

/// Puts the mark on a status.
#[cfg(feature = "services")]
pub fn mark(mut status: Status, code: &'static str) -> Status {
    status.metadata_mut().insert(MARKER, MetadataValue::from_static(code));
    status
}

/// The mark on a status, where it has one.
#[cfg(feature = "services")]
pub fn marker(status: &Status) -> Option<&str> {
    status.metadata().get(MARKER)?.to_str().ok()
}
