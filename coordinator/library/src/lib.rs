//! Two-phase commit as a library: the shell around the protocol's machine
//! ([`dtc_core`]). It feeds the machine events and does what it asks
//! for: a driver, a journal, links to participants.

pub mod address;
pub mod allow;
mod clock;
mod convert;
pub mod directory;
pub mod driver;
mod embedded;
pub mod error;
mod event_log;
mod fence;
mod ids;
pub mod journal;
mod link;
pub mod links;
pub mod metrics;
pub mod retention;
mod running;
pub mod service;
pub mod trace;

pub use dtc_protocol::TransactionId;
pub use embedded::{
    Branch, Closures, CommitPolicy, Error, OptimisticResource, Orphan, Phase, Resource, Settings,
    StartError, TransactionCoordinator, Vote,
};
pub use tonic::async_trait;
