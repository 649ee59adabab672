//! How the rest of the process talks to the driver.

use std::{sync::Arc, time::Duration};

use dtc_core::{
    AnswerAt, BranchOutcome, CallKey, Event, LockKey, LockMode, LockOwner, LockView, NewBranch,
    Opaque, Options, ParticipantId, Reply, RequestKey, SessionCall, Time, TrailEvent, View,
};
use dtc_protocol::{SessionId, TransactionId};
use dtc_runtime::Environment;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Call, Outgoing, input::Input, locks::WhichLocks};
use crate::{directory::Directory, journal::Journal};

/// Transactions that are listed in one turn of the driver.
pub(crate) const IN_ONE_TURN: usize = 256;

/// A transaction that a client asks for.
#[derive(Debug)]
pub(crate) struct NewTransaction {
    pub key: Option<CallKey>,
    /// What is to be done; none where it was not admitted, and its key is looked for
    /// only.
    pub work: Option<NewWork>,
    pub interactive: bool,
    pub id_may_be_known: bool,
    pub trace: Option<Opaque>,
    pub answer_at: AnswerAt,
}

/// What a transaction is to do, checked.
#[derive(Debug, Default)]
pub(crate) struct NewWork {
    pub retry_of: Option<TransactionId>,
    pub options: Box<Options>,
    pub branches: Vec<NewBranch>,
    pub locks: Vec<(LockKey, LockMode)>,
}

/// Locks that a client wants for itself.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub key: Option<CallKey>,
    /// None where it was not admitted, and its key is looked for only.
    pub work: Option<NewLocks>,
}

/// What a session is to hold, checked.
#[derive(Debug, Default)]
pub(crate) struct NewLocks {
    pub retry_of: Option<TransactionId>,
    pub locks: Vec<(LockKey, LockMode)>,
    pub lease: Duration,
}

/// Something happened to a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happened {
    pub id: TransactionId,
    pub event: TrailEvent,
}

/// The driver takes no calls any more: the process is being stopped, or has failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the coordinator is being stopped; the outcome will be known when it is back")]
pub struct Stopped;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    events: broadcast::Sender<Happened>,
    pub directory: Arc<Directory>,
    pub journal: Arc<dyn Journal>,
    pub environment: Environment,
}

impl Handle {
    pub(super) fn new(
        inputs: mpsc::Sender<Input>,
        events: broadcast::Sender<Happened>,
        directory: Arc<Directory>,
        journal: Arc<dyn Journal>,
        environment: Environment,
    ) -> Self {
        Self { inputs, events, directory, journal, environment }
    }

    /// Starts a transaction and waits for its answer.
    pub(crate) async fn begin(
        &self,
        new: NewTransaction,
        wait: Duration,
    ) -> Result<Reply, Stopped> {
        self.ask(|reply| Input::Begin { new, wait, reply }).await
    }

    /// Calls a transaction in memory.
    pub(crate) async fn call(
        &self,
        id: TransactionId,
        call: Call,
        wait: Duration,
    ) -> Result<Reply, Stopped> {
        self.ask(|reply| Input::Client { id, call, wait, reply }).await
    }

    /// Takes locks for an active transaction. They are wanted no more when this is
    /// dropped.
    pub(crate) async fn lock(
        &self,
        id: TransactionId,
        locks: Option<Vec<(LockKey, LockMode)>>,
        key: Option<CallKey>,
        wait: Duration,
    ) -> Result<Reply, Stopped> {
        let mut waits = Waits { inputs: &self.inputs, answered: false };
        let reply = self.call(id, Call::Lock { locks, key }, wait).await;
        waits.answered = true;
        reply
    }

    /// Begins a session with locks. They are wanted no more when this is dropped.
    pub(crate) async fn acquire(&self, new: NewSession, wait: Duration) -> Result<Reply, Stopped> {
        let mut waits = Waits { inputs: &self.inputs, answered: false };
        let reply = self.ask(|reply| Input::Acquire { new, wait, reply }).await;
        waits.answered = true;
        reply
    }

    /// Calls a session.
    pub(crate) async fn session(&self, id: SessionId, call: SessionCall) -> Result<Reply, Stopped> {
        self.ask(|reply| Input::Session { id, call, reply }).await
    }

    /// Locks after `after`, by key, and the time at which they are so.
    pub(crate) async fn list_locks(
        &self,
        prefix: String,
        owner: Option<LockOwner>,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Time, Vec<LockView>), Stopped> {
        let which = WhichLocks { prefix, owner, after, limit };
        self.ask(|reply| Input::ListLocks { which, reply }).await
    }

    /// What became of a branch that a run of this coordinator, with this epoch, prepared.
    pub(crate) async fn inquire(
        &self,
        id: TransactionId,
        branch: u32,
        epoch: u64,
    ) -> Result<BranchOutcome, Stopped> {
        self.ask(|reply| Input::Inquire { id, branch, epoch, reply }).await
    }

    /// At most `limit` transactions in memory before `before`, newest first. The driver
    /// does nothing else meanwhile.
    pub(crate) async fn list(
        &self,
        before: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<View>, Stopped> {
        self.ask(|reply| Input::List { before, limit, reply }).await
    }

    /// All transactions in memory, newest first, in many turns of the driver.
    pub(crate) async fn list_all(&self) -> Result<Vec<View>, Stopped> {
        let mut all: Vec<View> = Vec::new();
        loop {
            let page = self.list(all.last().map(|view| view.id), IN_ONE_TURN).await?;
            let is_last = page.len() < IN_ONE_TURN;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The transaction in memory that uses a request key.
    pub(crate) async fn user_of(&self, key: RequestKey) -> Result<Option<TransactionId>, Stopped> {
        self.ask(|reply| Input::UserOf { key, reply }).await
    }

    /// How many transactions a participant has unfinished.
    pub(crate) async fn unfinished(&self, participant: ParticipantId) -> Result<usize, Stopped> {
        self.ask(|reply| Input::Unfinished { participant, reply }).await
    }

    /// What participants said, in the order in which they said it.
    pub(crate) async fn events(&self, events: Vec<Event>) {
        let _ = self.inputs.send(Input::Events(events)).await;
    }

    /// From here on messages to the participant go into this queue.
    pub(crate) async fn link(&self, participant: ParticipantId, queue: mpsc::Sender<Outgoing>) {
        let _ = self.inputs.send(Input::Link { participant, queue }).await;
    }

    /// Has all calls that wait answered with what is known, and later ones at once.
    pub(crate) async fn end_waits(&self) {
        let _ = self.inputs.send(Input::EndWaits).await;
    }

    /// No link to the participant is there any more, nor will it come back by itself.
    pub(crate) async fn unlink(&self, participant: ParticipantId) {
        let _ = self.inputs.send(Input::Unlink { participant }).await;
    }

    /// All that happens from here on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Happened> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Stopped> {
        let (reply, replied) = oneshot::channel();
        self.inputs.send(input(reply)).await.map_err(|_| Stopped)?;
        replied.await.map_err(|_| Stopped)
    }
}

/// A call that waits for locks. If the driver cannot be told that it is gone, the end
/// of its wait or of its lease tells it.
struct Waits<'a> {
    inputs: &'a mpsc::Sender<Input>,
    answered: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let _ = self.inputs.try_send(Input::CallGone);
        }
    }
}
