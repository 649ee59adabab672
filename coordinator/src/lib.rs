//! The coordinator: the shell around the protocol's machine
//! ([`dtc_core`]). It feeds the machine events and does what it asks
//! for: a driver, a journal, links to participants, gRPC at the edge.

mod address;
mod allow;
mod clock;
mod config;
mod convert;
mod directory;
mod driver;
mod embedded;
mod error;
mod event_log;
mod fence;
mod ids;
mod journal;
mod link;
mod links;
mod metrics;
mod rest;
mod retention;
mod run;
mod running;
mod service;
mod trace;

pub use dtc_protocol::TransactionId;
pub use embedded::{
    Branch, Closures, CommitPolicy, Error, OptimisticResource, Orphan, Phase, Resource, Settings,
    StartError, TransactionCoordinator, Vote,
};
pub use run::{run_from_args, run_from_args_in, run_in};
pub use tonic::async_trait;
