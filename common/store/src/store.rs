//! The handle: what the rest of a process sees of its storage.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc as threads,
    },
    thread,
    time::Duration,
};

use rusqlite::{Connection, Transaction};
use tokio::{
    sync::{mpsc, oneshot},
    task,
    time::Instant,
};

use crate::{
    Damaged, Identity, OpenError, Options, ReadError, Runner, Statistics, Urgency, Work,
    WriteError, checkpoint, in_savepoint,
    job::{Job, Message},
    lock::Lock,
    open::{self, Opened},
    place::{self, Place},
    reader::{self, Read},
    service_time::ServiceTime,
    shared::Shared,
    statistics::Counters,
    writer,
};

/// A SQLite file with its threads. Cheap to clone; [`Store::close`] ends it for
/// all clones.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writer: mpsc::UnboundedSender<Message>,
    readers: Readers,
}

#[derive(Clone)]
enum Readers {
    Threads(threads::Sender<Read>),
    /// Whoever reads.
    Caller(Arc<Mutex<Connection>>),
}

impl Store {
    /// Opens the file, creating it and its folder if need be, raises its epoch
    /// durably and starts its threads. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what was wrong and what would be right.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        place::create_folder(path)?;
        let lock = Lock::acquire(path)?;
        let Opened { connection, identity, starts, service_time } = open::open(path, &options)?;
        let wall_clock = Arc::clone(&options.wall_clock);
        let time = ServiceTime::resume(service_time, wall_clock, &path.display().to_string());
        let sqlite = |cause| OpenError::Sqlite { action: "cannot open", path: path.into(), cause };
        let checkpointer = open::open_checkpointer(path).map_err(sqlite)?;
        let open_reader = || open::open_reader(path).map_err(sqlite);
        let place = Place::new(path, lock.file())?;

        let (writer, jobs) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            path: path.into(),
            has_room: AtomicBool::new(true),
            place,
            options,
            identity,
            time,
            counters: Counters::default(),
            failed: AtomicBool::new(false),
            handles: writer.downgrade(),
            starts,
            lock: Mutex::new(Some(lock)),
            checkpointing: Mutex::new(()),
        });
        shared.look_for_room();
        let (wake, woken) = mpsc::channel(1);
        let checkpoints = checkpoint::run(Arc::clone(&shared), checkpointer, woken);
        let writing = writer::run(Arc::clone(&shared), connection, jobs, wake);
        let readers = match &shared.options.runner {
            Runner::Threads => {
                let (readers, reads) = threads::channel();
                let reads = Arc::new(Mutex::new(reads));
                for _ in 0..reader::THREADS {
                    let (shared, reads) = (Arc::clone(&shared), Arc::clone(&reads));
                    let connection = open_reader()?;
                    let run = move || reader::run(&shared, &connection, &reads);
                    spawn(path, "reader", run)?;
                }
                spawn_blocking_on(path, "checkpoint", checkpoints)?;
                spawn_blocking_on(path, "writer", writing)?;
                Readers::Threads(readers)
            }
            Runner::Tasks(_) => {
                task::spawn(checkpoints);
                task::spawn(writing);
                Readers::Caller(Arc::new(Mutex::new(open_reader()?)))
            }
        };
        Ok(Self { shared, writer, readers })
    }

    /// Who this journal is, and in which run.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Whether (epoch, incarnation) is one of this journal's runs, the present
    /// one included.
    pub fn was_mine(&self, epoch: u64, incarnation: &[u8; 16]) -> bool {
        self.shared.starts.get(&epoch) == Some(incarnation)
    }

    /// How long this journal's service has run, over all of its runs: the clock of
    /// everything that is forgotten after a time. Stamps that are to be compared with
    /// it are taken from it, in microseconds or milliseconds, and kept beside those of
    /// the wall clock, which are for people.
    ///
    /// Monotonic within a run, cheap, and callable from everywhere, within works
    /// too. A run goes on from what the one before has written: with a batch, once it is
    /// ten seconds old, with [`Self::keep_service_time`], and at a clean stop. So after
    /// a crash it goes back by a little, and stamps may be ahead of it: what they
    /// belong to is kept for longer by as much.
    pub fn service_time(&self) -> Duration {
        self.shared.time.now()
    }

    /// Has the service time written, with the next forced work or after
    /// [`Options::linger`], if what is written is ten seconds old. For passes of
    /// retention, so that an idle service's time passes too.
    pub fn keep_service_time(&self) {
        self.submit(Urgency::Unforced, 1, Box::new(|_| Box::new(drop)));
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Queues work for the next batch; never blocks. The completion that it
    /// returns is called after the COMMIT. Once the store is closed or has
    /// failed, the work is dropped and nothing is called.
    pub fn submit(&self, urgency: Urgency, weight: usize, work: Work) {
        let job = Job { urgency, weight, work, since: Instant::now() };
        let _ = self.writer.send(Message::Job(job));
    }

    /// Does `work` in the next batch, in a savepoint of its own, and resolves when
    /// that is durable; never after a storage failure.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: nothing of the work is in the file.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let result = in_savepoint(transaction, |_| work(transaction));
            Box::new(move |durable| {
                let result = durable
                    .and_then(|()| result.map_err(|error| WriteError::Work(error.to_string())));
                let _ = answer.send(result);
            })
        });
        self.submit(Urgency::Forced, 1, work);
        answered.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Runs `work` in a read transaction on a reader's thread. Keep it short: as
    /// long as it runs, the write-ahead log can't be reset.
    ///
    /// # Errors
    ///
    /// [`ReadError`], what `work` returned or that the store is closed.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            let result =
                connection.unchecked_transaction().and_then(|transaction| work(&transaction));
            Box::new(move || drop(answer.send(result)))
        });
        match &self.readers {
            Readers::Threads(readers) => readers.send(read).map_err(|_| ReadError::Closed)?,
            Readers::Caller(connection) => {
                self.shared.pace().await;
                let read = {
                    let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                    reader::perform(&self.shared, &connection, read)
                };
                if let Err(_halted) = read {
                    self.shared.halt().await;
                }
            }
        }
        let result = answered.await.map_err(|_| ReadError::Closed)?;
        result.map_err(|cause| ReadError::new(&self.shared.path, cause))
    }

    /// Reads before anything else does, from the thread that opened it. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as of opening.
    pub fn inspect<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OpenError> {
        let path = &self.shared.path;
        let connection = open::open_reader(path);
        connection.and_then(|connection| read(&connection)).map_err(|cause| {
            match Damaged::of(&cause) {
                Some(damaged) => OpenError::Damaged { path: path.clone(), damaged },
                None => OpenError::Sqlite { action: "cannot read", path: path.clone(), cause },
            }
        })
    }

    /// Whether the disk has [`Options::min_free`] bytes free; up to a second old.
    pub fn has_room(&self) -> bool {
        self.shared.has_room.load(Ordering::Relaxed)
    }

    /// What the store did since it was opened.
    pub fn statistics(&self) -> Statistics {
        Statistics { wall_clock_jumps: self.shared.time.jumps(), ..self.shared.counters.snapshot() }
    }

    /// Does all that is queued, forced or not, checkpoints, and lets go of the
    /// file. Never returns after a storage failure.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.writer.send(Message::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }
}

