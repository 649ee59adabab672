//! The journal: what must survive, and how it is asked.

pub mod body;
pub(crate) mod codec;
mod disk;
mod memory;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use dtc_core::{Fingerprint, Intervention, RequestKey};
use dtc_protocol::{CoordinatorId, SessionId, TransactionId, fence::Run};

use crate::address::Address;
pub use codec::{Damaged, DamagedSession};
pub use memory::MemoryJournal;
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
    /// Replaces nothing.
    Begin { id: TransactionId, key: Option<Key>, body: Vec<u8> },
    /// Replaces the begin entry.
    Decision { id: TransactionId, key: Option<Key>, body: Vec<u8> },
    /// Ends the transaction. Neither what somebody has to look at first is forgotten by
    /// itself, nor what a participant is yet to be notified of.
    End { id: TransactionId, keep: Keep, body: Vec<u8> },
    /// Locks of a session; replaces what it held.
    Session { id: SessionId, body: Vec<u8> },
    /// Ends a session.
    SessionEnd { id: SessionId },
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
    pub id: TransactionId,
    pub begin: Option<Vec<u8>>,
    pub decision: Option<Vec<u8>>,
    pub end: Option<Vec<u8>>,
}

/// What a participant can do, where there is no stream over which it tells.
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
    pub name: String,
    pub address: Address,
    pub capabilities: Capabilities,
    /// How long it is good unless it is renewed; none for without end. Begins anew
    /// at each start, since no clock goes on while the process is not there.
    pub lease: Option<Duration>,
    pub draining: bool,
}

impl Registration {
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

/// Called when what was appended is durable.
pub type Durable = Box<dyn FnOnce() + Send>;

/// The coordinator's durable memory. One coordinator at a time may append: a
/// store that finds another one's run stops this one (rule 10).
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Whose journal it is.
    fn coordinator(&self) -> CoordinatorId;

    /// This run.
    fn run(&self) -> Run;

    /// Whether a run was one of this journal's.
    fn was_mine(&self, run: &Run) -> bool;

    /// Whether another run has taken the journal over since.
    async fn is_replaced(&self) -> Result<bool, JournalError>;

    /// Appends entries as one, conditional on this run's being the journal's
    /// newest. `sync` ones are waited for; others may ride in a later batch.
    /// After a failure `durable` is never called.
    fn append(&self, entries: Vec<Entry>, sync: bool, durable: Durable);

    /// The transactions that used these request keys, in their order.
    async fn find_keys(&self, keys: Vec<RequestKey>) -> Result<Vec<Option<User>>, JournalError>;

    /// A transaction, whether unfinished or finished.
    async fn find(&self, id: TransactionId) -> Result<Option<Stored>, JournalError>;

    /// What is known of a transaction that a run of this journal, with this epoch,
    /// began.
    async fn recall(&self, id: TransactionId, epoch: u64) -> Result<Recalled, JournalError>;

    /// A participant that had never acknowledged how its branch ended has been given
    /// the answer. Kept with a later batch.
    fn notified(&self, id: TransactionId, branch: u32);

    /// Finished transactions before `before`, newest first.
    async fn finished(
        &self,
        before: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<Stored>, JournalError>;

    /// All that is unfinished, oldest first.
    async fn unfinished(&self) -> Result<Vec<Stored>, JournalError>;

    /// Of the unfinished, those that a backup held as begun: what was decided since is
    /// not known, so that they are not taken up.
    async fn lost(&self) -> Result<Vec<Stored>, JournalError>;

    /// All sessions that hold locks, with their bodies.
    async fn sessions(&self) -> Result<Vec<(SessionId, Vec<u8>)>, JournalError>;

    /// The newest transaction of all.
    async fn newest(&self) -> Result<Option<TransactionId>, JournalError>;

    /// Registers a participant, durably.
    async fn register(&self, registration: Registration) -> Result<(), JournalError>;

    /// Forgets a participant, durably.
    async fn deregister(&self, name: &str) -> Result<(), JournalError>;

    /// All registered participants.
    async fn registered(&self) -> Result<Vec<Registration>, JournalError>;

    /// Gives a finished transaction that is kept for an operator back to retention,
    /// durably, with what was done added to it. False where none is kept so. It goes
    /// only once its participants were notified, too.
    async fn release(&self, id: TransactionId, done: Intervention) -> Result<bool, JournalError>;

    /// Forgets at most `limit` finished transactions, and remembers up to which one it
    /// did so.
    async fn forget(&self, retention: Retention, limit: usize) -> Result<Forgotten, JournalError>;

    /// Has the time that this journal's service has run kept with a later batch.
    fn keep_time(&self);

    /// How many finished transactions are kept: for operators, and for participants.
    fn kept(&self) -> (u64, u64);

    /// Wall-clock time since 1970, by the journal's own clock.
    fn now(&self) -> Duration;

    /// Whether there is room for new work.
    fn has_room(&self) -> bool;

    /// Writes all that was appended and lets go.
    async fn close(&self);
}
