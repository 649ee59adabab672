//! The world around a service: the operating system's, or a simulated one in
//! which many services share a process, a virtual clock and a seed.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Exit, Shutdown};
#[cfg(feature = "network")]
use crate::{Network, tcp::Tcp};

/// 16 random bytes.
pub type Random = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// Everything that a service takes from outside, but for its files' contents.
/// Monotonic time comes from tokio.
#[derive(Clone)]
pub struct Environment {
    /// Where it listens and whom it calls.
    #[cfg(feature = "network")]
    pub network: Arc<dyn Network>,
    /// Time since 1970: for people, and in transaction ids. It may jump: nothing is
    /// removed, ended or waited for by it.
    pub wall_clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// 16 random bytes.
    pub random: Random,
    /// How its database is run: the base of the store's options.
    #[cfg(feature = "storage")]
    pub storage: dtc_store::Options,
    /// The age below which nothing is removed for the sake of bytes; a service's own
    /// floor, unless time is simulated.
    pub retention_floor: Option<Duration>,
    /// When it is to stop.
    pub shutdown: Shutdown,
    /// Ends the process at once. Returns only where that is simulated; nothing
    /// may be said after it.
    pub exit: Arc<dyn Fn(Exit) + Send + Sync>,
}

impl Environment {
    /// The operating system's: TCP, its clock and its random numbers, threads for
    /// the storage.
    pub fn real() -> Self {
        Self {
            #[cfg(feature = "network")]
            network: Arc::new(Tcp),
            wall_clock: Arc::new(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
            }),
            random: Arc::new(rand::random),
            #[cfg(feature = "storage")]
            storage: dtc_store::Options::default(),
            retention_floor: None,
            shutdown: Shutdown::new(),
            exit: Arc::new(|exit| std::process::exit(exit as i32)),
        }
    }

    /// Ends the process, and goes no further where that is simulated.
    pub async fn halt(&self, exit: Exit) -> Infallible {
        (self.exit)(exit);
        std::future::pending().await
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
