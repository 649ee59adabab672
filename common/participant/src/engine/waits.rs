//! Prepares that wait for locks: parked after a batch's work, and let go on.

use std::{collections::VecDeque, sync::Arc};

use dtc_protocol::BranchId;
use dtc_store::Urgency;
use tokio::sync::oneshot;

use super::Engine;
use crate::{
    Refusal, ResourceManager,
    answers::{Answers, Refused, abort},
    event_log,
    lock_waits::{LockWaiter, retry, words},
    wire::{Batch, Origin},
};

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
