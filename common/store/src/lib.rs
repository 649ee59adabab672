//! Durable SQLite for both sides of the protocol: one file, one writer thread
//! with group commit, an identity, and an epoch that each start raises.
//!
//! Invariants:
//! - Nothing is reported durable before the COMMIT that holds it returned, with
//!   `synchronous=FULL`.
//! - After any error from a COMMIT or a sync nothing is said any more: no
//!   completion runs, no read answers, and [`Options::on_failure`] is called,
//!   which ends the process by default. The fate of the batch is learned by
//!   opening the file again.
//! - If SQLite rolled a batch back before its COMMIT, nothing of it was
//!   promised, and every work in it is told so.
//! - Work is done in the order in which it was submitted.
//! - Every batch is conditional on the epoch in the file still being this run's.
//! - One process holds a file at a time.
//! - [`Store::service_time`] is never ahead of the monotonic clock.
//! - Nothing is reported durable that is not in the file at the path: one that was
//!   deleted, moved or replaced is a storage failure, noticed within a second.
//! - Files are readable by their owner only.
//! - Opening finishes a TRUNCATE checkpoint before anything is read: frames that
//!   only the page cache holds are not trusted.

mod checkpoint;
mod collector;
mod crash;
mod damage;
mod error;
mod identity;
mod job;
mod lock;
mod log;
mod open;
mod options;
mod place;
mod reader;
mod savepoint;
mod service_time;
mod shared;
mod space;
mod statistics;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use collector::StatisticsCollector;
#[doc(hidden)]
pub use crash::crash_point;
pub use damage::{CheckedRow, Damaged, check_pages, checksum};
pub use error::{Failure, OpenError, ReadError, WriteError};
pub use identity::{Identity, RESTORED_EPOCHS};
pub use job::{Completion, Urgency, Work};
pub use options::{FailStop, Options, Pace, Random, Runner, WallClock};
pub use place::Displaced;
pub use savepoint::in_savepoint;
pub use statistics::{BATCH_BUCKETS, Statistics};
pub use store::Store;
