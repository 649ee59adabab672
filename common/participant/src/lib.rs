//! The participant kit: everything that the protocol asks of a participant,
//! once. What is left to write is the domain, behind [`ResourceManager`].
//!
//! ```no_run
//! use dtc_participant::{
//!     BranchId, Descriptors, Error, Handle, Program, Refusal, ResourceManager, Vote,
//! };
//! use shop_proto::{ReserveStock, inventory_service_server::SERVICE_NAME};
//! use rusqlite::Transaction;
//!
//! /// A shelf with room for ten lines.
//! struct Shelf;
//!
//! impl ResourceManager for Shelf {
//!     const NAME: &'static str = "shelf";
//!     const SCHEMA: &'static str = "
//!         CREATE TABLE IF NOT EXISTS shelf (only INTEGER PRIMARY KEY, free INTEGER NOT NULL);
//!         INSERT OR IGNORE INTO shelf VALUES (1, 10);
//!     ";
//!     type Payload = ReserveStock;
//!     type Output = ();
//!
//!     fn descriptors() -> &'static Descriptors {
//!         &shop_proto::DESCRIPTORS
//!     }
//!
//!     fn prepare(
//!         &self,
//!         transaction: &Transaction<'_>,
//!         _: &BranchId,
//!         payload: &ReserveStock,
//!     ) -> Result<Vote<()>, Error> {
//!         let take = "UPDATE shelf SET free = free - ?1 WHERE free >= ?1";
//!         match transaction.execute(take, [payload.lines.len() as i64])? {
//!             0 => Ok(Vote::Abort(Refusal::new("SHELF_FULL", "lines: the shelf has no room"))),
//!             _ => Ok(Vote::Commit(())),
//!         }
//!     }
//!
//!     fn commit(
//!         &self,
//!         _: &Transaction<'_>,
//!         _: &BranchId,
//!         _: &ReserveStock,
//!         (): &(),
//!     ) -> Result<(), Error> {
//!         Ok(())
//!     }
//!
//!     fn rollback(
//!         &self,
//!         transaction: &Transaction<'_>,
//!         _: &BranchId,
//!         payload: &ReserveStock,
//!         (): &(),
//!     ) -> Result<(), Error> {
//!         let give_back = "UPDATE shelf SET free = free + ?1";
//!         transaction.execute(give_back, [payload.lines.len() as i64])?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let program = Program {
//!         name: "participant-shelf",
//!         about: "A shelf: a participant in distributed transactions",
//!         listen: "127.0.0.1:7110",
//!         service: SERVICE_NAME,
//!         resource: Shelf,
//!         own: |_: Handle| tonic::service::Routes::default(),
//!     };
//!     program.run_from_args()
//! }
//! ```
//!
//! Invariants:
//! - A promise and the reservation behind it are one SQLite transaction, and no
//!   answer leaves before that is durable.
//! - A branch that is promised is decided by its coordinator alone; nothing here
//!   times it out.
//! - Domain code is called for a branch once a phase that succeeds; duplicates
//!   are answered from the journal.
//! - A request that is refused or fails never fails its neighbours in a batch, and one
//!   that panics fails its branch only. What the domain keeps in memory, such as a lock
//!   that the panic has poisoned, is the domain's to mend.

mod admin;
mod answers;
mod branches;
mod domain;
mod ended;
mod engine;
mod event_log;
pub mod fields;
mod footprint;
mod handle;
mod high_water_mark;
mod in_doubt;
mod inquiry;
mod journal;
mod limits;
mod link;
mod links;
mod lock_waits;
mod locks;
mod marks;
mod metrics;
#[cfg(feature = "mutants")]
mod mutants;
mod not_mine;
mod overdue;
mod prepared_cache;
mod resolutions;
mod resource;
mod retention;
mod run;
mod service;
mod version;
mod wire;

#[cfg(test)]
mod tests;

pub use dtc_proto::Descriptors;
pub use dtc_protocol::BranchId;
pub use handle::{Handle, Listing};
pub use resource::{Error, Refusal, ResourceManager, Vote};
pub use run::Program;
pub use version::RowVersion;
