//! Links to participants: over gRPC (a stream of batches, or one call a message), and over
//! HTTP. A build without the feature `grpc-client` has none.

mod batch;
mod calls;
mod connection;
mod fence;
mod http;
mod inbound;
mod manager;
mod stream;
mod transport;
mod unary;

pub use batch::outcome_parts;
#[cfg(test)]
pub(crate) use connection::endpoint;
use connection::{CONNECT_TIMEOUT, KEEP_ALIVE, Link, Lost, Target, with_causes};
pub use manager::InvalidAddress;
pub(crate) use manager::Links;
