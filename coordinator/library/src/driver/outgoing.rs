//! What the driver hands to a link.

use std::{sync::Arc, time::Duration};

use dtc_core::{BranchOutcome, Ended, Message, Opaque};
use dtc_protocol::TransactionId;

/// A message, an answer, or a notification.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    Message {
        id: TransactionId,
        branch: u32,
        attempt: u32,
        message: Message,
        timeout: Duration,
        /// The client's.
        trace: Option<Opaque>,
    },
    Outcome {
        id: TransactionId,
        branch: u32,
        outcome: BranchOutcome,
    },
    Ended {
        ended: Ended,
        /// Gone when this was sent or dropped: no other is queued before.
        _waits: Arc<()>,
    },
}
