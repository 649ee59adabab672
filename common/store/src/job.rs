//! Work for the writer: what is queued, and how its submitter learns the outcome.

use rusqlite::Transaction;
use tokio::{sync::oneshot, time::Instant};

use crate::WriteError;

/// Whether work makes the writer commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// At once, with whatever else is queued.
    Forced,
    /// With the next forced work, or after [`Options::linger`].
    Unforced,
}

/// Gets the batch's transaction and returns what is to be done after COMMIT. Its
/// own errors are its own to handle (see [`crate::in_savepoint`]).
pub type Work = Box<dyn FnOnce(&Transaction<'_>) -> Completion + Send>;

/// Called by the writer once the work is durable, or known not to be in
/// the file. Must not block.
pub type Completion = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

pub(crate) struct Job {
    pub(crate) urgency: Urgency,
    pub(crate) weight: usize,
    pub(crate) work: Work,
    pub(crate) since: Instant,
}

pub(crate) enum Message {
    Job(Job),
    Close(oneshot::Sender<()>),
}
