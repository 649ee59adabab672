//! Two-phase commit with presumed abort, as a library: several resources change together or
//! not at all, whatever crashes.
//!
//! ```
//! use dtc::{Closures, TransactionCoordinator};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let coordinator = TransactionCoordinator::in_memory().await?;
//! let id = coordinator.begin_transaction().await?;
//! for _ in 0..2 {
//!     // Prepare: promise that commit will succeed. Commit, and rollback: do it.
//!     let resource =
//!         Closures::new(|| async { Ok(true) }, || async { Ok(()) }, || async { Ok(()) });
//!     coordinator.enlist_resource(id, resource).await?;
//! }
//! coordinator.commit_transaction(id).await?;
//! # Ok(()) }
//! ```
//!
//! Where to look:
//!
//! - **A program with resources of its own**: [`TransactionCoordinator`], with a journal in
//!   memory or on disk. Implement [`Resource`] for what takes part; [`Participant`] where it
//!   needs an input, hands something on from prepare to commit, or has errors of its own.
//!   [`OptimisticResource`] adds optimistic concurrency. Each way to fail is a variant of
//!   [`Error`].
//! - **Remote participants** in the same transactions: `enlist_remote`, with the feature
//!   `grpc-client`.
//! - **Everything else that can be asked of a coordinator** (lists, watching, locks, what
//!   operators do): [`api`], which the server's gRPC and HTTP are edges of.
//! - **A store for the journal**: [`journal`].
//!
//! The protocol itself is in [`dtc_core`], without I/O; this crate is the shell around it: it
//! feeds the machine events and does what it asks for.
//!
//! | feature | |
//! |---|---|
//! | `sqlite` (default) | a journal on disk |
//! | `grpc-client` | remote participants, over gRPC and HTTP |

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
