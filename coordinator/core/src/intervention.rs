//! What operators did to a transaction.

use alloc::sync::Arc;

use crate::Time;

/// How often one transaction may be retried by an operator.
pub(crate) const MAX_RETRIES: usize = 100;

/// Something that was done by an operator. Kept with the transaction until it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Intervention {
    /// Time of the call.
    pub at: Time,
    /// The action.
    pub action: InterventionAction,
    /// The branch; none for the whole transaction.
    pub branch: Option<u32>,
    /// The caller's reason.
    pub reason: Arc<str>,
    /// The operator's name, with the address of the call's peer.
    pub caller: Arc<str>,
}

/// What can be done by an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterventionAction {
    /// Committed by an operator.
    Commit,
    /// Rolled back by an operator.
    Rollback,
    /// Tried again at once.
    Retry,
    /// Looked at, and no longer kept from retention.
    Forget,
    /// A participant that was not notified of a resolution never will be.
    Abandon,
}
