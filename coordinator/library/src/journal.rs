//! The journal: what must survive, and how it is asked.
//!
//! [`Journal`] is what a store has to do; [`MemoryJournal`] and [`SqliteJournal`] are the
//! stores that there are. The module `conformance` (feature `journal-conformance`) has the
//! rules as tests, for these two and for any other.
//!
//! Bodies are opaque to a store: it gives back the bytes that it was given. What it has to
//! know of a transaction stands beside them, in the [`Entry`]; where it has to change a
//! body, [`body`] does that.

pub mod body;
pub(crate) mod codec;
#[cfg(any(test, feature = "journal-conformance"))]
pub mod conformance;
mod disk;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use dtc_core::{Fingerprint, Intervention, RequestKey};
use dtc_protocol::{CoordinatorId, SessionId, TransactionId, fence::Run};

use crate::address::Address;
pub use codec::{Damaged, DamagedSession};
pub use memory::MemoryJournal;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteJournal;

/// Why the journal has no answer.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The process is being stopped.
    #[error("the journal is closed, the coordinator is being stopped")]
    Closed,
    /// The storage fails.
    #[error("the journal cannot be read or written: {0}")]
    Failed(String),
    /// The storage holds what was not written there.
    #[error("{0}")]
    Damaged(String),
}

/// A record as it is written, names and all.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Begins a transaction, or begins it again with another body. Few have one.
    Begin {
        /// The transaction.
        id: TransactionId,
        /// Whose key it takes.
        key: Option<Key>,
        /// To be given back.
        body: Vec<u8>,
    },
    /// Decides a transaction. Replaces its begin, and an earlier decision of it.
    Decision {
        /// The transaction.
        id: TransactionId,
        /// Whose key it takes, the begin's if there was one.
        key: Option<Key>,
        /// To be given back.
        body: Vec<u8>,
    },
    /// Ends a transaction that was decided; it stays beside the decision. Comes once.
    End {
        /// The transaction.
        id: TransactionId,
        /// Why retention may not take it.
        keep: Keep,
        /// To be given back, changed by [`body`] only.
        body: Vec<u8>,
    },
    /// A client's session holds locks; replaces what it held.
    Session {
        /// The session.
        id: SessionId,
        /// To be given back.
        body: Vec<u8>,
    },
    /// Ends a session.
    SessionEnd {
        /// The session.
        id: SessionId,
    },
}

/// Why a finished transaction is kept from retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Until an operator releases it.
    pub operator: bool,
    /// Until each participant has been notified.
    pub unnotified: bool,
}

/// What the journal knows of a transaction that a participant asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// It is here.
    Stored(Box<Stored>),
    /// It was never written here.
    Never,
    /// It may have been here: it is older than what was removed, or of a run whose
    /// end is not in a journal that was restored.
    Forgotten,
}

/// A request key, with its body's fingerprint.
pub type Key = (String, Fingerprint);

/// What the journal holds of a transaction: the bodies of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The transaction.
    pub id: TransactionId,
    /// Its begin's, until it is decided.
    pub begin: Option<Vec<u8>>,
    /// Its newest decision's.
    pub decision: Option<Vec<u8>>,
    /// Its end's; none while it is unfinished.
    pub end: Option<Vec<u8>>,
}

/// What a participant can do, where no link says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Ask when in doubt.
    pub supports_inquiry: bool,
    /// Undo what it has committed.
    pub compensates: bool,
}

/// A participant that was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its name, which is the key.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// What it can do.
    pub capabilities: Capabilities,
    /// How long it is good unless it is renewed; none for without end. Begins anew
    /// at each start, since no clock goes on while the process is not there.
    pub lease: Option<Duration>,
    /// Whether it takes no new work, and goes when what is unfinished there has ended.
    pub draining: bool,
}

impl Registration {
    /// One that is good until it is taken away.
    pub fn permanent(
        name: impl Into<String>,
        address: Address,
        capabilities: Capabilities,
    ) -> Self {
        Self { name: name.into(), address, capabilities, lease: None, draining: false }
    }
}

/// What clean-up is to leave. Ages are service time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// What ended longer ago may go.
    pub age: Duration,
    /// Above this size the oldest go sooner ...
    pub max_bytes: u64,
    /// ... but none that ended after this.
    pub floor: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let (age, floor) = (Duration::from_secs(24 * 60 * 60), Duration::from_secs(600));
        Self { age, max_bytes: 4 << 30, floor }
    }
}

/// What a step of clean-up did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Transactions that are gone.
    pub count: usize,
    /// Of these, removed before their time, because the journal was too large.
    pub early: usize,
    /// Of these, participants of which were never notified: the oldest, where there
    /// are more than are kept.
    pub unnotified: usize,
    /// There may be more to do at once.
    pub more: bool,
    /// The journal is larger than it should be.
    pub too_large: bool,
}

/// The transaction that used a request key, and with which body.
pub type User = (TransactionId, Fingerprint);

/// Called when what was appended is durable. It does not block.
pub type Durable = Box<dyn FnOnce() + Send>;