fn spawn(path: &Path, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let spawned = thread::Builder::new().name(format!("store-{name}")).spawn(run);
    spawned.map(drop).map_err(no_thread(path))
}

/// A thread that does nothing but one task.
fn spawn_blocking_on(
    path: &Path,
    name: &str,
    task: impl Future<Output = ()> + Send + 'static,
) -> Result<(), OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(no_thread(path))?;
    spawn(path, name, move || runtime.block_on(task))
}

fn no_thread(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    |cause| OpenError::Io { action: "cannot start a thread for", path, cause }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use super::*;
    use crate::FailStop;

    /// Whose work is done by the test's own runtime: nothing happens unless the test waits.
    fn in_tasks(path: &Path) -> (Store, Arc<AtomicUsize>) {
        let steps = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&steps);
        let pace = move || {
            taken.fetch_add(1, SeqCst);
            Duration::ZERO
        };
        let (runner, on_failure) = (Runner::Tasks(Arc::new(pace)), FailStop::new(|_| ()));
        let options = Options { runner, on_failure, ..Options::default() };
        (Store::open(path, options).unwrap(), steps)
    }

    #[tokio::test]
    async fn a_simulation_says_how_long_each_step_takes() {
        let folder = tempfile::tempdir().unwrap();
        let (store, steps) = in_tasks(&folder.path().join("some.db"));
        store.write(|_| Ok(())).await.unwrap();
        assert_eq!(steps.load(SeqCst), 2, "before the commit and after it");
        store.read(|_| Ok(())).await.unwrap();
        assert_eq!(steps.load(SeqCst), 3);
        store.close().await;
    }

    #[tokio::test]
    async fn a_lost_file_is_a_failure_to_those_who_use_it_and_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let is_lost = |shared: &Shared| {
            fs::remove_file(&shared.path).unwrap();
            assert!(!shared.is_in_place(shared.place.check()));
            shared.has_failed()
        };
        let (store, _) = in_tasks(&folder.path().join("used.db"));
        assert!(store.shared.is_in_place(store.shared.place.check()));
        assert!(is_lost(&store.shared));

        let (store, _) = in_tasks(&folder.path().join("closed.db"));
        store.close().await;
        assert!(!is_lost(&store.shared));

        let (store, _) = in_tasks(&folder.path().join("dropped.db"));
        let shared = Arc::clone(&store.shared);
        drop(store);
        assert!(!is_lost(&shared));
    }

    #[tokio::test]
    async fn a_store_that_nobody_uses_any_more_lets_go_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let store = Store::open(&path, Options::default()).unwrap();
        assert_eq!(store.path(), path);
        store.write(|_| Ok(())).await.unwrap();
        drop(store);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while let Err(error) = Store::open(&path, Options::default()) {
            assert!(std::time::Instant::now() < deadline, "{error}");
            thread::yield_now();
        }
    }
}
