//! Prepares that wait for locks, beside the storage's thread: in its queue, the
//! decision that frees a lock would stand behind those that wait for it.
//!
//! Invariants:
//! - Locks are claimed in a batch's work, after the fence and the journal: what
//!   the journal knows is answered from there, and a replaced run claims nothing.
//! - They are given back once the decision is durable, or at once where nothing
//!   was promised.
//! - A parked prepare is no promise. It goes on as a batch of its own, through the
//!   fence and the journal as any other.
//! - Claims are changed on the storage's thread only.
//! - Where no branch wants a lock, nothing here is done.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use dtc_locks::Blocked;
use dtc_protocol::{BranchId, TransactionId};
use tokio::sync::oneshot;

use crate::{
    Refusal, ResourceManager,
    answers::{Answers, Refused},
    locks::{BranchLocks, ClaimError, Claimed},
    wire::{Decision, Origin, Prepare},
};

/// The code of those that may not wait.
pub(crate) const DEADLOCK: &str = "DEADLOCK";
/// How long a prepare waits for its locks at most.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Characters of a key that are shown.
const SHOWN: usize = 64;

/// A prepare that waits.
pub(crate) struct LockWaiter<R: ResourceManager> {
    pub(crate) origin: Arc<Origin>,
    pub(crate) prepare: Prepare<R>,
    pub(crate) answer: oneshot::Sender<Result<Answers, Refused>>,
}

/// The locks, with what waits for them.
pub(crate) struct LockWaits<R: ResourceManager> {
    locks: Mutex<BranchLocks<LockWaiter<R>>>,
    /// Whether there ever was a branch that wanted one.
    is_used: AtomicBool,
}

impl<R: ResourceManager> LockWaits<R> {
    pub(crate) fn new(locks: BranchLocks<LockWaiter<R>>) -> Self {
        let is_used = AtomicBool::new(locks.held() > 0);
        Self { locks: Mutex::new(locks), is_used }
    }

    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BranchLocks<LockWaiter<R>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants `keys` for a branch that the journal does not know.
    pub(crate) fn claim(
        &self,
        request: &Prepare<R>,
        keys: Vec<String>,
    ) -> Result<Claimed, Refusal> {
        if keys.is_empty() {
            return Ok(Claimed::Granted);
        }
        self.is_used.store(true, Relaxed);
        let claimed = self.lock().claim(&request.branch, request.age, keys);
        claimed.map_err(|unclaimed| unclaimed.refusal(request.age))
    }

    /// Decisions have come, of a run that the fence let pass.
    pub(crate) fn decide(&self, decisions: &[Decision]) {
        if self.is_used() {
            let mut locks = self.lock();
            let decided = decisions.iter().filter(|it| it.request.verdict().is_some());
            decided.for_each(|decision| locks.decide(&decision.branch));
        }
    }
}

impl ClaimError {
    fn refusal(self, age: TransactionId) -> Refusal {
        match self {
            Self::Deadlock(blocked) => {
                let message = format!(
                    "deadlock: {}, which is older, and only the older one may wait; {}",
                    words(&blocked),
                    retry(age)
                );
                Refusal::new(DEADLOCK, message)
            }
            Self::OtherKeys => {
                let message = "the branch was sent before with a payload that locks other keys";
                Refusal::new("OTHER_PAYLOAD", message)
            }
            Self::Full { waiting, bytes } => {
                let message = format!(
                    "{waiting} prepares with {bytes} bytes wait for locks here, and no more may; {}",
                    retry(age)
                );
                Refusal::new("TOO_MANY_WAITING", message)
            }
        }
    }
}

/// Who stands in the way of a lock.
pub(crate) fn words(blocked: &Blocked<BranchId>) -> String {
    let key: String = blocked.key.chars().take(SHOWN).collect();
    let how = if blocked.holds { "held" } else { "waited for" };
    format!("key '{key}' is {how} by transaction {}", blocked.by.transaction)
}

/// What to do about it.
pub(crate) fn retry(age: TransactionId) -> String {
    format!("try again as a new transaction with retry_of = {age}")
}
