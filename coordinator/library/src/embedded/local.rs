//! Resources of this process as participants of the driver.
//!
//! Invariants:
//! - The driver, and what brings its messages here, run apart from the resources: one
//!   that blocks its thread holds up no timer and no other transaction of the driver.
//! - Calls of one branch don't overlap, and a vote that was given is given again.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dtc_core::{
    Acknowledgement, Event, Failure, Message, Opaque, ParticipantId, Reason, Vote as CoreVote,
};
use dtc_protocol::{JournalId, TransactionId};
use tokio::{runtime, sync::mpsc};

use super::{
    error::Source,
    resource::{BoxError, Branch, Participant, Vote},
};
use crate::{
    driver::{Handle, Outgoing},
    running::Running,
};

/// What stands before a resource's name where participants are named.
const NAMED: &str = "local:";
/// What stands before its type, where it has no name.
const UNNAMED: &str = "local-type:";
const QUEUE: usize = 65_536;

/// All resources that take part.
#[derive(Clone)]
pub(super) struct Locals {
    handle: Handle,
    /// Where messages are brought: the coordinator's own runtime.
    own: runtime::Handle,
    /// Where resources are called: the program's.
    program: runtime::Handle,
    journal: JournalId,
    running: Running,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    linked: HashMap<String, ParticipantId>,
    branches: BTreeMap<(TransactionId, u32), Enlisted>,
    /// Calls that want to know what became of a transaction: its branches stay until then.
    awaited: BTreeMap<TransactionId, Awaited>,
    /// For branches of earlier runs.
    attached: HashMap<ParticipantId, Arc<dyn Participant>>,
}

/// How many calls want to know what became of a transaction, and whether it has ended.
#[derive(Default)]
struct Awaited {
    calls: usize,
    ended: bool,
}

#[derive(Clone)]
struct Enlisted {
    resource: Arc<dyn Participant>,
    branch: Branch,
    vote: Option<CoreVote>,
    /// What the resource failed with last.
    error: Option<Source>,
}

/// What errors call a participant, and whether that is a resource of this process.
pub(super) fn shown(participant: &str) -> (&str, bool) {
    let local = participant.strip_prefix(NAMED).or_else(|| participant.strip_prefix(UNNAMED));
    (local.unwrap_or(participant), local.is_some())
}

/// What a branch is told.
#[derive(Clone, Copy)]
enum Decided {
    Commit,
    Rollback { compensate: bool },
}

/// Why a call comes to nothing.
enum Silence {
    /// Nobody could be called.
    Nobody,
    /// Another call of the branch answers for it.
    Elsewhere,
}

impl Locals {
    pub(super) fn new(handle: Handle, own: runtime::Handle, program: runtime::Handle) -> Self {
        // The resources' memory is the coordinator's: it has its identity.
        let journal = JournalId::from_bytes(*handle.journal.coordinator().as_bytes());
        let (running, known) = (Running::default(), Arc::default());
        Self { handle, own, program, journal, running, known }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The participant that a resource without a name is, with all of its type.
    pub(super) async fn unnamed(&self, resource: &dyn Participant) -> ParticipantId {
        self.participant(format!("{UNNAMED}{}", type_of(resource))).await
    }

    /// With a link that the driver knows.
    async fn participant(&self, name: String) -> ParticipantId {
        let id = {
            let mut known = self.known();
            if let Some(id) = known.linked.get(&name) {
                return *id;
            }
            let id = self.handle.directory.intern(&name);
            known.linked.insert(name, id);
            id
        };
        let (queue, queued) = mpsc::channel(QUEUE);
        self.handle.link(id, queue).await;
        let journal = Some(self.journal);
        let (supports_inquiry, compensates) = (false, true);
        let connected =
            Event::Connected { participant: id, supports_inquiry, compensates, journal };
        self.handle.events(vec![connected]).await;
        self.own.spawn(self.clone().link(id, queued));
        id
    }

    /// Branches of earlier runs are this resource's from here on.
    pub(super) async fn attach(&self, name: &str, resource: Arc<dyn Participant>) -> ParticipantId {
        let id = self.participant(format!("{NAMED}{name}")).await;
        self.known().attached.insert(id, resource);
        id
    }

    /// Takes in a branch, before its prepare is sent.
    pub(super) fn enlist(&self, branch: Branch, resource: Arc<dyn Participant>) {
        let key = (branch.transaction, branch.number);
        let enlisted = Enlisted { resource, branch, vote: None, error: None };
        self.known().branches.insert(key, enlisted);
    }

    /// Forgets the branches of a transaction that has ended.
    pub(super) fn forget(&self, id: TransactionId) {
        let mut known = self.known();
        if let Some(awaited) = known.awaited.get_mut(&id) {
            awaited.ended = true;
            return;
        }
        let branches = &mut known.branches;
        let all: Vec<_> = branches.range((id, 0)..=(id, u32::MAX)).map(|(key, _)| *key).collect();
        for key in all {
            branches.remove(&key);
        }
    }

    /// The transactions whose branches are held.
    pub(super) fn transactions(&self) -> BTreeSet<TransactionId> {
        self.known().branches.keys().map(|(id, _)| *id).collect()
    }

    /// Keeps a transaction's branches until this is dropped.
    pub(super) fn awaiting(&self, id: TransactionId) -> Awaiting<'_> {
        self.known().awaited.entry(id).or_default().calls += 1;
        Awaiting { locals: self, id }
    }

