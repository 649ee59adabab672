//! Two-phase commit with presumed abort, as a pure machine: events in, actions
//! out. There is one [`Transaction`](transaction) machine a transaction;
//! [`Coordinator`] routes events to them and keeps time, which is an argument.
//!
//! `no_std`: nothing here can read a clock, draw a random number, or touch a
//! file or socket. The same code runs in production and under the tests.
//!
//! The write-ahead rule is in the interface. The machine asks for records with
//! [`Action::Append`]; what promises something (`Commit` to a participant,
//! 'committed' to a client) is handed out only by [`Event::Durable`] for the
//! record that it rests on.
//!
//! The program around the machine is its driver: `docs/driving-the-machine.md` lists the
//! duties. The smallest one, for a transaction with two branches, a journal that syncs at
//! once and participants that obey:
//!
//! ```
//! use std::{collections::VecDeque, sync::Arc, time::Duration};
//!
//! use dtc_core::{
//!     Acknowledgement, Action, AnswerAt, Begin, Config, Coordinator, Event, Message, NewBranch,
//!     Outcome, ParticipantId, Reply, Time, Vote, Waiter,
//! };
//! use dtc_protocol::TransactionId;
//!
//! let epoch = 1; // Raised in the journal before this line.
//! let now = Time(1_000_000);
//! let (mut machine, actions) = Coordinator::recover(Config::default(), epoch, [], [], now);
//! assert!(actions.is_empty()); // Nothing was unfinished.
//!
//! let id = TransactionId::from_bytes(1_u128.to_be_bytes());
//! let payload: Arc<[u8]> = Arc::from(&b"reserve"[..]);
//! let branches = [0, 1].map(|number| NewBranch {
//!     participant: ParticipantId(number),
//!     payload: payload.clone(),
//!     one_phase: true,
//! });
//! let connected = [0, 1].map(|number| Event::Connected {
//!     participant: ParticipantId(number),
//!     supports_inquiry: true,
//!     compensates: false,
//!     journal: None,
//! });
//! let mut events = VecDeque::from(connected);
//! events.push_back(Event::Begin(Box::new(Begin {
//!     id,
//!     age: id,
//!     key: None,
//!     admitted: true,
//!     options: Box::default(),
//!     branches: branches.into(),
//!     locks: vec![],
//!     interactive: false,
//!     id_may_be_known: false,
//!     trace: None,
//!     waiter: Waiter {
//!         token: 7,
//!         at: AnswerAt::Completion,
//!         until: now + Duration::from_secs(30),
//!     },
//! })));
//!
//! let mut outcome = None;
//! let mut actions = Vec::new();
//! while let Some(event) = events.pop_front() {
//!     machine.handle(now, event, &mut actions);
//!     // Records first. Here each is on disk as soon as it is asked for.
//!     for action in &actions {
//!         if let Action::Append { sequence, .. } = action {
//!             events.push_back(Event::Durable { up_to: *sequence });
//!         }
//!     }
//!     for action in actions.drain(..) {
//!         match action {
//!             Action::Send { to, id, branch, message, .. } => events.push_back(match message {
//!                 Message::Prepare { .. } => Event::Voted {
//!                     from: to,
//!                     journal: None,
//!                     id,
//!                     branch,
//!                     vote: Vote::Commit { output: None, committed: false },
//!                 },
//!                 Message::Commit { number, .. } => Event::Acknowledged {
//!                     from: to,
//!                     journal: None,
//!                     id,
//!                     branch,
//!                     number,
//!                     acknowledgement: Acknowledgement::Committed,
//!                 },
//!                 Message::Rollback { .. } => unreachable!("both have voted to commit"),
//!             }),
//!             Action::Reply { token: 7, reply: Reply::Transaction(view) } => {
//!                 outcome = Some(view.outcome);
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(outcome, Some(Outcome::Committed));
//! assert!(machine.is_empty());
//! ```

#![no_std]

extern crate alloc;

mod action;
mod backoff;
mod config;
mod coordinator;
mod endings;
mod event;
mod failure;
mod intervention;
mod keys;
mod locks;
mod log;
mod participants;
mod projection;
mod record;
mod sessions;
mod timers;
mod trail;
mod transaction;
mod view;
mod waiter;

pub use action::{Action, BranchOutcome, Message, Refused, Reply};
pub use config::{CommitPolicy, Config, Options};
pub use coordinator::Coordinator;
pub use dtc_locks::{Deadlocks, HeldLock, LockFigures, LockKey, LockMode};
pub use dtc_protocol::Time;
pub use endings::{Ended, Endings};
pub use event::{
    Acknowledgement, Begin, Client, Event, Found, FoundBranch, Inquirer, NewBranch, SessionCall,
    Vote,
};
pub use failure::Failure;
pub use intervention::{Intervention, InterventionAction};
pub use locks::{Blocked, LockOwner, LockView, MAX_LOCK_KEY};
pub use log::RecordPurpose;
pub use projection::{
    BranchProjection, Pace, ParticipantProjection, Projection, TransactionProjection,
};
pub use record::{
    BeginBranch, BeginRecord, DecisionBranch, DecisionRecord, EndRecord, EnlistCall, Record,
    Sequence, SessionRecord,
};
pub use trail::{TrailEvent, TrailKind};
pub use transaction::Phase;
pub use view::{BranchState, BranchView, Outcome, TransactionState, View};
pub use waiter::{AnswerAt, Waiter};

use alloc::{string::String, sync::Arc};

/// Bytes that the machine only hands on: payloads and prepared outputs.
pub type Opaque = Arc<[u8]>;

/// A client's idempotency key.
pub type RequestKey = Arc<str>;

/// A hash of a request's body, decoded; equal bodies have equal fingerprints.
pub type Fingerprint = [u8; 32];

/// The key of a call, with the fingerprint of its body.
pub type CallKey = (RequestKey, Fingerprint);

/// A participant, by the number that the shell gave its name. Records that are
/// written carry the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParticipantId(pub u32);

/// Why a branch voted to abort, or a transaction was aborted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason {
    /// A short constant in capitals, such as `OUT_OF_STOCK`.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// Whose reason it is; none for the coordinator's own.
    pub participant: Option<ParticipantId>,
}
