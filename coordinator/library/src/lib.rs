//! Two-phase commit as a library: the shell around the protocol's machine
//! ([`dtc_core`]). It feeds the machine events and does what it asks
//! for: a driver, a journal, links to participants.

#![cfg_attr(not(feature = "grpc-client"), allow(dead_code, reason = "what links alone use"))]

mod address;
mod allow;
pub mod api;
mod clock;
mod directory;
mod driver;
mod embedded;
mod event_log;
mod ids;
pub mod journal;
#[cfg_attr(not(feature = "grpc-client"), path = "no_links.rs")]
mod link;
mod metrics;
mod retention;
mod running;
mod start;
pub mod trace;

pub use address::Address;
pub use allow::Pattern;
pub use async_trait::async_trait;
pub use directory::{LinkState, check_name};
pub use driver::RecoverError;
pub use dtc_proto::dtc::Payload;
pub use dtc_protocol::TransactionId;
pub use embedded::{
    BoxError, Branch, Closures, CommitPolicy, Error, OpenError, OptimisticResource, Orphan,
    Participant, Phase, Resource, Settings, Source, TransactionCoordinator, Vote,
};
pub use link::InvalidAddress;
#[cfg(feature = "grpc-client")]
pub use link::outcome_parts;
pub use start::{Config, StartError, start};
