//! A service's port.

use std::{io::ErrorKind, net::SocketAddr};

use dtc_runtime::{Environment, Listener};

use crate::ServiceError;

/// Takes the port. Nothing is accepted before [`Server::serve`](crate::Server::serve).
///
/// # Errors
///
/// [`ServiceError::PortInUse`] and [`ServiceError::Bind`].
pub async fn bind(
    environment: &Environment,
    address: SocketAddr,
) -> Result<Box<dyn Listener>, ServiceError> {
    environment.network.bind(address).await.map_err(|cause| match cause.kind() {
        ErrorKind::AddrInUse => ServiceError::PortInUse { address },
        _ => ServiceError::Bind { address, cause },
    })
}
