//! turmoil's network as the services' environment.

use std::{
    fmt,
    io::{self, Error},
    net::SocketAddr,
};

use common_service::{Listener, Network, Stream};
use hyper_util::rt::TokioIo;
use tonic::{
    async_trait,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network, as the host sees it that uses it.
pub(super) struct Simulated;

struct Port(TcpListener);

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

#[async_trait]
impl Network for Simulated {
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Port(TcpListener::bind(address).await?)))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(service_fn(open)).await
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(service_fn(open))
    }
}

#[async_trait]
impl Listener for Port {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn open(address: Uri) -> io::Result<TokioIo<TcpStream>> {
    let (host, port) = address.host().zip(address.port_u16()).ok_or_else(|| {
        Error::new(io::ErrorKind::InvalidInput, format!("{address} has no host and port"))
    })?;
    TcpStream::connect((host, port)).await.map(TokioIo::new)
}
