//! The locks of branches: the lock manager, and beside it what waits for it.
//!
//! Invariants:
//! - What is parked belongs to a branch that waits.
//! - What was granted is given back unless it was used for a promise.

use std::{collections::BTreeMap, time::Duration};

use dtc_locks::{Acquired, Blocked, Deadlocks, HeldLock, LockKey, LockMode, Locks};
use dtc_protocol::{BranchId, Time, TransactionId};
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Branches that may wait at a time.
const WAITING: usize = 1000;
/// Bytes of what waits.
const BYTES: usize = 64 << 20;
/// Locks are not shown with their times here, and the clock is not read for those that
/// nobody waits for.
const UNTIMED: Time = Time(0);

/// The locks of a participant; `W` is what waits for them.
pub(crate) struct BranchLocks<W> {
    manager: Locks<BranchId>,
    parked: BTreeMap<BranchId, Parked<W>>,
    bytes: usize,
}

struct Parked<W> {
    what: W,
    bytes: usize,
    since: Instant,
}

/// How a claim came out that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// All keys are held.
    Granted,
    /// It has its place in the queues; [`BranchLocks::park`] says what waits there.
    Waits,
}

/// Why a branch may not even wait. It has left nothing in the queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// An older transaction is before it: its wait could close a circle.
    Deadlock(Blocked<BranchId>),
    /// The branch has a claim on other keys.
    OtherKeys,
    /// So many wait already, of so many bytes.
    Full { waiting: usize, bytes: usize },
}

impl<W> Default for BranchLocks<W> {
    fn default() -> Self {
        Self {
            manager: Locks::new(Deadlocks::WaitDie, usize::MAX, 0),
            parked: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<W> BranchLocks<W> {
    /// Keys that are held.
    pub(crate) fn held(&self) -> usize {
        self.manager.figures().held
    }

    /// Branches that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.manager.figures().waiting
    }

    /// Wants all of `keys` for a branch. Again for the same branch and keys, it
    /// returns how the claim stands.
    pub(crate) fn claim(
        &mut self,
        branch: &BranchId,
        age: TransactionId,
        keys: Vec<String>,
    ) -> Result<Claimed, ClaimError> {
        let wants = sorted(keys);
        if let Some(known) = self.manager.keys_of(*branch) {
            return match known.eq(wants.iter().map(|(key, _)| key)) {
                false => Err(ClaimError::OtherKeys),
                true if self.manager.is_waiting(*branch) => Ok(Claimed::Waits),
                true => Ok(Claimed::Granted),
            };
        }
        match self.manager.acquire(UNTIMED, *branch, age, &wants) {
            Acquired::Granted(_) => Ok(Claimed::Granted),
            Acquired::Waiting => {
                let (waiting, bytes) = (self.waiting() - 1, self.bytes);
                if waiting < WAITING && bytes < BYTES {
                    return Ok(Claimed::Waits);
                }
                self.manager.cancel(UNTIMED, *branch);
                Err(ClaimError::Full { waiting, bytes })
            }
            Acquired::Deadlock(blocked) => Err(ClaimError::Deadlock(blocked)),
            Acquired::Full => unreachable!("any number may be held"),
        }
    }

    /// Holds the keys of a branch that the journal has promised.
    pub(crate) fn restore(&mut self, branch: &BranchId, age: TransactionId, keys: Vec<String>) {
        let held = |(key, mode)| HeldLock { key, mode, token: 0 };
        let held: Vec<_> = sorted(keys).into_iter().map(held).collect();
        self.manager.restore(UNTIMED, *branch, age, &held);
    }

    /// Leaves at a branch that waits what is to go on in its turn, in the place of
    /// what an earlier attempt left there. Given back where the branch need not wait any
    /// more.
    pub(crate) fn park(&mut self, branch: &BranchId, what: W, bytes: usize) -> Option<W> {
        if !self.manager.is_waiting(*branch) {
            return Some(what);
        }
        let earlier = self.parked.remove(branch);
        self.bytes -= earlier.as_ref().map_or(0, |earlier| earlier.bytes);
        let since = earlier.map_or_else(Instant::now, |earlier| earlier.since);
        self.parked.insert(*branch, Parked { what, bytes, since });
        self.bytes += bytes;
        None
    }

    fn unpark(&mut self, branch: &BranchId) -> Option<W> {
        let parked = self.parked.remove(branch)?;
        self.bytes -= parked.bytes;
        Some(parked.what)
    }

    /// A branch has promised: it holds what it was granted until its decision.
    /// False where it has no locks, or has promised before.
    pub(crate) fn promise(&mut self, branch: &BranchId) -> bool {
        self.manager.confirm(*branch)
    }

    /// A branch's decision has come.
    pub(crate) fn decide(&mut self, branch: &BranchId) {
        self.manager.decide(*branch);
    }

    /// Gives back what a branch was granted and has not used for a promise, or a place
    /// where nothing is parked.
    pub(crate) fn give_back(&mut self, branch: &BranchId) -> Vec<W> {
        let is_unused = self.manager.is_unconfirmed(*branch)
            || self.manager.is_waiting(*branch) && !self.parked.contains_key(branch);
        if is_unused { self.release(branch) } else { Vec::new() }
    }

    /// Takes a branch out of all queues. Returns what goes on now: who is first at
    /// last, after what was parked for the branch itself.
    pub(crate) fn release(&mut self, branch: &BranchId) -> Vec<W> {
        let mut going_on: Vec<W> = self.unpark(branch).into_iter().collect();
        self.manager.release_all(UNTIMED, *branch);
        for (granted, _) in self.manager.take_ended() {
            going_on.extend(self.unpark(&granted));
        }
        going_on
    }

    /// Takes a branch that waits out of all queues. Returns what was parked for it,
    /// and what goes on now.
    pub(crate) fn dismiss(&mut self, branch: &BranchId) -> Option<(W, Vec<W>)> {
        let what = self.unpark(branch)?;
        Some((what, self.release(branch)))
    }

    /// The branches that have waited for so long, or whose parked things are gone, each
    /// with what it waits for.
    pub(crate) fn overdue(
        &self,
        limit: Duration,
        is_gone: impl Fn(&W) -> bool,
    ) -> Vec<(BranchId, Blocked<BranchId>)> {
        let overdue = self
            .parked
            .iter()
            .filter(|(_, parked)| is_gone(&parked.what) || parked.since.elapsed() >= limit);
        overdue.filter_map(|(branch, _)| Some((*branch, self.manager.blocked(*branch)?))).collect()
    }
}

/// Each once.
fn sorted(mut keys: Vec<String>) -> Vec<(LockKey, LockMode)> {
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| (key.into(), LockMode::Exclusive)).collect()
}
