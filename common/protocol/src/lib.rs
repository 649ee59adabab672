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
#[cfg(debug_assertions)]
pub mod planted;
mod time;

/// Whether the named bug of [`planted`] is planted; `false`, to the compiler too,
/// where debug assertions are off.
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(debug_assertions)]
        let planted = $crate::planted::is_planted($crate::planted::Bug::$bug);
        #[cfg(not(debug_assertions))]
        let planted = false;
        planted
    }};
}

pub use id::{
    BranchId, CoordinatorId, Incarnation, JournalId, ParseIdError, SessionId, TransactionId,
};
pub use time::Time;