    /// What a branch's resource failed with last.
    pub(super) fn error(&self, id: TransactionId, number: u32) -> Option<Source> {
        self.known().branches.get(&(id, number))?.error.clone()
    }

    fn failed(&self, id: TransactionId, number: u32, error: BoxError) -> String {
        let text = error.to_string();
        if let Some(enlisted) = self.known().branches.get_mut(&(id, number)) {
            enlisted.error = Some(error.into());
        }
        text
    }

    /// Whether somebody answers for earlier branches of a participant.
    pub(super) fn is_attached(&self, id: ParticipantId) -> bool {
        self.known().attached.contains_key(&id)
    }

    async fn link(self, participant: ParticipantId, mut queued: mpsc::Receiver<Outgoing>) {
        while let Some(outgoing) = queued.recv().await {
            if let Outgoing::Message { id, branch, attempt, message, .. } = outgoing {
                let call = self.clone().call(participant, id, branch, attempt, message);
                self.own.spawn(call);
            }
        }
    }

    fn find(&self, participant: ParticipantId, id: TransactionId, number: u32) -> Option<Enlisted> {
        let known = self.known();
        known.branches.get(&(id, number)).cloned().or_else(|| {
            let resource = known.attached.get(&participant)?.clone();
            let (version, input, compensating) = (0, Vec::new(), false);
            let branch = Branch { transaction: id, number, version, input, compensating };
            Some(Enlisted { resource, branch, vote: None, error: None })
        })
    }

    async fn call(
        self,
        from: ParticipantId,
        id: TransactionId,
        number: u32,
        attempt: u32,
        message: Message,
    ) {
        let event = match self.answer(from, id, number, message).await {
            Ok(event) => event,
            Err(Silence::Elsewhere) => return,
            Err(Silence::Nobody) => {
                let why = Failure::lost("no resource of this name is attached");
                Event::Unreachable { participant: from, id, branch: number, attempt, why }
            }
        };
        self.handle.events(vec![event]).await;
    }

    async fn answer(
        &self,
        from: ParticipantId,
        id: TransactionId,
        number: u32,
        message: Message,
    ) -> Result<Event, Silence> {
        let acknowledged = |number_of_decision, acknowledgement| Event::Acknowledged {
            from,
            journal: Some(self.journal),
            id,
            branch: number,
            number: number_of_decision,
            acknowledgement,
        };
        match message {
            Message::Prepare { .. } => {
                let vote = self.vote(from, id, number).await?;
                Ok(Event::Voted { from, journal: Some(self.journal), id, branch: number, vote })
            }
            Message::Commit { number: decision, output } => {
                let done = self.decide(from, id, number, Decided::Commit, output).await?;
                Ok(acknowledged(decision, done.unwrap_or(Acknowledgement::Committed)))
            }
            Message::Rollback { number: decision, output, compensate } => {
                let done =
                    self.decide(from, id, number, Decided::Rollback { compensate }, output).await?;
                Ok(acknowledged(decision, done.unwrap_or(Acknowledgement::RolledBack)))
            }
        }
    }