/// The coordinator's durable memory.
///
/// # What a store promises
///
/// - **One run writes.** Opening a journal is a new run: its epoch is higher than any
///   before, its incarnation drawn at random, both durable before it is used. Every write
///   is conditional, in the same atomic step, on this run's being the newest. A run that
///   finds a newer one writes nothing any more, calls nobody back and ends its coordinator
///   (as the store was opened: the process, or what embeds it).
/// - **Durable means that it survives** the loss of whatever the store is meant to survive
///   (SQLite: the process and the machine's power), *and* that every later read, of this run
///   or the next, finds it. `durable` is called only then.
/// - **Fail stop.** After an error whose effect is not known (a failed commit, a failed
///   sync) no `durable` is called, nothing is written, and the coordinator is ended. It
///   learns by its next start what is there.
/// - **In order.** Appends take effect in the order of the calls, each as a whole, and what
///   is durable is always a prefix of them. `durable` is called in that order, too. What is
///   written by other methods need not be in order with them.
/// - **Nobody reads what is not durable.** Reads find all that was reported durable, and
///   nothing that a crash could still take away.
/// - **Keys are unique.** A request key is that of the transaction that took it last, from
///   that transaction's first entry with the key until it is forgotten. Both is one step.
/// - **Damage is found.** A row that is not what was written is answered with
///   [`JournalError::Damaged`], which names it, and only to those who ask for it; one among
///   what is unfinished fails the start.
/// - **Nothing is forgotten too early.** See [`forget`](Self::forget): ages are time that
///   this journal's service has run, over all runs, whatever the wall clock does; what is
///   unfinished or kept stays, whatever its age; and a watermark says up to which id
///   something was removed, so that 'unknown' below it is not taken for 'never was'.
///
/// Calls come from one coordinator, in many tasks at once; none of them waits for another.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Whose journal it is: made with it, and the same in all runs. A journal that does
    /// not outlive its process has a new one at each start.
    fn coordinator(&self) -> CoordinatorId;

    /// This run.
    fn run(&self) -> Run;

    /// Whether a run was one of this journal's, this one included.
    fn was_mine(&self, run: &Run) -> bool;

    /// Whether another run has taken the journal over since.
    async fn is_replaced(&self) -> Result<bool, JournalError>;

    /// Appends entries as one, conditional on this run's being the journal's newest, and
    /// returns at once. With `sync` it is made durable as soon as may be; without, it may
    /// wait for a short time, to ride in a batch that is. After a failure `durable` is
    /// never called.
    fn append(&self, entries: Vec<Entry>, sync: bool, durable: Durable);

    /// The transactions that used these request keys, in their order; none for those that
    /// nobody uses.
    ///
    /// # Errors
    ///
    /// [`JournalError::Damaged`] where one of them cannot be read.
    async fn find_keys(&self, keys: Vec<RequestKey>) -> Result<Vec<Option<User>>, JournalError>;

    /// A transaction, whether unfinished or finished.
    async fn find(&self, id: TransactionId) -> Result<Option<Stored>, JournalError>;

    /// What is known of a transaction that a run of this journal, with this epoch,
    /// began. It is [`Recalled::Never`] only where no such transaction was ever written and
    /// durable: its id is above the watermark, and the journal was not restored from a
    /// backup in a later run than that one.
    async fn recall(&self, id: TransactionId, epoch: u64) -> Result<Recalled, JournalError>;

    /// A participant that had never acknowledged how its branch ended has been given
    /// the answer ([`body::with_notified`]). Kept with a later batch; it may be lost. With
    /// the last of them the transaction is no longer kept for them, and its age begins
    /// anew.
    fn notified(&self, id: TransactionId, branch: u32);

    /// At most `limit` finished transactions before `before`, newest first.
    async fn finished(
        &self,
        before: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<Stored>, JournalError>;

    /// All that is unfinished and not [lost](Self::lost), oldest first. What this costs
    /// follows from how much that is, not from how much is finished.
    async fn unfinished(&self) -> Result<Vec<Stored>, JournalError>;

    /// Of the unfinished, those that a backup held as begun: what was decided since is
    /// not known, so that they are not taken up. A decision that is appended makes one a
    /// transaction like any other.
    async fn lost(&self) -> Result<Vec<Stored>, JournalError>;

    /// All sessions that hold locks, with their bodies.
    async fn sessions(&self) -> Result<Vec<(SessionId, Vec<u8>)>, JournalError>;

    /// The newest transaction of all.
    async fn newest(&self) -> Result<Option<TransactionId>, JournalError>;

    /// Registers a participant, durably; in the place of one with its name.
    async fn register(&self, registration: Registration) -> Result<(), JournalError>;

    /// Forgets a participant, durably.
    async fn deregister(&self, name: &str) -> Result<(), JournalError>;

    /// All registered participants.
    async fn registered(&self) -> Result<Vec<Registration>, JournalError>;

    /// Gives a finished transaction that is kept for an operator back to retention,
    /// durably, with what was done added to it ([`body::with_intervention`]). False where
    /// none is kept so. It goes only once its participants were notified, too.
    async fn release(&self, id: TransactionId, done: Intervention) -> Result<bool, JournalError>;

    /// Forgets at most `limit` finished transactions, with their keys: those that ended
    /// longer ago than `retention.age`, and while the journal is larger than
    /// `retention.max_bytes` the oldest of those that ended longer ago than
    /// `retention.floor`, too. None that is [kept](Keep), but that a store may bound how
    /// many it keeps for participants. In the step that removes them, durably, the
    /// watermark rises to the newest of them. A store may take them a little later than
    /// their time, never sooner.
    async fn forget(&self, retention: Retention, limit: usize) -> Result<Forgotten, JournalError>;

    /// Has the time that this journal's service has run kept with a later batch.
    fn keep_time(&self);

    /// How many finished transactions are kept: for operators, and for participants.
    fn kept(&self) -> (u64, u64);

    /// Wall-clock time since 1970, by the journal's own clock. For people.
    fn now(&self) -> Duration;

    /// Whether there is room for new work. What was begun goes on without.
    fn has_room(&self) -> bool;

    /// Writes all that was appended and lets go. Nothing is appended after it.
    async fn close(&self);
}
