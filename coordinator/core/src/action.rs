//! What the machine wants done.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::time::Duration;

use dtc_protocol::{SessionId, TransactionId};

use crate::{
    Blocked, HeldLock, Inquirer, LockOwner, Opaque, ParticipantId, Reason, Record, RequestKey,
    Sequence, SessionRecord, TrailEvent, TransactionState, View,
};

/// Something to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Write a record; report it with `Event::Durable`. Records are written in
    /// the order of their sequence numbers.
    Append {
        /// Its place.
        sequence: Sequence,
        /// What to write.
        record: Box<Record>,
        /// Whether somebody waits for it; otherwise it may ride with others.
        sync: bool,
    },
    /// The same with a record of a session.
    AppendSession {
        /// Its place, in the same order.
        sequence: Sequence,
        /// What to write.
        record: Box<SessionRecord>,
        /// Whether somebody waits for it.
        sync: bool,
    },
    /// Ask the journal for a request key; answer with `Event::KeyFound`,
    /// or `Event::KeyUnreadable`.
    LookupKey {
        /// The run that waits.
        id: TransactionId,
        /// The key.
        key: RequestKey,
    },
    /// Ask the journal for a transaction; answer with `Event::Found`.
    Lookup {
        /// Who asks.
        from: Inquirer,
        /// The transaction.
        id: TransactionId,
        /// The branch.
        branch: u32,
        /// The epoch of the run that prepared it.
        epoch: u64,
    },
    /// Send a message to a participant, once.
    Send {
        /// The receiver.
        to: ParticipantId,
        /// The transaction.
        id: TransactionId,
        /// The branch.
        branch: u32,
        /// Which attempt of the branch this is, counted over all its messages.
        attempt: u32,
        /// The request, with its payload or output.
        message: Message,
        /// How long the attempt may take.
        timeout: Duration,
        /// The client's trace.
        trace: Option<Opaque>,
    },
    /// Answer a client's call.
    Reply {
        /// The call's number.
        token: u64,
        /// The answer.
        reply: Reply,
    },
    /// Answer a participant in doubt.
    Answer {
        /// The receiver.
        to: Inquirer,
        /// The transaction.
        id: TransactionId,
        /// The branch.
        branch: u32,
        /// The outcome of the branch.
        outcome: BranchOutcome,
    },
    /// Something happened that people may want to know; nothing has to be done.
    Happened {
        /// The transaction.
        id: TransactionId,
        /// The event, as the trail has it.
        event: TrailEvent,
        /// The participant that it concerns, where there is one.
        participant: Option<ParticipantId>,
        /// The reason of an abort or of a failed attempt.
        reason: Option<Arc<Reason>>,
        /// For a decision, since the transaction was begun; for its end, since
        /// the decision; otherwise zero.
        took: Duration,
    },
}

/// A message to a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Promise the branch.
    Prepare {
        /// What it is to do.
        payload: Opaque,
        /// Commit it at once.
        one_phase: bool,
        /// Its commit may be compensated.
        may_compensate: bool,
        /// The transaction's age: see [`Begin::age`](crate::Begin::age).
        age: TransactionId,
    },
    /// Make it final.
    Commit {
        /// The decision's number.
        number: u32,
        /// What prepare returned.
        output: Option<Opaque>,
    },
    /// Undo it.
    Rollback {
        /// The decision's number.
        number: u32,
        /// What prepare returned, where known.
        output: Option<Opaque>,
        /// The decision was compensated: undo it even if it is committed.
        compensate: bool,
    },
}

/// The answer to a client.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An interactive transaction was begun.
    Begun(TransactionId),
    /// A branch was added, under this number.
    Enlisted(u32),
    /// The locks that were asked for are held.
    Locked {
        /// By whom.
        owner: LockOwner,
        /// What was asked for; after a renewal all that is held.
        locks: Vec<HeldLock>,
        /// For how long, unless they are renewed; none for a transaction.
        lease: Option<Duration>,
    },
    /// So many locks were released.
    Released(usize),
    /// The transaction as it is.
    Transaction(Box<View>),
    /// The request key belongs to this transaction, which the journal knows.
    See(TransactionId),
    /// The call repeats none that was answered, and as a new one it was not admitted.
    /// Nothing was changed.
    NoRepeat,
    /// No such transaction in memory: the journal is to be asked.
    NotHere,
    /// It can't be done.
    Refused(Refused),
}

/// Why a client's call was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The key belongs to a request with another body.
    KeyTaken(RequestKey),
    /// Whose the key is cannot be read: the request may have been run before.
    KeyUnreadable(String),
    /// Too many transactions.
    TooManyInFlight {
        /// The bound.
        limit: usize,
    },
    /// Too many unfinished transactions at one participant.
    TooManyAtParticipant {
        /// The participant at its bound.
        participant: ParticipantId,
        /// The bound.
        limit: usize,
    },
    /// Too many bytes of payloads and outputs in memory.
    TooManyBytes {
        /// The bound.
        limit: usize,
    },
    /// Too many request keys are being looked for.
    TooManyRepeats {
        /// The bound.
        limit: usize,
    },
    /// Too many calls with keys for one transaction.
    TooManyCalls {
        /// The bound.
        limit: usize,
    },
    /// Too many branches in one transaction.
    TooManyBranches {
        /// The bound.
        limit: usize,
    },
    /// It was retried by an operator too often.
    TooManyRetries {
        /// The bound.
        limit: usize,
    },
    /// Too many locks are held and waited for.
    TooManyLocks {
        /// The bound.
        limit: usize,
    },
    /// Too many locks of one transaction.
    TooManyLocksOfOne {
        /// The bound.
        limit: usize,
    },
    /// The transaction waits for locks; one call at a time.
    WaitsForLocks,
    /// The locks cannot be had without a deadlock. A transaction is aborted.
    Deadlock {
        /// Who is in the way.
        blocked: Blocked,
        /// The age that a retry should keep.
        first: TransactionId,
    },
    /// The wait for locks has ended.
    LockTimeout(String),
    /// No such session: it was released, or its lease has run out.
    UnknownSession(SessionId),
    /// The transaction is not in a state that allows the call.
    WrongState {
        /// Where it is.
        state: TransactionState,
        /// The call, as in 'enlist'.
        call: &'static str,
    },
}

/// What a participant in doubt is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchOutcome {
    /// Commit it.
    Committed {
        /// The decision's number.
        number: u32,
        /// What prepare returned.
        output: Option<Opaque>,
    },
    /// Roll it back.
    Aborted {
        /// The decision's number.
        number: u32,
    },
    /// Ask again later.
    Pending,
    /// Not a branch of ours; stay in doubt.
    NotMine,
}
