//! The participant kit: everything that the protocol asks of a participant,
//! once. What is left to write is the domain, behind [`ResourceManager`].
//!
//! Invariants:
//! - A promise and the reservation behind it are one SQLite transaction, and no
//!   answer leaves before that is durable.
//! - A branch that is promised is decided by its coordinator alone; nothing here
//!   times it out.
//! - Domain code is called for a branch once a phase that succeeds; duplicates
//!   are answered from the journal.
//! - A request that is refused or fails never fails its neighbours in a batch.

mod branches;
mod doubts;
mod engine;
pub mod fields;
mod handle;
mod journal;
mod limits;
mod link;
mod links;
mod metrics;
mod resolver;
mod resource;
mod retention;
mod run;
mod service;
mod story;
mod version;
mod wire;

#[cfg(test)]
mod tests;

pub use common::BranchId;
pub use handle::{Handle, Listing};
pub use resource::{Error, Refusal, ResourceManager, Vote};
pub use run::{Program, run_from_args};
pub use version::Versioned;
