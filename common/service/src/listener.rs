//! The port.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::net::TcpListener;

use crate::ServiceError;

/// Takes the port. Nothing is accepted before [`Server::serve`](crate::Server::serve).
///
/// # Errors
///
/// [`ServiceError::PortInUse`] and [`ServiceError::Bind`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
        ErrorKind::AddrInUse => ServiceError::PortInUse { address },
        _ => ServiceError::Bind { address, cause },
    })
}
