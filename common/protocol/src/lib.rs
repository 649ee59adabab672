//! The vocabulary of the protocol, shared by coordinator and participants, and
//! the decisions of a participant that have no I/O in them: a branch's
//! transition function ([`branch`]) and the fence against old coordinators
//! ([`fence`]).
//!
//! `no_std`: what is decided here can't read a clock, draw a random number or
//! touch a socket.

#![no_std]

pub mod branch;
pub mod fence;
mod id;
#[cfg(feature = "mutants")]
pub mod planted;
mod time;

pub use id::{
    BranchId, CoordinatorId, Incarnation, JournalId, ParseIdError, SessionId, TransactionId,
};
pub use time::Time;
