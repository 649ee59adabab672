//! turmoil's network as the services' environment.

use std::{
    fmt,
    io::{self, Error},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

use dtc_runtime::{Listener, Network, Stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::{
    async_trait,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network, as one host sees it.
#[derive(Default, Clone)]
pub(super) struct Simulated {
    open: Arc<Mutex<Vec<Weak<Shared>>>>,
}

type Shared = Mutex<Option<TcpStream>>;

/// A connection that can be closed from outside.
struct Socket(Arc<Shared>);

struct Port {
    listener: TcpListener,
    network: Simulated,
}

impl Simulated {
    /// Closes all that is open, oldest first, as the system does with the sockets
    /// of a process that ended. (Tasks are dropped in an order that is not the
    /// seed's.)
    pub(super) fn hang_up(&self) {
        for socket in lock(&self.open).drain(..) {
            drop(socket.upgrade().and_then(|socket| lock(&socket).take()));
        }
    }

    fn add(&self, stream: TcpStream) -> Socket {
        let shared = Arc::new(Mutex::new(Some(stream)));
        let mut open = lock(&self.open);
        open.retain(|socket| socket.strong_count() > 0);
        open.push(Arc::downgrade(&shared));
        Socket(shared)
    }

    async fn connection(self, address: Uri) -> io::Result<TokioIo<Socket>> {
        self.dial(address).await.map(TokioIo::new)
    }

    async fn dial(&self, address: Uri) -> io::Result<Socket> {
        let (host, port) = address.host().zip(address.port_u16()).ok_or_else(|| {
            Error::new(io::ErrorKind::InvalidInput, format!("{address} has no host and port"))
        })?;
        let stream = TcpStream::connect((host, port)).await?;
        Ok(self.add(stream))
    }
}

#[async_trait]
impl Network for Simulated {
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        Ok(Box::new(Port { listener, network: self.clone() }))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        let network = self.clone();
        let open = service_fn(move |address| network.clone().connection(address));
        endpoint.connect_with_connector(open).await
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        let network = self.clone();
        let open = service_fn(move |address| network.clone().connection(address));
        endpoint.connect_with_connector_lazy(open)
    }

    async fn open(&self, url: Uri) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.dial(url).await?))
    }
}

#[async_trait]
impl Listener for Port {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Box::new(self.network.add(stream)), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

impl Socket {
    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *lock(&self.0) {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, buffer))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
