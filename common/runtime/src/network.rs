//! How services reach each other: the operating system's network, or a simulated one.

use std::{fmt, io, net::SocketAddr};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// How services reach each other.
#[async_trait]
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
#[async_trait]
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
