//! State that all threads of a store share, and the end of the store.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;

use crate::{
    Failure, Identity, Options, Runner,
    identity::Starts,
    job::Message,
    lock::Lock,
    place::{Displaced, Place},
    service_time::ServiceTime,
    space,
    statistics::Counters,
};

/// What all threads of a store share.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) identity: Identity,
    pub(crate) time: ServiceTime,
    pub(crate) counters: Counters,
    pub(crate) has_room: AtomicBool,
    pub(crate) place: Place,
    pub(crate) failed: AtomicBool,
    pub(crate) handles: mpsc::WeakUnboundedSender<Message>,
    pub(crate) starts: Starts,
    pub(crate) lock: Mutex<Option<Lock>>,
    /// One checkpoint at a time, the writer's or the thread's.
    pub(crate) checkpointing: Mutex<()>,
}

impl Shared {
    /// Stops everything: from now on nothing is said. Returns only where
    /// [`Options::on_failure`] does.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.failed.store(true, Ordering::SeqCst);
        self.options.on_failure.call(failure);
        // What is left of this run writes nothing: the next one may have the file.
        self.release();
    }

    /// False where a file is not at its path any more: a failure, unless nobody
    /// uses the store now, whose files are somebody else's then.
    pub(crate) fn is_in_place(&self, checked: Result<(), Displaced>) -> bool {
        let Err(displaced) = checked else { return true };
        if self.handles.strong_count() > 0 && self.lock().is_some() {
            self.fail(&Failure::Displaced { path: self.path.clone(), displaced });
        }
        false
    }

    /// Whether there is room on the disk; a change is logged.
    pub(crate) fn look_for_room(&self) {
        let min_free = self.options.min_free;
        let had = self.has_room.load(Ordering::Relaxed);
        let has = space::has_room(&self.path, space::wanted(had, min_free));
        if has == had {
            return;
        }
        self.has_room.store(has, Ordering::Relaxed);
        let file = self.path.display();
        if has {
            tracing::info!(%file, "enough disk space is free again: new work is accepted");
        } else {
            tracing::warn!(
                %file, min_free,
                "too little disk space is free (--min-free): new work is refused, prepared and \
                 decided transactions go on"
            );
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Goes no further.
    pub(crate) async fn halt(&self) {
        std::future::pending().await
    }

    /// Lets a simulation take its time.
    pub(crate) async fn pace(&self) {
        if let Runner::Tasks(pace) = &self.options.runner {
            tokio::time::sleep(pace()).await;
        }
    }

    pub(crate) fn release(&self) {
        drop(self.lock().take());
    }

    /// Runs code that is not ours; none if it panicked, which is a failure of the store.
    pub(crate) fn guarded<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(run))
            .inspect_err(|panic| {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                let message = message.into();
                self.fail(&Failure::Panicked { path: self.path.clone(), message });
            })
            .ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lock>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
