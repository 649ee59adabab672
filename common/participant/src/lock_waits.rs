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
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use dtc_locks::Blocked;
use dtc_protocol::{BranchId, TransactionId};
use dtc_store::Urgency;
use tokio::sync::oneshot;

use crate::{
    Refusal, ResourceManager,
    branches::abort,
    engine::{Answers, Engine, Refused},
    event_log,
    locks::{BranchLocks, ClaimError, Claimed},
    wire::{Batch, Decision, Origin, Prepare},
};

/// The code of those that may not wait.
pub(crate) const DEADLOCK: &str = "DEADLOCK";
/// How long a prepare waits for its locks at most.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Characters of a key that are shown.
const SHOWN: usize = 64;

/// A prepare that waits.
pub(crate) struct LockWaiter<R: ResourceManager> {
    origin: Arc<Origin>,
    prepare: Prepare<R>,
    answer: oneshot::Sender<Result<Answers, Refused>>,
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

    fn lock(&self) -> MutexGuard<'_, BranchLocks<LockWaiter<R>>> {
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

impl<R: ResourceManager> Engine<R> {
    /// After a batch's work: parks what has to wait, and gives back what was claimed
    /// and came to no promise.
    pub(crate) fn sort_out(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        mut batch: Batch<R>,
        result: &mut Result<Answers, Refused>,
    ) {
        if !self.lock_waits.is_used() {
            return;
        }
        let (mut going_on, mut waiting) = (Vec::new(), Vec::new());
        let mut locks = self.lock_waits.lock();
        if let Ok(answers) = result {
            answers.promised.retain(|branch| locks.promise(branch));
            for index in answers.waiting.drain(..).rev() {
                let prepare = batch.prepares.swap_remove(index);
                let branch = prepare.branch;
                let bytes = prepare.payload.as_ref().map_or(0, |payload| payload.bytes.len());
                let (answer, later) = oneshot::channel();
                answers.later.push(later);
                let parked = LockWaiter { origin: Arc::clone(origin), prepare, answer };
                going_on.extend(locks.park(&branch, parked, bytes));
                waiting.push(branch);
            }
        }
        for prepare in &batch.prepares {
            going_on.extend(locks.give_back(&prepare.branch));
        }
        drop(locks);
        waiting.iter().for_each(event_log::parked);
        self.go_on(going_on);
    }

    /// Gives back the locks of branches that are over, or came to nothing.
    pub(crate) fn release(self: &Arc<Self>, branches: &[BranchId]) {
        if branches.is_empty() {
            return;
        }
        let mut locks = self.lock_waits.lock();
        let going_on = branches.iter().flat_map(|branch| locks.release(branch)).collect();
        drop(locks);
        self.go_on(going_on);
    }

    /// Ends the waits that took too long, or that nobody waits for any more. On the
    /// storage's thread, as all that changes claims: what was granted and not promised
    /// yet may be in the work that is being done.
    pub(crate) fn end_overdue(self: &Arc<Self>) {
        if !self.lock_waits.is_used() || self.lock_waits.lock().waiting() == 0 {
            return;
        }
        let engine = Arc::clone(self);
        let work: dtc_store::Work = Box::new(move |_| {
            engine.end_overdue_now();
            Box::new(drop)
        });
        self.store.submit(Urgency::Unforced, 1, work);
    }

    fn end_overdue_now(self: &Arc<Self>) {
        let limit = self.limits.lock_wait;
        let mut going_on = Vec::new();
        let mut locks = self.lock_waits.lock();
        for (branch, blocked) in locks.overdue(limit, |parked| parked.answer.is_closed()) {
            // Another one's end may have let it go on.
            let Some((parked, others)) = locks.dismiss(&branch) else { continue };
            going_on.extend(others);
            if parked.answer.is_closed() {
                continue;
            }
            self.metrics.lock_timeouts.inc();
            let message = format!(
                "waited for {limit:?}, but {}; {}",
                words(&blocked),
                retry(parked.prepare.age)
            );
            let refusal = Refusal::new("LOCK_TIMEOUT", message);
            let mut answers = Answers::default();
            answers.votes.push(abort::<R>(&branch, &refusal));
            let _ = parked.answer.send(Ok(answers));
        }
        drop(locks);
        self.go_on(going_on);
    }

    fn go_on(self: &Arc<Self>, going_on: Vec<LockWaiter<R>>) {
        let mut going_on = VecDeque::from(going_on);
        while let Some(LockWaiter { origin, prepare, answer, .. }) = going_on.pop_front() {
            if answer.is_closed() {
                // Nobody waits for the answer any more, so nothing is promised.
                going_on.extend(self.lock_waits.lock().give_back(&prepare.branch));
                continue;
            }
            let batch = Batch { prepares: vec![prepare], ..Batch::default() };
            self.submit(origin, batch, move |result| drop(answer.send(result)));
        }
        self.count_locks();
    }

    pub(crate) fn count_locks(&self) {
        let locks = self.lock_waits.lock();
        self.metrics.locks_held.set(locks.held().cast_signed() as i64);
        self.metrics.parked.set(locks.waiting().cast_signed() as i64);
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
                let message = "the branch came before, with a payload that locks other keys";
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

fn words(blocked: &Blocked<BranchId>) -> String {
    let key: String = blocked.key.chars().take(SHOWN).collect();
    let how = if blocked.holds { "held" } else { "waited for" };
    format!("key '{key}' is {how} by transaction {}", blocked.by.transaction)
}

fn retry(age: TransactionId) -> String {
    format!("try again as a new transaction with retry_of = {age}")
}
