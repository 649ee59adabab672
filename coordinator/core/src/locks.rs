//! Who owns locks at the coordinator. The manager is `dtc-locks`.

use core::fmt;

use dtc_locks::Owner;
use dtc_protocol::{SessionId, TransactionId};

/// Characters of the longest key.
pub const MAX_LOCK_KEY: usize = 256;

/// Who holds locks or waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockOwner {
    /// A transaction, until nothing is owed to its branches.
    Transaction(TransactionId),
    /// A client by itself, for as long as it renews its lease.
    Session(SessionId),
}

impl Owner for LockOwner {}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(id) => write!(f, "transaction {id}"),
            Self::Session(id) => write!(f, "session {id}"),
        }
    }
}

pub(crate) type Locks = dtc_locks::Locks<LockOwner>;
pub(crate) type Acquired = dtc_locks::Acquired<LockOwner>;
pub(crate) type WaitEnd = dtc_locks::WaitEnd<LockOwner>;
/// Why one of them was refused because of a deadlock.
pub type Blocked = dtc_locks::Blocked<LockOwner>;
/// A key that is held or waited for.
pub type LockView = dtc_locks::LockView<LockOwner>;
