//! What a store can be told when it is opened.

use std::{fmt, sync::Arc, time::Duration};

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

/// How a store works. `Options { role: "inventory", schema, ..Options::default() }`
#[derive(Debug, Clone)]
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
        }
    }
}
