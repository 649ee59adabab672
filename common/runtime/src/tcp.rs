//! The operating system's network.

use std::{io, net::SocketAddr};

use async_trait::async_trait;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::{Service, ServiceExt};

use crate::{Listener, Network, Resolver, Stream, connector};

/// TCP.
pub(crate) struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(address).await?))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        endpoint.connect_with_connector(dialer(endpoint)).await
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(dialer(endpoint))
    }

    async fn open(&self, url: Uri) -> io::Result<Box<dyn Stream>> {
        let mut connector = connector();
        let connector = connector.ready().await.map_err(io::Error::other)?;
        let stream = connector.call(url).await.map_err(io::Error::other)?;
        Ok(Box::new(stream.into_inner()))
    }
}

fn dialer(endpoint: &Endpoint) -> HttpConnector<Resolver> {
    let mut connector = connector();
    connector.set_connect_timeout(endpoint.get_connect_timeout());
    connector
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
        }
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}
