//! What can be asked of a coordinator, in domain types.
//!
//! gRPC, HTTP and embedded use are edges of it: each converts once, what it was sent into
//! these types and the answer back. What is checked of a request, and every limit, stands
//! here.

mod error;
mod execute;
mod fingerprint;
mod get;
mod interactive;
mod limits;
mod list;
mod locks;
mod naming;
mod operator;
mod outcome;
mod participants;
mod repeat;
mod request;
mod transaction;
mod watch;

use std::{sync::Arc, time::Duration};

use dtc_core::Reply;
use dtc_protocol::TransactionId;
use dtc_runtime::Shutdown;

use crate::{
    driver::{Call, Handle},
    link::Links,
};
pub use dtc_core::{
    AnswerAt, BranchOutcome, BranchState, CommitPolicy, HeldLock, Intervention, InterventionAction,
    LockMode, LockOwner, LockView, Opaque, Outcome, Time, TrailKind, TransactionState,
};
pub use dtc_proto::dtc::Payload;
pub use dtc_protocol::{CoordinatorId, Incarnation, SessionId, fence::Run};
pub use error::Error;
pub use limits::{Limits, MAX_PAGE, MAX_REQUEST};
pub use list::{Filter, Page};
pub use locks::{LockFilter, LockPage, NewSession, Session};
pub use operator::Operator;
pub use outcome::Origin;
pub use participants::{Deregistered, NewParticipant, ParticipantStatus};
pub use request::{COMPENSATE_AFTER, NewBranch, NewLock, NewTransaction, Options, parse_id};
pub use transaction::{Branch, Reason, TrailEvent, Transaction};
pub use watch::{Update, Watch};

/// A running coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) handle: Handle,
    pub(crate) links: Links,
    limits: Arc<Limits>,
    shutdown: Shutdown,
    /// One registration changes at a time: journal and directory agree.
    registering: Arc<tokio::sync::Mutex<()>>,
}

impl Coordinator {
    pub(crate) fn new(handle: Handle, links: Links, limits: Limits, shutdown: Shutdown) -> Self {
        Self { handle, links, limits: Arc::new(limits), shutdown, registering: Arc::default() }
    }

    /// Begun when the process is being stopped: new work is refused then.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Whether the journal's disk has room for new work.
    pub fn has_room(&self) -> bool {
        self.handle.journal.has_room()
    }

    /// Has all calls that wait answered with what is known, and later ones at once.
    pub async fn end_waits(&self) {
        self.handle.end_waits().await;
    }

    /// Writes all that is going to be written and lets go of the journal.
    pub async fn close(&self) {
        self.shutdown.begin();
        self.handle.journal.close().await;
    }

    /// The transaction that a reply shows, from memory or the journal.
    pub(crate) async fn shown(
        &self,
        id: Option<TransactionId>,
        reply: Reply,
    ) -> Result<Transaction, Error> {
        let directory = &self.handle.directory;
        let id = match (reply, id) {
            (Reply::Transaction(view), _) => return Ok(Transaction::new(*view, &**directory)),
            (Reply::Refused(refused), _) => return Err(Error::refused(&refused, directory)),
            (Reply::See(id) | Reply::Begun(id), _) => id,
            (Reply::NotHere | Reply::Enlisted(_), Some(id)) => id,
            (Reply::NotHere | Reply::Enlisted(_), None)
            | (Reply::NoRepeat | Reply::Locked { .. } | Reply::Released(_), _) => {
                return Err(Error::Stopping);
            }
        };
        let stored = self.handle.journal.find(id).await?;
        let stored = stored.ok_or(Error::UnknownTransaction(id))?;
        if stored.end.is_some() {
            return Ok(Transaction::in_journal(&stored)?);
        }
        // It became unfinished work again between the two looks: in memory then.
        match self.handle.call(id, Call::Get, Duration::ZERO).await? {
            Reply::Transaction(view) => Ok(Transaction::new(*view, &**directory)),
            _ => {
                let stored = self.handle.journal.find(id).await?;
                let stored = stored.ok_or(Error::UnknownTransaction(id))?;
                Ok(Transaction::in_journal(&stored)?)
            }
        }
    }

    /// New work is refused while the disk still has room for what was promised.
    fn check_room(&self) -> Result<(), Error> {
        if self.shutdown.is_begun() {
            return Err(Error::Stopping);
        }
        if self.has_room() {
            return Ok(());
        }
        Err(Error::Exhausted(
            "too little disk space is free for the coordinator's journal (--min-free); new \
             transactions are refused, unfinished ones go on"
                .into(),
        ))
    }
}
