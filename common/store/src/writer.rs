//! The writer's thread: it takes what is queued, does it in one transaction,
//! commits once, and then tells everybody.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::{
    sync::{
        mpsc::{Sender, UnboundedReceiver, error::TryRecvError},
        oneshot,
    },
    time::{Instant, timeout_at},
};

use crate::{
    Completion, Failure, Urgency, WriteError,
    checkpoint::{self, Mode},
    identity,
    job::{Job, Message},
    shared::Shared,
};

/// The log grows by so many bytes between two checkpoints.
const CHECKPOINT_EVERY: u64 = 4 << 20;
/// So long, the log is made to begin anew, where it has its place on the disk.
const RESTART_AT: u64 = 8 << 20;
const PATIENCE: Duration = Duration::from_millis(250);
/// How often other threads may run first before a batch is closed. Where no core is
/// idle, what they bring makes it larger; where one is, this is over at once.
const YIELDS: usize = 8;

struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    jobs: UnboundedReceiver<Message>,
    wake: Sender<()>,
    /// Pages in the log, as of the last commit.
    log_pages: Arc<AtomicU64>,
    page_size: u64,
    /// Length of the log when a checkpoint was last asked for, and made here.
    asked_at: u64,
    made_at: u64,
    pending: VecDeque<Job>,
    closing: Option<oneshot::Sender<()>>,
    hung_up: bool,
    /// Whether the last batch of the run was made.
    parted: bool,
}

/// The store has failed: nothing more is done, and nothing said, not even that
/// somebody's request was dropped.
struct Halted {
    _silent: Vec<Completion>,
}

const HALTED: Halted = Halted { _silent: Vec::new() };

/// What a batch came to, for everybody in it.
struct Committed {
    completions: Vec<Completion>,
    result: Result<(), WriteError>,
}

/// Until the store is closed, or every handle of it is gone.
pub(crate) async fn run(
    shared: Arc<Shared>,
    connection: Connection,
    jobs: UnboundedReceiver<Message>,
    wake: Sender<()>,
) {
    let Ok(mut writer) = Writer::new(Arc::clone(&shared), connection, jobs, wake) else {
        return shared.halt().await;
    };
    match writer.work().await {
        Ok(()) => writer.close(),
        // What is queued is kept, too.
        Err(_halted) => shared.halt().await,
    }
}

