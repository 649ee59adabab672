//! What the driver tells the machine.

use core::time::Duration;

use dtc_protocol::{JournalId, SessionId, TransactionId};

use crate::{
    AnswerAt, CallKey, Failure, Fingerprint, Intervention, LockKey, LockMode, Opaque, Options,
    ParticipantId, Reason, Sequence, Time, Waiter,
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client wants a transaction.
    Begin(Box<Begin>),
    /// A client drives a transaction that it began, or looks at one.
    Client {
        /// The transaction.
        id: TransactionId,
        /// The call's number.
        token: u64,
        /// What it wants.
        call: Client,
    },
    /// A client takes locks for itself, or does something with those that it has.
    Session {
        /// The session: new, or one that a client was told of.
        id: SessionId,
        /// The call's number.
        token: u64,
        /// What it wants.
        call: SessionCall,
    },
    /// The journal was asked for a request key.
    KeyFound {
        /// The run that waits for it.
        id: TransactionId,
        /// The finished or recovered transaction that used the key.
        found: Option<(TransactionId, Fingerprint)>,
    },
    /// What the journal holds of a request key cannot be read.
    KeyUnreadable {
        /// The run that waits for it.
        id: TransactionId,
        /// What is wrong with it.
        why: String,
    },
    /// A participant answered prepare.
    Voted {
        /// The participant that answered.
        from: ParticipantId,
        /// With which journal; none where it names none.
        journal: Option<JournalId>,
        /// For which transaction.
        id: TransactionId,
        /// For which branch.
        branch: u32,
        /// Its vote, with the output of prepare or the reason of a refusal.
        vote: Vote,
    },
    /// A participant answered commit or rollback.
    Acknowledged {
        /// The participant that answered.
        from: ParticipantId,
        /// With which journal; none where the answer (a refusal) names none.
        journal: Option<JournalId>,
        /// For which transaction.
        id: TransactionId,
        /// For which branch.
        branch: u32,
        /// The number of the decision that it answers.
        number: u32,
        /// What it did.
        acknowledgement: Acknowledgement,
    },
    /// An attempt came to nothing: it could not be handed to its participant, got no
    /// answer, or one that says nothing about the branch.
    Unreachable {
        /// The participant.
        participant: ParticipantId,
        /// The transaction of the message.
        id: TransactionId,
        /// The branch of the message.
        branch: u32,
        /// Which attempt, as in [`Action::Send`](crate::Action::Send): it ends no later one.
        attempt: u32,
        /// The failure.
        why: Failure,
    },
    /// A participant can be reached, on a new link.
    Connected {
        /// The participant.
        participant: ParticipantId,
        /// Whether it asks when in doubt.
        supports_inquiry: bool,
        /// Whether it can undo what it has committed.
        compensates: bool,
        /// Its journal; none where the link does not tell.
        journal: Option<JournalId>,
    },
    /// A participant's link is gone.
    Disconnected {
        /// The participant.
        participant: ParticipantId,
        /// Why, as far as that is known; empty where nothing went wrong.
        why: Arc<str>,
    },
    /// All records up to this one are on disk.
    Durable {
        /// The last of them.
        up_to: Sequence,
    },
    /// A participant in doubt asks about a branch that a run of this
    /// coordinator prepared (the shell has checked that).
    Inquired {
        /// Who is to be answered.
        from: Inquirer,
        /// The transaction.
        id: TransactionId,
        /// The branch.
        branch: u32,
        /// The epoch of the run that prepared it.
        epoch: u64,
    },
    /// The journal was asked about a transaction that a participant asks for.
    Found {
        /// Who is to be answered.
        to: Inquirer,
        /// The transaction.
        id: TransactionId,
        /// The branch.
        branch: u32,
        /// What the journal knows.
        found: Found,
    },
    /// Time has passed.
    Tick,
}

/// A new transaction.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Its id, greater than all before.
    pub id: TransactionId,
    /// Where it stands in age, wherever transactions wait for each other: its own
    /// id, or that of the first of which it is a retry.
    pub age: TransactionId,
    /// The client's key, with the body's fingerprint.
    pub key: Option<CallKey>,
    /// Whether it may be begun. Otherwise its key is looked for only, and it is
    /// answered with [`Reply::NoRepeat`](crate::Reply::NoRepeat) where that is new.
    pub admitted: bool,
    /// How it is run.
    pub options: Box<Options>,
    /// Its branches; none for an interactive one.
    pub branches: Vec<NewBranch>,
    /// What it locks before anything is sent; none for an interactive one.
    pub locks: Vec<(LockKey, LockMode)>,
    /// Driven by its client, call by call.
    pub interactive: bool,
    /// Its client may get its id before the outcome, and ask for it after a crash:
    /// the begin record goes first (rule 5).
    pub id_may_be_known: bool,
    /// The client's trace, handed on with each message while the process runs.
    pub trace: Option<Opaque>,
    /// Who is answered. An interactive one is answered when its begin record is
    /// durable.
    pub waiter: Waiter,
}

