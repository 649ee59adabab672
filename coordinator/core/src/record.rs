//! What is asked to be written.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use dtc_protocol::{JournalId, SessionId, TransactionId};

use crate::{
    BranchState, CallKey, CommitPolicy, Fingerprint, HeldLock, Intervention, Opaque, ParticipantId,
    Reason, RequestKey, Time, TrailEvent,
};

/// The place of a record in the order of all that were asked for in this run.
pub type Sequence = u64;

/// A record of the journal. A later one of the same transaction replaces the
/// earlier; an end record joins the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The transaction may have been sent to participants that cannot ask, or a
    /// client holds its id: to be rolled back after a restart.
    Begin(BeginRecord),
    /// The outcome.
    Decision(DecisionRecord),
    /// Nothing is owed any more.
    End(EndRecord),
}

impl Record {
    /// The transaction that it is about.
    pub fn id(&self) -> TransactionId {
        match self {
            Self::Begin(record) => record.id,
            Self::Decision(record) => record.id,
            Self::End(record) => record.id,
        }
    }
}

/// See [`Record::Begin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginRecord {
    /// The transaction.
    pub id: TransactionId,
    /// See [`Begin::age`](crate::Begin::age).
    pub age: TransactionId,
    /// The client's key, with the body's fingerprint.
    pub key: Option<(RequestKey, Fingerprint)>,
    /// Driven by its client, call by call.
    pub interactive: bool,
    /// Its only branch is committed by its participant in one call.
    pub one_phase: bool,
    /// How long an attempt of its decision may take, where its client chose that.
    pub attempt_timeout: Option<Duration>,
    /// When it was begun.
    pub begun_at: Time,
    /// What it holds from here on until its end.
    pub locks: Vec<HeldLock>,
    /// The branches that prepare will be sent to.
    pub branches: Vec<BeginBranch>,
    /// How they were enlisted, where that may be repeated.
    pub calls: Vec<EnlistCall>,
    /// What happened so far.
    pub trail: Vec<TrailEvent>,
}

/// A call that enlisted a branch and carried a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnlistCall {
    /// Its key, with the body's fingerprint.
    pub key: CallKey,
    /// The branch's number.
    pub branch: u32,
}

/// A branch of a [`BeginRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginBranch {
    /// Where it is.
    pub participant: ParticipantId,
    /// What it is to do.
    pub payload: Opaque,
    /// Whether its participant asks when in doubt.
    pub supports_inquiry: bool,
    /// One phase: the journal that is asked to commit, where its link names one.
    pub journal: Option<JournalId>,
}

/// See [`Record::Decision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRecord {
    /// The transaction.
    pub id: TransactionId,
    /// See [`Begin::age`](crate::Begin::age).
    pub age: TransactionId,
    /// The client's key, with the body's fingerprint.
    pub key: Option<(RequestKey, Fingerprint)>,
    /// To commit, or to abort.
    pub commit: bool,
    /// 1; 2 after a decision was compensated.
    pub number: u32,
    /// What becomes of a commit that keeps failing.
    pub policy: CommitPolicy,
    /// How long an attempt may take, where its client chose that.
    pub attempt_timeout: Option<Duration>,
    /// When it was begun.
    pub begun_at: Time,
    /// When it was decided.
    pub decided_at: Time,
    /// When it ended for its clients, where a participant is still to be notified of
    /// what an operator resolved.
    pub ended_at: Option<Time>,
    /// What it holds until its end.
    pub locks: Vec<HeldLock>,
    /// The branches as they are told from here on.
    pub branches: Vec<DecisionBranch>,
    /// How they were enlisted, where that may be repeated.
    pub calls: Vec<EnlistCall>,
    /// Why it was aborted.
    pub reason: Option<Arc<Reason>>,
    /// What was done by an operator so far.
    pub interventions: Vec<Intervention>,
    /// What happened, this decision included.
    pub trail: Vec<TrailEvent>,
}

/// A branch of a [`DecisionRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionBranch {
    /// Where it is.
    pub participant: ParticipantId,
    /// How far it is.
    pub state: BranchState,
    /// The journal that voted, and that alone may acknowledge.
    pub journal: Option<JournalId>,
    /// What prepare returned.
    pub output: Option<Opaque>,
    /// Its vote to abort.
    pub refusal: Option<Arc<Reason>>,
    /// Whether its participant asks when in doubt.
    pub supports_inquiry: bool,
    /// What was decided of it by an operator.
    pub resolved: Option<bool>,
    /// Its participant is still to be notified of that, and nobody waits for it.
    pub notify: bool,
}

/// See [`Record::End`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRecord {
    /// The transaction.
    pub id: TransactionId,
    /// When it ended.
    pub ended_at: Time,
    /// How each branch ended.
    pub branches: Vec<BranchState>,
    /// Whether a promise was broken, or may have been.
    pub heuristic: bool,
    /// Whether somebody has to say so before it may be forgotten.
    pub kept: bool,
    /// Branches whose participants never will be notified, as an operator says.
    pub abandoned: Vec<u32>,
    /// What happened since the decision.
    pub trail: Vec<TrailEvent>,
}

/// A record of locks that a client holds by itself. A later one of the same session
/// replaces the earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionRecord {
    /// What it holds.
    Held {
        /// The session.
        id: SessionId,
        /// See [`SessionCall::Acquire`](crate::SessionCall::Acquire).
        age: TransactionId,
        /// The key of the call that began it.
        key: Option<CallKey>,
        /// How long, unless it is renewed.
        lease: Duration,
        /// All locks of the session, with their tokens.
        locks: Vec<HeldLock>,
    },
    /// Nothing is held any more.
    Released(SessionId),
}
