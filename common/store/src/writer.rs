//! The writer's thread: it takes what is queued, does it in one transaction,
//! commits once, and then tells everybody.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::{
    Completion, Failure, Urgency, WriteError,
    checkpoint::{self, Mode},
    identity,
    store::{Job, Message, Shared},
};

/// The log grows by so many bytes between two checkpoints.
const CHECKPOINT_EVERY: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_millis(250);

struct Writer<'a> {
    shared: &'a Shared,
    connection: Connection,
    jobs: &'a Receiver<Message>,
    wake: SyncSender<()>,
    /// Pages in the log, as of the last commit.
    log_pages: Arc<AtomicU64>,
    page_size: u64,
    /// Length of the log when a checkpoint was last asked for, and forced.
    asked_at: u64,
    forced_at: u64,
    pending: VecDeque<Job>,
    closing: Option<oneshot::Sender<()>>,
    hung_up: bool,
}

/// Until the store is closed, or every handle of it is gone.
pub(crate) fn run(
    shared: &Shared,
    mut connection: Connection,
    jobs: &Receiver<Message>,
    wake: SyncSender<()>,
) {
    let log_pages = Arc::new(AtomicU64::new(0));
    let pages = Arc::clone(&log_pages);
    let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
        pages.store(u64::from(count.unsigned_abs()), Relaxed);
        Ok(())
    }));
    // What waits for somebody else waits for a short time: everybody waits for this thread.
    let patient = connection.busy_timeout(PATIENCE);
    let page_size = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0));
    let page_size = match hooked.and(patient).and(page_size) {
        Ok(page_size) => page_size.into(),
        Err(cause) => {
            shared.fail(&Failure::Begin { path: shared.path.clone(), cause });
            park();
        }
    };
    let mut writer = Writer {
        shared,
        connection,
        jobs,
        wake,
        log_pages,
        page_size,
        asked_at: 0,
        forced_at: 0,
        pending: VecDeque::new(),
        closing: None,
        hung_up: false,
    };
    while writer.gather() {
        writer.commit();
        writer.tend_log();
    }
    let Writer { connection, closing, wake, .. } = writer;
    drop(wake);
    checkpoint::checkpoint(shared, &connection, Mode::Truncate);
    if shared.has_failed() {
        park();
    }
    drop(connection);
    shared.release();
    if let Some(closing) = closing {
        let _ = closing.send(());
    }
}

impl Writer<'_> {
    /// Waits until there is a batch; false when there will be none any more.
    fn gather(&mut self) -> bool {
        while !self.is_ready() {
            if self.closing.is_some() || self.hung_up {
                break;
            }
            match self.pending.front().map(|job| job.since + self.shared.options.linger) {
                None => match self.jobs.recv() {
                    Ok(message) => self.accept(message),
                    Err(_) => self.hung_up = true,
                },
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    if let Ok(message) = self.jobs.recv_timeout(left) {
                        self.accept(message);
                    }
                }
            }
            self.drain();
        }
        !self.pending.is_empty()
    }

    fn is_ready(&mut self) -> bool {
        self.drain();
        let mut weight = 0;
        self.pending.iter().any(|job| {
            weight += job.weight;
            job.urgency == Urgency::Forced || weight >= self.shared.options.max_batch
        })
    }

    fn drain(&mut self) {
        while self.pending.len() < self.shared.options.max_batch && self.closing.is_none() {
            match self.jobs.try_recv() {
                Ok(message) => self.accept(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.hung_up = true;
                    return;
                }
            }
        }
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Job(job) => self.pending.push_back(job),
            Message::Close(done) => self.closing = Some(done),
        }
    }

    /// One transaction with the first of what is pending.
    fn commit(&mut self) {
        let shared = self.shared;
        let transaction = begin(shared, &mut self.connection);
        let (mut completions, mut jobs, mut weight) = (Vec::new(), 0, 0);
        while weight < shared.options.max_batch
            && let Some(job) = self.pending.pop_front()
        {
            weight += job.weight;
            jobs += 1;
            match guarded(shared, || (job.work)(&transaction)) {
                Some(completion) => completions.push(completion),
                None => stop(completions),
            }
            if transaction.is_autocommit() {
                shared.counters.rolled_back.fetch_add(1, Relaxed);
                let cause = "SQLite ended the transaction (disk full or an I/O error)";
                tracing::error!(file = %shared.path.display(), jobs, "{cause}");
                drop(transaction);
                let error = WriteError::RolledBack { cause: cause.into() };
                return complete(shared, completions, &Err(error));
            }
        }
        if let Err(cause) = transaction.commit() {
            shared.fail(&Failure::Commit { path: shared.path.clone(), cause });
            stop(completions);
        }
        shared.counters.committed(jobs, weight as u64);
        complete(shared, completions, &Ok(()));
    }

    fn tend_log(&mut self) {
        let bytes = self.log_pages.load(Relaxed) * self.page_size;
        self.shared.counters.wal_bytes.store(bytes, Relaxed);
        // The log began anew.
        self.asked_at = self.asked_at.min(bytes);
        self.forced_at = self.forced_at.min(bytes);
        if bytes >= self.asked_at + CHECKPOINT_EVERY {
            self.asked_at = bytes;
            let _ = self.wake.try_send(());
        }
        let limit = self.shared.options.wal_limit;
        if bytes > limit && (self.forced_at == 0 || bytes >= self.forced_at + CHECKPOINT_EVERY) {
            self.forced_at = bytes;
            let done = checkpoint::checkpoint(self.shared, &self.connection, Mode::Truncate);
            if self.shared.has_failed() {
                park();
            }
            if done {
                self.log_pages.store(0, Relaxed);
            } else {
                let file = self.shared.path.display();
                tracing::warn!(%file, bytes, limit, "a long read keeps the log from its start");
            }
        }
    }
}

fn complete(shared: &Shared, completions: Vec<Completion>, result: &Result<(), WriteError>) {
    for completion in completions {
        if guarded(shared, || completion(result.clone())).is_none() {
            park();
        }
    }
}

/// Nobody is told anything any more, not even that their request was dropped.
fn stop(completions: Vec<Completion>) -> ! {
    std::mem::forget(completions);
    park();
}

/// Begins a transaction and makes sure that the file is still this run's.
fn begin<'a>(shared: &Shared, connection: &'a mut Connection) -> Transaction<'a> {
    if shared.has_failed() {
        park();
    }
    let connection = &*connection;
    let fail = |failure| -> ! {
        shared.fail(&failure);
        park()
    };
    let path = || shared.path.clone();
    let transaction = loop {
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Ok(transaction) => break transaction,
            Err(cause) if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                tracing::warn!(file = %shared.path.display(), "another program writes to the file");
            }
            Err(cause) => fail(Failure::Begin { path: path(), cause }),
        }
    };
    match identity::current(&transaction, &shared.identity) {
        Ok((_, true)) => transaction,
        Ok((found, false)) => {
            fail(Failure::Fenced { path: path(), own: shared.identity.epoch, found })
        }
        Err(cause) => fail(Failure::Begin { path: path(), cause }),
    }
}

/// Runs code that is not ours; none if it panicked, which is a failure of the store.
pub(crate) fn guarded<T>(shared: &Shared, run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run))
        .inspect_err(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let message = message.into();
            shared.fail(&Failure::Panicked { path: shared.path.clone(), message });
        })
        .ok()
}

/// Goes no further, and drops nothing.
pub(crate) fn park() -> ! {
    loop {
        std::thread::park_timeout(Duration::from_secs(3600));
    }
}