/// A branch that a client names.
#[derive(Debug, Clone)]
pub struct NewBranch {
    /// Where it is.
    pub participant: ParticipantId,
    /// What it is to do.
    pub payload: Opaque,
    /// Its participant can commit in one call; and can so be asked whether it did.
    pub one_phase: bool,
}

/// What a client wants of a transaction in memory.
#[derive(Debug, Clone)]
pub enum Client {
    /// Add a branch.
    Enlist {
        /// Which; none where it was not admitted, and its key is looked for only.
        branch: Option<NewBranch>,
        /// Makes it safe to repeat.
        key: Option<CallKey>,
    },
    /// Take locks, while branches may be enlisted.
    Lock {
        /// All of these or none; nothing where they were not admitted, and the key is
        /// looked for only.
        locks: Option<Vec<(LockKey, LockMode)>>,
        /// Makes it safe to repeat.
        key: Option<CallKey>,
        /// How long to wait.
        until: Time,
    },
    /// The call that waits for locks is gone.
    GiveUpLocking,
    /// Collect the votes.
    Prepare {
        /// How long to wait.
        until: Time,
    },
    /// Commit it.
    Commit {
        /// When to answer.
        at: AnswerAt,
        /// How long to wait.
        until: Time,
    },
    /// Roll it back.
    Rollback {
        /// When to answer.
        at: AnswerAt,
        /// How long to wait.
        until: Time,
    },
    /// Show it, with its trail.
    Get,
    /// Resolve it, or a branch of it: `intervention` says how. It is done once
    /// that is durable.
    Resolve {
        /// Commit or rollback, by whom and why.
        intervention: Intervention,
        /// How long to wait.
        until: Time,
    },
    /// Notify participants of what an operator resolved no more: they never will be.
    /// Only where it has ended; it is done once that is durable.
    Abandon {
        /// Of which branch, by whom and why.
        intervention: Intervention,
        /// How long to wait.
        until: Time,
    },
    /// Send what is owed now, whatever wait was planned.
    Retry {
        /// By whom and why.
        intervention: Intervention,
    },
}

/// What a client wants of locks of its own.
#[derive(Debug, Clone)]
pub enum SessionCall {
    /// Begin a session with all of these locks or none.
    Acquire {
        /// Where it stands in age: its own id, or that of the first try.
        age: TransactionId,
        /// What to lock; nothing where that was not admitted, and the key is looked
        /// for only.
        locks: Option<Vec<(LockKey, LockMode)>>,
        /// Makes it safe to repeat: with the same key and body it is the same session,
        /// by whatever id it comes.
        key: Option<CallKey>,
        /// How long they are held unless they are renewed.
        lease: Duration,
        /// How long to wait for them.
        until: Time,
    },
    /// Begin the lease anew.
    Renew,
    /// Release these keys; all of them where none is named.
    Release(Vec<LockKey>),
    /// The call that began it is gone.
    GiveUp,
}

/// A participant's answer to prepare.
#[derive(Debug, Clone)]
pub enum Vote {
    /// A durable promise.
    Commit {
        /// To be handed back with the decision.
        output: Option<Opaque>,
        /// One phase: the effect is final.
        committed: bool,
    },
    /// A refusal, with nothing left behind.
    Abort(Arc<Reason>),
    /// Nothing changed, no phase two.
    ReadOnly,
}

/// What a participant did with a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The branch is committed.
    Committed,
    /// The branch is rolled back.
    RolledBack,
    /// The branch is unknown.
    Unknown,
    /// It failed and may be sent again.
    Failed(String),
}

/// Who asks for the outcome of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inquirer {
    /// A participant, over its link.
    Link(ParticipantId),
    /// A call, by its number.
    Call(u64),
}

/// What the journal knows of a transaction that is not in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What became of it.
    Branch(FoundBranch),
    /// Nothing was ever decided: it is presumed aborted.
    Nothing,
    /// What was decided may have been removed since, or lost with a disk. Nothing may
    /// be presumed.
    Forgotten,
}

impl From<Option<FoundBranch>> for Found {
    /// For a journal that forgets nothing.
    fn from(found: Option<FoundBranch>) -> Self {
        found.map_or(Self::Nothing, Self::Branch)
    }
}

/// A branch of a transaction that the journal knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBranch {
    /// The decision.
    pub commit: bool,
    /// Its number.
    pub number: u32,
    /// What prepare returned.
    pub output: Option<Opaque>,
    /// Whether the transaction has such a branch.
    pub known: bool,
    /// What was decided of this branch by an operator.
    pub resolved: Option<bool>,
}
