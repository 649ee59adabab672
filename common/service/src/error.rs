//! Why a service cannot be served.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::Fatal;
use dtc_runtime::Exit;

/// Why a service cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Somebody else listens there.
    #[error(
        "port {port} on {ip} is in use by another process; stop it, or give --listen another port (0 takes a free one)",
        port = .address.port(),
        ip = .address.ip()
    )]
    PortInUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; give --listen an address of this machine")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The port file cannot be written.
    #[error("cannot write the port to {path} (--port-file): {cause}", path = .path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The descriptors that reflection shows cannot be read: a bug.
    #[error("the descriptors for reflection are broken: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A metric was registered twice: a bug.
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl ServiceError {
    /// What the process ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::PortInUse { .. } => Exit::PortInUse,
            Self::Bind { .. } | Self::PortFile { .. } => Exit::Configuration,
            Self::Reflection(_) | Self::Metrics(_) => Exit::Software,
        }
    }
}

impl From<ServiceError> for Fatal {
    fn from(error: ServiceError) -> Self {
        Self { exit: error.exit() as u8, reason: error.to_string() }
    }
}
