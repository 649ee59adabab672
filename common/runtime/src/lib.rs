//! What a program takes from outside, behind one seam: the network with its names, the wall
//! clock, random numbers, how its storage is run, when to stop and how the process ends.
//!
//! Neither flags nor a web framework: those are the server's (`dtc-service`).

#[cfg(feature = "network")]
mod dns;
mod environment;
mod exit;
mod forbidden;
#[cfg(feature = "network")]
mod network;
mod shutdown;
#[cfg(feature = "network")]
mod tcp;

#[cfg(feature = "network")]
pub use dns::{Resolver, connector};
pub use environment::{Environment, Random};
pub use exit::Exit;
pub use forbidden::is_forbidden;
#[cfg(feature = "network")]
pub use network::{Listener, Network, Stream};
pub use shutdown::{Shutdown, terminated};
