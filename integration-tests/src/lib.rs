//! The harness: real processes, real files, real sockets.
//!
//! A test starts a [`Cluster`] (four processes in a temporary folder, on a
//! loopback address of its own, so that tests run beside each other), has a
//! [`Shop`] place orders, kills, pauses and restarts what it wants, waits for
//! conditions with [`eventually`], and lets [`Shop::check`] look for anything
//! lost or half done. [`Proxy`] makes the network fail, [`FakeParticipant`] and
//! [`FakeCoordinator`] speak the protocol by script, and [`vfs`] with [`power`]
//! take away what was not synced.

mod address;
mod alone;
mod build;
mod check;
mod classes;
mod cluster;
mod eventually;
mod fake_coordinator;
mod fake_participant;
mod fixture;
mod neighbour;
mod process;
mod proxy;
mod rest;
mod shop;
mod workload;

pub mod demo;
pub mod forks;
pub mod fuzz;
pub mod power;
pub mod recovery;
pub mod simulation;
pub mod torture;
pub mod vfs;
pub mod wall_clock;

pub use address::{Addresses, channel};
pub use alone::{Alone, branches_at};
pub use cluster::{Binaries, Cluster, Role};
pub use eventually::{DEADLINE, eventually};
pub use fake_coordinator::{FakeCoordinator, FakeLink};
pub use fake_participant::{
    FakeParticipant, Gate, Heard, Reply, Speaks, agree, is_commit, is_prepare,
};
pub use fixture::{Fixture, Loss};
pub use process::{Process, Start};
pub use proxy::{Direction, End, Proxy};
pub use rest::{Answer, Rest};
pub use shop::{CURRENCY, Purchase, Shop, typed};
