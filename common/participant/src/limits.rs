//! What a participant accepts, and for how long it remembers.

use std::time::Duration;

/// Bounds and times of a participant.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of a branch's payload.
    pub(crate) max_payload: usize,
    /// Branches that may be prepared and undecided.
    pub(crate) max_undecided: i64,
    /// How long a prepare waits for its locks.
    pub(crate) lock_wait: Duration,
    /// How long a branch may be in doubt before that is reported.
    pub(crate) overdue_after: Duration,
    /// How long a decided branch is kept after its coordinator reported the end.
    pub(crate) retention: Duration,
    /// Bytes of decided branches above which ended ones go sooner.
    pub(crate) retention_bytes: u64,
    /// For how long they are kept even where there are more bytes than that.
    pub(crate) retention_floor: Duration,
    /// Where outcomes can be asked for where no address came with the branch.
    pub(crate) coordinator: Option<tonic::transport::Endpoint>,
}
