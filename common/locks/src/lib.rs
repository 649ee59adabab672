//! The lock manager of coordinator and participants: who holds which keys, who waits
//! for them, and what is done about deadlocks. Pure and deterministic: time is an
//! argument, maps are ordered.
//!
//! *Wait-die* is of Rosenkrantz, Stearns and Lewis (*System Level Concurrency Control
//! for Distributed Database Systems*, ACM TODS 3(2), 1978): an owner waits for younger
//! ones only, and dies, which is to be refused, in place of a wait for an older one. It
//! comes again with the age of its first try, and so is the oldest in the end. Here
//! only those that hold locks are bound by it, and those that may hold some elsewhere
//! ([`Owner::HOLDS_ELSEWHERE`]): a cycle leads through nobody else. *Detection* looks for
//! cycles in the graph of waits instead. *Fencing tokens* are numbers that grow with every
//! grant (Burrows, *The Chubby Lock Service*, OSDI 2006).
//!
//! Leases are the affair of whoever owns locks: the manager is asked to release them.
//!
//! ```
//! use dtc_locks::{Acquired, Deadlocks, LockKey, LockMode, Locks, Owner, WaitEnd};
//! use dtc_protocol::{Time, TransactionId};
//!
//! #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
//! struct Client(u8);
//! impl Owner for Client {}
//!
//! let age = |client: Client| TransactionId::from_bytes([client.0; 16]);
//! let wants = [(LockKey::from("account/42"), LockMode::Exclusive)];
//! let (elder, younger, now) = (Client(1), Client(2), Time(0));
//!
//! let mut locks = Locks::new(Deadlocks::WaitDie, 100, 1);
//! assert!(matches!(locks.acquire(now, elder, age(elder), &wants), Acquired::Granted(_)));
//! assert_eq!(locks.acquire(now, younger, age(younger), &wants), Acquired::Waiting);
//! locks.release_all(now, elder);
//! assert!(matches!(&locks.take_ended()[..], [(Client(2), WaitEnd::Granted(_))]));
//! ```

#![no_std]

extern crate alloc;

mod blocked;
mod deadlock;
mod key;
mod manager;
mod owner;
#[cfg(test)]
mod tests;
mod view;

use alloc::{sync::Arc, vec::Vec};

pub use blocked::Blocked;
pub use manager::Locks;
pub use owner::Owner;
pub use view::{LockHolder, LockView, LockWaiter};

/// What a lock is on.
pub type LockKey = Arc<str>;

/// How a key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

impl LockMode {
    fn conflicts(self, other: Self) -> bool {
        self.max(other) == Self::Exclusive
    }
}

/// What is done about deadlocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Deadlocks {
    /// A request that would wait for an older owner is refused at once.
    #[default]
    WaitDie,
    /// Cycles are looked for, and the youngest owner in one is refused.
    Detect,
}

/// A lock as it is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLock {
    /// The locked key.
    pub key: LockKey,
    /// Shared or exclusive.
    pub mode: LockMode,
    /// The fencing token: greater than that of every grant before. Keys that were
    /// granted together have the same.
    pub token: u64,
}

/// How much there is of locks, and how much there was in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockFigures {
    /// Locks that are held.
    pub held: usize,
    /// Owners that wait.
    pub waiting: usize,
    /// Requests that were granted.
    pub granted: u64,
    /// Requests that were refused because of a deadlock.
    pub deadlocks: u64,
    /// Waits that ended.
    pub timeouts: u64,
}

/// The immediate answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired<O> {
    /// All that was asked for is held.
    Granted(Vec<HeldLock>),
    /// [`Locks::take_ended`] reports the end of the wait.
    Waiting,
    /// The owner may not wait.
    Deadlock(Blocked<O>),
    /// Too many locks are held or waited for.
    Full,
}

/// How a wait ended that was not cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitEnd<O> {
    /// All that was asked for is held.
    Granted(Vec<HeldLock>),
    /// A later request closed a cycle, or went before this one.
    Deadlock(Blocked<O>),
}
