//! Connections for HTTP/1, from the service's own network.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dtc_runtime::{Network, Stream};
use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service;

use super::super::CONNECT_TIMEOUT;

/// Opens what an HTTP client keeps.
#[derive(Clone)]
pub(crate) struct Dialer(pub(super) Arc<dyn Network>);

/// A connection, whatever the network made of it.
pub(crate) struct Dialled(pub(super) Box<dyn Stream>);

type Opening = Pin<Box<dyn Future<Output = io::Result<TokioIo<Dialled>>> + Send>>;

impl Dialer {
    pub(super) async fn open(self, url: Uri) -> io::Result<Dialled> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.0.open(url)).await;
        let late =
            || io::Error::new(ErrorKind::TimedOut, "the connection was not accepted in time");
        opened.map_err(|_| late())?.map(Dialled)
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Dialled>;
    type Error = io::Error;
    type Future = Opening;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Opening {
        let dialer = self.clone();
        Box::pin(async move { dialer.open(url).await.map(TokioIo::new) })
    }
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(context, buffers)
    }
}
