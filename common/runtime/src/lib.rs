//! What a program takes from outside, behind one seam: the network with its names, the wall
//! clock, random numbers, how its storage is run, when to stop and how the process ends.
//!
//! Neither flags nor a web framework: those are the server's (`dtc-service`).

mod dns;
mod environment;
mod exit;
mod shutdown;
mod tcp;

pub use dns::{Resolver, connector, is_forbidden};
pub use environment::{Environment, Listener, Network, Stream};
pub use exit::Exit;
pub use shutdown::{Shutdown, terminated};
