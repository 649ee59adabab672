//! The world around a service: the operating system's, or a simulated one in
//! which many services share a process, a virtual clock and a seed.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Error, Uri};

use crate::{Exit, Shutdown, tcp::Tcp};

/// Everything that a service takes from outside, but for its files' contents.
/// Monotonic time comes from tokio.
#[derive(Clone)]
pub struct Environment {
    /// Where it listens and whom it calls.
    pub network: Arc<dyn Network>,
    /// Time since 1970: for people, and in transaction ids. It may jump: nothing is
    /// removed, ended or waited for by it.
    pub wall_clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// 16 random bytes.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
    /// How its database is run: the base of the store's options.
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

/// How services reach each other.
#[tonic::async_trait]
pub trait Network: Send + Sync + 'static {
    /// Takes a port.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to a service.
    ///
    /// # Errors
    ///
    /// When nobody answers there.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error>;

    /// Connects when the first call is made.
    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel;

    /// Opens a connection to the host and port of a URL, for HTTP/1.
    ///
    /// # Errors
    ///
    /// When nobody listens there, or nobody may be called there.
    async fn open(&self, url: Uri) -> io::Result<Box<dyn Stream>>;
}

/// A port that was taken.
#[tonic::async_trait]
pub trait Listener: Send + fmt::Debug {
    /// The next connection, and who made it.
    ///
    /// # Errors
    ///
    /// As the operating system says; the next one may do.
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Environment {
    /// The operating system's: TCP, its clock and its random numbers, threads for
    /// the storage.
    pub fn real() -> Self {
        Self {
            network: Arc::new(Tcp),
            wall_clock: Arc::new(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
            }),
            random: Arc::new(rand::random),
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