impl Writer {
    fn new(
        shared: Arc<Shared>,
        mut connection: Connection,
        jobs: UnboundedReceiver<Message>,
        wake: Sender<()>,
    ) -> Result<Self, Halted> {
        let log_pages = Arc::new(AtomicU64::new(0));
        let pages = Arc::clone(&log_pages);
        let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(u64::from(count.unsigned_abs()), Relaxed);
            Ok(())
        }));
        // What waits for somebody else waits for a short time: everybody waits for this one.
        let patient = connection.busy_timeout(PATIENCE);
        let page_size = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0));
        let page_size = hooked.and(patient).and(page_size).map_err(|cause| {
            shared.fail(&Failure::Begin { path: shared.path.clone(), cause });
            HALTED
        })?;
        Ok(Self {
            shared,
            connection,
            jobs,
            wake,
            log_pages,
            page_size: page_size.into(),
            asked_at: 0,
            made_at: 0,
            pending: VecDeque::new(),
            closing: None,
            hung_up: false,
            parted: false,
        })
    }

    async fn work(&mut self) -> Result<(), Halted> {
        while self.gather().await {
            self.shared.pace().await;
            let committed = self.commit()?;
            self.shared.pace().await;
            complete(&self.shared, committed)?;
            self.tend_log()?;
        }
        checkpoint::checkpoint(&self.shared, &self.connection, Mode::Truncate);
        if self.shared.has_failed() { Err(HALTED) } else { Ok(()) }
    }

    /// Lets go of the file.
    fn close(self) {
        let Self { shared, connection, closing, .. } = self;
        drop(connection);
        shared.release();
        if let Some(closing) = closing {
            let _ = closing.send(());
        }
    }

    /// Waits until there is a batch; false when there will be none any more.
    async fn gather(&mut self) -> bool {
        while !self.is_ready() {
            if self.closing.is_some() || self.hung_up {
                break;
            }
            let received = match self.pending.front().map(|job| job.since) {
                None => self.jobs.recv().await,
                Some(since) => {
                    let due = since + self.shared.options.linger;
                    if due <= Instant::now() {
                        break;
                    }
                    match timeout_at(due, self.jobs.recv()).await {
                        Ok(received) => received,
                        Err(_) => break,
                    }
                }
            };
            match received {
                Some(message) => self.accept(message),
                None => self.hung_up = true,
            }
        }
        for _ in 0..YIELDS {
            std::thread::yield_now();
            self.drain();
        }
        if self.pending.is_empty() && self.closing.is_some() && !self.parted {
            self.parted = true;
            self.pending.push_back(Job {
                urgency: Urgency::Forced,
                weight: 1,
                work: Box::new(|_| Box::new(drop)),
                since: Instant::now(),
            });
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
    fn commit(&mut self) -> Result<Committed, Halted> {
        let shared = &*self.shared;
        let transaction = begin(shared, &self.connection)?;
        let (mut completions, mut jobs, mut weight) = (Vec::new(), 0, 0);
        while weight < shared.options.max_batch
            && let Some(job) = self.pending.pop_front()
        {
            weight += job.weight;
            jobs += 1;
            match shared.guarded(|| (job.work)(&transaction)) {
                Some(completion) => completions.push(completion),
                None => return Err(Halted { _silent: completions }),
            }
            // The time goes with the last of a batch, and with the last batch of a run.
            let is_last = self.pending.is_empty() || weight >= shared.options.max_batch;
            if is_last && !transaction.is_autocommit() {
                let now = self.closing.is_some();
                if let Err(cause) = shared.time.write(&transaction, now) {
                    tracing::warn!(%cause, "the service time could not be written");
                }
            }
            if transaction.is_autocommit() {
                shared.counters.rolled_back.fetch_add(1, Relaxed);
                let cause = "SQLite ended the transaction (disk full or an I/O error)";
                tracing::error!(file = %shared.path.display(), jobs, "{cause}");
                let error = WriteError::RolledBack { cause: cause.into() };
                return Ok(Committed { completions, result: Err(error) });
            }
        }
        if let Err(cause) = transaction.commit() {
            shared.fail(&Failure::Commit { path: shared.path.clone(), cause });
            return Err(Halted { _silent: completions });
        }
        if !shared.is_in_place(shared.place.check_written()) {
            return Err(Halted { _silent: completions });
        }
        shared.counters.committed(jobs, weight as u64);
        Ok(Committed { completions, result: Ok(()) })
    }

    fn tend_log(&mut self) -> Result<(), Halted> {
        let bytes = self.log_pages.load(Relaxed) * self.page_size;
        self.shared.counters.wal_bytes.store(bytes, Relaxed);
        // The log began anew.
        self.asked_at = self.asked_at.min(bytes);
        self.made_at = self.made_at.min(bytes);
        let is_long = bytes > RESTART_AT.min(self.shared.options.wal_limit);
        if is_long && (self.made_at == 0 || bytes >= self.made_at + CHECKPOINT_EVERY) {
            return self.shorten_log(bytes);
        }
        if bytes >= self.asked_at + CHECKPOINT_EVERY {
            self.asked_at = bytes;
            let _ = self.wake.try_send(());
        }
        Ok(())
    }

    /// Does what checkpoints beside this thread never finish while there is work:
    /// after it the log begins anew.
    fn shorten_log(&mut self, bytes: u64) -> Result<(), Halted> {
        let limit = self.shared.options.wal_limit;
        let made = if bytes <= limit {
            checkpoint::try_passive(&self.shared, &self.connection)
        } else if checkpoint::checkpoint(&self.shared, &self.connection, Mode::Truncate) {
            self.log_pages.store(0, Relaxed);
            true
        } else {
            let file = self.shared.path.display();
            tracing::warn!(%file, bytes, limit, "a long read prevents the reset of the write-ahead log");
            true
        };
        if self.shared.has_failed() {
            return Err(HALTED);
        }
        if made {
            (self.made_at, self.asked_at) = (bytes, bytes);
        }
        Ok(())
    }
}

fn complete(shared: &Shared, committed: Committed) -> Result<(), Halted> {
    let mut completions = committed.completions.into_iter();
    while let Some(completion) = completions.next() {
        if shared.guarded(|| completion(committed.result.clone())).is_none() {
            return Err(Halted { _silent: completions.collect() });
        }
    }
    Ok(())
}

/// Begins a transaction and makes sure that the file is still this run's.
fn begin<'a>(shared: &Shared, connection: &'a Connection) -> Result<Transaction<'a>, Halted> {
    if shared.has_failed() {
        return Err(HALTED);
    }
    let fail = |failure| {
        shared.fail(&failure);
        HALTED
    };
    let path = || shared.path.clone();
    let transaction = loop {
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Ok(transaction) => break transaction,
            Err(cause) if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                tracing::warn!(file = %shared.path.display(), "another program writes to the file");
            }
            Err(cause) => return Err(fail(Failure::Begin { path: path(), cause })),
        }
    };
    match identity::current(&transaction, &shared.identity) {
        Ok((_, true)) => Ok(transaction),
        Ok((found, false)) => {
            Err(fail(Failure::Fenced { path: path(), own: shared.identity.epoch, found }))
        }
        Err(cause) => Err(fail(Failure::Begin { path: path(), cause })),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::{FailStop, Options, Store};

    fn failures() -> (Options, Arc<Mutex<Vec<String>>>) {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&failures);
        let note = move |failure: &Failure| noted.lock().unwrap().push(format!("{failure:?}"));
        (Options { on_failure: FailStop::new(note), ..Options::default() }, failures)
    }

    #[tokio::test]
    async fn a_batch_waits_for_another_program_that_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let (options, failures) = failures();
        let store = Store::open(&path, options).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut write = Box::pin(store.write(|_| Ok(())));
        let early = tokio::time::timeout(PATIENCE * 3, &mut write).await;
        assert!(early.is_err(), "{early:?}");
        other.execute_batch("COMMIT").unwrap();
        write.await.unwrap();
        assert_eq!(*failures.lock().unwrap(), [""; 0]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_batch_that_cannot_be_begun_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let (options, failures) = failures();
        let store = Store::open(&path, options).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN").unwrap();
        assert!(begin(store.shared(), &other).is_err(), "there is a transaction already");
        assert!(failures.lock().unwrap()[0].starts_with("Begin"));
    }

    /// A work that makes the log longer by so many bytes, and a little.
    async fn add(store: &Store, bytes: u32) {
        let row = move |transaction: &Transaction<'_>| {
            transaction.execute("INSERT INTO rows VALUES (zeroblob(?1))", [bytes])
        };
        store.write(row).await.unwrap();
    }

    fn with_rows() -> Options {
        Options { schema: "CREATE TABLE IF NOT EXISTS rows (row BLOB)", ..Options::default() }
    }

    #[tokio::test]
    async fn a_short_log_is_left_alone_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("some.db"), with_rows()).unwrap();
        for _ in 0..8 {
            add(&store, 100).await;
        }
        store.close().await;
        assert_eq!(store.statistics().checkpoints, 1);
    }

    #[tokio::test]
    async fn a_log_that_has_grown_is_written_into_the_file_beside_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("some.db"), with_rows()).unwrap();
        add(&store, 5 << 20).await;
        let deadline = Instant::now() + Duration::from_secs(10);
        while store.statistics().checkpoints == 0 {
            assert!(Instant::now() < deadline, "no checkpoint");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        store.close().await;
    }

    #[tokio::test]
    async fn a_long_read_keeps_the_log_from_its_start_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let limit = 1 << 20;
        let store = Store::open(&path, Options { wal_limit: limit, ..with_rows() }).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM rows").unwrap();
        add(&store, 2 << 20).await;
        let bytes = log(&store).await;
        assert!(bytes > limit, "{bytes}");
        let tried = store.statistics().checkpoints;
        assert_eq!(tried, 1);
        add(&store, 100).await;
        assert!(log(&store).await > bytes);
        assert_eq!(store.statistics().checkpoints, tried, "not with every batch");
        reader.execute_batch("COMMIT").unwrap();
        add(&store, 5 << 20).await;
        assert_eq!(log(&store).await, 0);
        store.close().await;
    }

    /// How long the log is after what was done before.
    async fn log(store: &Store) -> u64 {
        // A batch is told of before the log is tended.
        for _ in 0..2 {
            store.write(|_| Ok(())).await.unwrap();
        }
        store.statistics().wal_bytes
    }

    /// Holds the writer in a work until the sender is dropped.
    fn hold(store: &Store) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        let (begins, begun) = mpsc::channel();
        let work = move |_: &Transaction<'_>| -> Completion {
            begins.send(()).unwrap();
            let _ = held.recv();
            Box::new(drop)
        };
        store.submit(Urgency::Forced, 1, Box::new(work));
        begun.recv().unwrap();
        release
    }

    fn submit(store: &Store, weight: usize, done: &Arc<AtomicU64>) {
        let done = Arc::clone(done);
        let work = move |_: &Transaction<'_>| -> Completion {
            Box::new(move |durable| {
                durable.unwrap();
                done.fetch_add(1, Relaxed);
            })
        };
        store.submit(Urgency::Forced, weight, Box::new(work));
    }

    #[tokio::test]
    async fn what_comes_while_a_batch_is_done_shares_the_next_ones_up_to_their_weight() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { max_batch: 10, ..Options::default() };
        let store = Store::open(&folder.path().join("some.db"), options).unwrap();
        let release = hold(&store);
        let done = Arc::default();
        for _ in 0..10 {
            submit(&store, 2, &done);
        }
        drop(release);
        store.close().await;
        assert_eq!(done.load(Relaxed), 10);
        let statistics = store.statistics();
        assert_eq!((statistics.syncs, statistics.largest_batch), (4, 10), "and one at the end");
    }

    #[tokio::test]
    async fn what_comes_before_a_close_is_done_and_what_comes_behind_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("some.db"), Options::default()).unwrap();
        let release = hold(&store);
        let (before, behind) = (Arc::default(), Arc::default());
        submit(&store, 1, &before);
        tokio::join!(store.close(), async {
            submit(&store, 1, &behind);
            drop(release);
        });
        assert_eq!((before.load(Relaxed), behind.load(Relaxed)), (1, 0));
    }
}
