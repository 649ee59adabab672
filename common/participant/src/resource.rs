//! What a participant has to write itself: its domain.

use dtc_proto::Descriptors;
use dtc_protocol::BranchId;
use prost::{Message, Name};
use rusqlite::Transaction;

/// The resource that a participant manages: stock, accounts, orders.
///
/// All methods get the SQLite transaction in which the kit writes its own
/// journal, so that record and effect are one atomic write. They run on the
/// storage's thread: no waiting, no I/O but the transaction, and in it no change of
/// the schema. What they wrote is undone when they return an error; a method may be
/// called again for the same branch after what it wrote was undone.
///
/// A panic counts as an error: prepare votes to abort with the code
/// `PARTICIPANT_PANICKED`, commit and rollback are not acknowledged and tried again. The
/// process goes on, and so does every other branch. Tables are undone, memory is not: a
/// `Mutex` that was held is poisoned, and what it guards may be half changed. Keep state
/// in the tables, or take such locks with `PoisonError::into_inner` where a half change
/// does no harm.
pub trait ResourceManager: Send + Sync + 'static {
    /// The participant's role, such as `inventory`: names its file, and the
    /// reasons of its refusals.
    const NAME: &'static str;
    /// `CREATE TABLE IF NOT EXISTS ...` for the domain's own tables; run at every
    /// start.
    const SCHEMA: &'static str;
    /// What a client asks a branch to do.
    type Payload: Message + Name + Default;
    /// What prepare finds out and commit and rollback need; `()` for nothing.
    type Output: Message + Default;
    /// Whether it can undo what it has committed, by [`compensate`](Self::compensate):
    /// transactions with the commit policy 'compensate' are refused otherwise.
    const COMPENSATES: bool = false;

    /// What describes the payload and the service's own calls: for payloads typed as JSON,
    /// and for reflection.
    fn descriptors() -> &'static Descriptors;

    /// Checks the payload and reserves what it needs. [`Vote::Commit`] is a
    /// promise: commit and rollback of what was reserved must be possible
    /// whatever happens.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] is the same as [`Vote::Abort`]; the others are votes to
    /// abort too, and counted as the domain's failures.
    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        payload: &Self::Payload,
    ) -> Result<Vote<Self::Output>, Error>;

    /// The keys that a branch with this payload has for itself from its prepare to its
    /// decision: no other transaction's prepare is called meanwhile that wants one of
    /// them. For what can't be reserved in part; none by default. Of the payload alone.
    ///
    /// A branch that finds a key taken waits if its transaction is older, and is
    /// refused with the code `DEADLOCK` if it is younger; the client tries again with
    /// `retry_of`. Called before [`Self::prepare`], so with payloads that may make no
    /// sense. They are kept with the promise, so that they are held after a restart
    /// whatever this returns then.
    fn locks(&self, payload: &Self::Payload) -> Vec<String> {
        let _ = payload;
        Vec::new()
    }

    /// Makes what was reserved final. Cannot refuse.
    ///
    /// # Errors
    ///
    /// An error is not acknowledged; the kit tries again until it succeeds.
    fn commit(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        payload: &Self::Payload,
        output: &Self::Output,
    ) -> Result<(), Error>;

    /// Gives back what was reserved. Cannot refuse.
    ///
    /// # Errors
    ///
    /// An error is not acknowledged; the kit tries again until it succeeds.
    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        payload: &Self::Payload,
        output: &Self::Output,
    ) -> Result<(), Error>;

    /// Undoes what was committed: returns the stock, refunds the money. Where
    /// [`COMPENSATES`](Self::COMPENSATES), it cannot refuse.
    ///
    /// # Errors
    ///
    /// An error is not acknowledged; the coordinator sends it again until it succeeds.
    fn compensate(
        &self,
        _transaction: &Transaction<'_>,
        _branch: &BranchId,
        _payload: &Self::Payload,
        _output: &Self::Output,
    ) -> Result<(), Error> {
        Err(Error::Inconsistent("this participant cannot undo a committed branch"))
    }
}

/// The answer to prepare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vote<O> {
    /// Reserved; the output is handed back with the decision.
    Commit(O),
    /// Nothing was changed or reserved, and nothing that was checked has to
    /// stay as it is: no second phase.
    ReadOnly,
    /// It cannot be done.
    Abort(Refusal),
}

/// Why a branch cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A constant in capitals, such as `OUT_OF_STOCK`.
    pub code: &'static str,
    /// A sentence: which field, which value, what would be right.
    pub message: String,
}

impl Refusal {
    /// With a code in capitals and a sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Why a domain's method failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Prepare: it cannot be done. Compensate: not now, since others were promised
    /// that it stays as it is.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The tables hold what they should not.
    #[error("the tables are inconsistent: {0}")]
    Inconsistent(&'static str),
    /// The domain's code panicked, with this message. Made by the kit.
    #[error("the participant's own code panicked: {0}")]
    Panicked(String),
}
