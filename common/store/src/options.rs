//! What a store can be told when it is opened.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::Failure;

/// Called when the storage can't go on, on the thread that found out.
#[derive(Clone)]
pub struct FailStop(Arc<dyn Fn(&Failure) + Send + Sync>);

impl FailStop {
    /// Calls `action`.
    pub fn new(action: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        Self(Arc::new(action))
    }

    pub(crate) fn call(&self, failure: &Failure) {
        (self.0)(failure);
    }
}

impl Default for FailStop {
    /// Logs what happened and ends the process with [`Failure::exit_code`].
    fn default() -> Self {
        Self::new(|failure| {
            tracing::error!(exit_code = failure.exit_code(), "{failure}");
            std::process::exit(failure.exit_code());
        })
    }
}

impl fmt::Debug for FailStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailStop")
    }
}

/// Who does a store's work.
#[derive(Clone, Default)]
pub enum Runner {
    /// Threads of its own.
    #[default]
    Threads,
    /// Tasks of the runtime in which it is opened, so that a simulation decides
    /// when what happens. Before each commit, between a commit
    /// and its completions, and before each read they sleep as long as this says.
    Tasks(Pace),
}

/// How long the next step of a store's work takes.
pub type Pace = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Time since 1970, by a clock that people set.
pub type WallClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// 16 random bytes.
pub type Random = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}

/// How a store works. `Options { role: "inventory", schema, ..Options::default() }`
#[derive(Clone)]
pub struct Options {
    /// Whose file it is, such as `coordinator`; kept in the file, refused when it differs.
    pub role: &'static str,
    /// `CREATE TABLE IF NOT EXISTS ...`; run at every open.
    pub schema: &'static str,
    /// How long unforced work may wait for a forced batch.
    pub linger: Duration,
    /// Bound of a batch, in the weight that [`crate::Store::submit`] is told.
    pub max_batch: usize,
    /// Bytes; when the write-ahead log is longer, it is forced back to its start.
    pub wal_limit: u64,
    /// Bytes of disk that are kept free: below, [`crate::Store::has_room`] is
    /// false. 0 switches that off.
    pub min_free: u64,
    /// What happens when the storage can't go on.
    pub on_failure: FailStop,
    /// The file comes from a backup, taken in a run that went on. The epoch goes up by
    /// [`crate::RESTORED_EPOCHS`], above what any run since the backup can have had,
    /// and [`crate::Identity::restored_at`] says from then on that what is not known of a
    /// run before may have been lost.
    pub restored: bool,
    /// Who does its work.
    pub runner: Runner,
    /// Where identities come from.
    pub random: Random,
    /// What is compared with the monotonic clock, to say when it jumps. Nothing else
    /// follows from it.
    pub wall_clock: WallClock,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            role: "",
            schema: "",
            linger: Duration::from_millis(20),
            max_batch: 4096,
            wal_limit: 64 << 20,
            min_free: 64 << 20,
            on_failure: FailStop::default(),
            restored: false,
            runner: Runner::default(),
            random: Arc::new(rand::random),
            wall_clock: Arc::new(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
            }),
        }
    }
}
