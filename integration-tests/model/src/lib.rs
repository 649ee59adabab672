//! The protocol under a model checker: the production code of `dtc-core`
//! and of `common` (a branch's transition function, the fence), unchanged, in
//! every order in which messages, syncs, timeouts and crashes can come.
//!
//! [`System`] is the model, [`Setup`] its bounds, `projection` the one place
//! where something is left out of the state. [`search`](search()) visits every
//! state; what has to hold there is in `properties`.

mod client;
mod journal;
mod network;
mod participant;
mod projection;
mod properties;
mod search;
mod setup;
mod state;
mod step;
mod system;

pub use client::Client;
pub use journal::{Journal, Stored};
pub use network::{Answer, Content, Id, Message, Network, Request};
pub use participant::{File, History, Participant, Row, Vote};
pub use search::{Progress, REACHES_END, Report, Until, Verdict, search};
pub use setup::{Asking, Setup, Use};
pub use state::State;
pub use step::Step;
pub use system::System;