    async fn vote(
        &self,
        from: ParticipantId,
        id: TransactionId,
        number: u32,
    ) -> Result<CoreVote, Silence> {
        let turn = self.running.try_enter(id, number).ok_or(Silence::Elsewhere)?;
        let enlisted = self.find(from, id, number).ok_or(Silence::Nobody)?;
        if let Some(vote) = enlisted.vote {
            return Ok(vote);
        }
        let (resource, branch) = (enlisted.resource, enlisted.branch);
        let called = {
            let (resource, branch) = (Arc::clone(&resource), branch.clone());
            self.run(async move { resource.prepare(&branch).await }, &turn).await?
        };
        let refused = |code: &str, message: String| {
            CoreVote::Abort(Arc::new(Reason {
                code: code.into(),
                message,
                participant: Some(from),
            }))
        };
        let (vote, is_clean) = match called {
            Ok(Ok(Vote::Commit(output))) => {
                let output = (!output.is_empty()).then(|| Opaque::from(output));
                (CoreVote::Commit { output, committed: false }, true)
            }
            Ok(Ok(Vote::ReadOnly)) => (CoreVote::ReadOnly, true),
            Ok(Ok(Vote::Abort(why))) => (refused("REFUSED", why), true),
            Ok(Err(error)) => (refused("BROKEN", self.failed(id, number, error)), false),
            Err(panic) => (refused("PANICKED", panic), false),
        };
        if !is_clean {
            // Nobody knows what it did before it broke.
            let name = label(&*resource);
            let undone = self.run(async move { resource.rollback(&branch, None).await }, &turn);
            let failed = match undone.await? {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic),
            };
            if let Some(error) = failed {
                tracing::warn!(transaction = %id, resource = name, error,
                    "rollback failed after an error in prepare");
            }
        }
        if let Some(enlisted) = self.known().branches.get_mut(&(id, number)) {
            enlisted.vote = Some(vote.clone());
        }
        Ok(vote)
    }

    /// An acknowledgement for a call that failed.
    async fn decide(
        &self,
        from: ParticipantId,
        id: TransactionId,
        number: u32,
        decided: Decided,
        output: Option<Opaque>,
    ) -> Result<Option<Acknowledgement>, Silence> {
        let turn = self.running.enter(id, number).await.ok_or(Silence::Nobody)?;
        let enlisted = self.find(from, id, number).ok_or(Silence::Nobody)?;
        let Enlisted { resource, mut branch, .. } = enlisted;
        let name = label(&*resource);
        if let Decided::Rollback { compensate: true } = decided {
            branch.compensating = true;
            tracing::warn!(transaction = %id, branch = number, resource = name,
                "the commit is compensated; the resource is rolled back");
        }
        let work = async move {
            match decided {
                Decided::Commit => {
                    resource.commit(&branch, output.as_deref().unwrap_or_default()).await
                }
                Decided::Rollback { .. } => resource.rollback(&branch, output.as_deref()).await,
            }
        };
        let error = match self.run(work, &turn).await? {
            Ok(Ok(())) => return Ok(None),
            Ok(Err(error)) => self.failed(id, number, error),
            Err(panic) => self.failed(id, number, format!("it panicked: {panic}").into()),
        };
        let phase = match decided {
            Decided::Commit => "commit",
            Decided::Rollback { .. } => "rollback",
        };
        tracing::warn!(transaction = %id, branch = number, resource = name, phase, error,
            "a resource failed; it is called again");
        Ok(Some(Acknowledgement::Failed(error)))
    }

    /// Calls a resource in the program's runtime: its result, or the panic's message.
    /// Nothing when the call was closed meanwhile; it has ended then.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        turn: &crate::running::Turn,
    ) -> Result<Result<T, String>, Silence> {
        let mut task = self.program.spawn(work);
        let ended = tokio::select! {
            biased;
            ended = &mut task => ended,
            () = turn.closed() => {
                task.abort();
                let _ = task.await;
                return Err(Silence::Elsewhere);
            }
        };
        match ended {
            Ok(value) => Ok(Ok(value)),
            // Cancelled, not panicked: the program's runtime is ending.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Ok(Err(message_of(&*panic))),
                Err(_) => Err(Silence::Nobody),
            },
        }
    }
}

/// A call that wants to know what became of a transaction.
pub(super) struct Awaiting<'a> {
    locals: &'a Locals,
    id: TransactionId,
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        let ended = {
            let mut known = self.locals.known();
            let Some(awaited) = known.awaited.get_mut(&self.id) else { return };
            awaited.calls -= 1;
            match awaited.calls {
                0 => known.awaited.remove(&self.id).is_some_and(|awaited| awaited.ended),
                _ => false,
            }
        };
        if ended {
            self.locals.forget(self.id);
        }
    }
}

/// What logs and errors call a resource.
fn label(resource: &dyn Participant) -> String {
    match resource.name().as_ref() {
        "" => type_of(resource).into(),
        name => name.into(),
    }
}

/// A type's path. What it is generic over is left out: a closure's is as long as a screen.
fn type_of(resource: &dyn Participant) -> &'static str {
    let name = resource.type_name();
    name.split_once('<').map_or(name, |(path, _)| path)
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").into()
}
