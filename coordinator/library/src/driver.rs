//! Feeds the machine events and does what it asks for.
//!
//! Invariants:
//! - One task owns the machine; nothing here waits for a participant, the
//!   journal or a client.
//! - Records go to the journal in the order in which the machine asked for
//!   them, and before anything that the same event led to is sent.

mod call;
mod crash_points;
mod handle;
mod input;
mod keys;
mod locks;
mod lookups;
mod lost;
mod outgoing;
mod pending;
mod stalled;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use dtc_core::{
    Action, Coordinator, Event, Failure, Inquirer, ParticipantId, Record, RequestKey, Sequence,
    TrailKind,
};
use dtc_protocol::TransactionId;
use dtc_runtime::Environment;
use tokio::sync::{broadcast, mpsc, watch};

use crate::{
    clock::Clock,
    directory::Directory,
    event_log,
    ids::Ids,
    journal::{Entry, Journal, JournalError, codec},
    metrics::Metrics,
};
pub(crate) use call::{Call, OperatorCall};
pub(crate) use handle::{
    Handle, Happened, IN_ONE_TURN, NewLocks, NewSession, NewTransaction, NewWork, Stopped,
};
use input::Input;
pub(crate) use outgoing::Outgoing;
use pending::Pending;
use stalled::Stalled;

/// How many inputs are taken between two appends.
const BATCH: usize = 1024;
/// How many inputs may wait.
const QUEUE: usize = 8192;
/// How many events a slow watcher may be behind.
const EVENTS: usize = 8192;
/// How often participants are told what has ended.
const NOTIFY_ENDED: Duration = Duration::from_secs(1);
/// Unfinished transactions older than this are named as exceptions, so that
/// participants can forget the younger ones.
const OLD: Duration = Duration::from_secs(30);

/// Where messages to a participant go.
struct Queue {
    messages: mpsc::Sender<Outgoing>,
    /// What has ended, while that waits there: only the newest would count.
    ended: Weak<()>,
}

pub(crate) struct Driver {
    machine: Coordinator,
    clock: Clock,
    ids: Ids,
    journal: Arc<dyn Journal>,
    directory: Arc<Directory>,
    environment: Environment,
    metrics: Metrics,
    inputs: mpsc::Receiver<Input>,
    own: mpsc::Sender<Input>,
    durable: (watch::Sender<Sequence>, watch::Receiver<Sequence>),
    events: broadcast::Sender<Happened>,
    links: BTreeMap<ParticipantId, Queue>,
    /// The newest id when all were told that everything has ended.
    notified_at: Option<TransactionId>,
    pending: Pending,
    /// Whether some client no longer waits for its locks.
    calls_gone: bool,
    /// Whether no call waits any more, since the process is being stopped.
    ends_waits: bool,
    /// Decided, and not acknowledged by all.
    in_doubt: BTreeSet<TransactionId>,
    stalled: Stalled,
    actions: Vec<Action>,
    entries: Vec<Entry>,
    sync: bool,
    appended: Sequence,
    /// Messages that could not be handed to their links, and answers that nobody takes.
    refused: Vec<Event>,
    /// Request keys to be looked for in the journal.
    lookups: Vec<(TransactionId, RequestKey)>,
    /// Whether the journal is being asked for some.
    looking: bool,
}

impl Driver {
    /// Takes up what the journal holds, and makes the driver and the handle that
    /// feeds it.
    pub(crate) async fn recover(
        config: dtc_core::Config,
        journal: Arc<dyn Journal>,
        directory: Arc<Directory>,
        metrics: Metrics,
        environment: Environment,
    ) -> Result<(Self, Handle), RecoverError> {
        let clock = Clock::new((environment.wall_clock)());
        lost::end(&*journal, clock.now()).await?;
        let unfinished = journal.unfinished().await?;
        let decode = |stored| codec::decode(stored, &directory);
        let records: Vec<Record> = unfinished.iter().map(decode).collect::<Result<_, _>>()?;
        let sessions = journal.sessions().await?;
        let decode = |(id, body): (_, Vec<u8>)| codec::decode_session(id, &body);
        let sessions = sessions.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let count = records.len();
        let newest = journal.newest().await?;
        let (machine, actions) =
            Coordinator::recover(config, journal.run().epoch, sessions, records, clock.now());
        tracing::info!(
            coordinator = %journal.coordinator(),
            epoch = journal.run().epoch,
            incarnation = %journal.run().incarnation,
            unfinished = count,
            "recovered"
        );
        let (own, inputs) = mpsc::channel(QUEUE);
        let (events, _) = broadcast::channel(EVENTS);
        let handle = Handle::new(
            own.clone(),
            events.clone(),
            Arc::clone(&directory),
            Arc::clone(&journal),
            environment.clone(),
        );
        let driver = Self {
            machine,
            clock,
            ids: Ids::after(newest, environment.random.clone()),
            journal,
            directory,
            environment,
            metrics,
            inputs,
            own,
            durable: watch::channel(0),
            events,
            links: BTreeMap::new(),
            notified_at: None,
            pending: Pending::default(),
            calls_gone: false,
            ends_waits: false,
            in_doubt: BTreeSet::new(),
            stalled: Stalled::default(),
            actions,
            entries: Vec::new(),
            sync: false,
            appended: 0,
            refused: Vec::new(),
            lookups: Vec::new(),
            looking: false,
        };
        Ok((driver, handle))
    }

    /// Runs until every handle is gone, which is as long as the process.
    pub(crate) async fn run(mut self) {
        self.act();
        let mut inputs = Vec::with_capacity(BATCH);
        let mut notify_ended = tokio::time::interval(NOTIFY_ENDED);
        notify_ended.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

        loop {
            let timeout = self.machine.next_timeout().map(|at| self.clock.instant(at));
            let timeout = async move {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = notify_ended.tick() => {
                    self.notify_ended();
                    self.stalled.log();
                    self.metrics.quarantined.set(self.directory.quarantined() as i64);
                }
                Ok(()) = self.durable.1.changed() => {
                    let up_to = *self.durable.1.borrow_and_update();
                    self.handle(Event::Durable { up_to });
                }
                taken = self.inputs.recv_many(&mut inputs, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    for input in inputs.drain(..) {
                        self.take(input);
                    }
                }
                () = timeout => {}
            }
            // Looked at each time: inputs that never cease don't stop the clock.
            if self.machine.next_timeout().is_some_and(|at| at <= self.clock.now()) {
                self.handle(Event::Tick);
            }
            self.act();
        }
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(self.clock.now(), event, &mut self.actions);
    }

    /// Performs the machine's actions, and those that follow from messages that
    /// could not be handed over.
    fn act(&mut self) {
        self.give_up_gone();
        loop {
            let mut actions = std::mem::take(&mut self.actions);
            // Records first: what is sent beside them may depend on nothing that
            // is not durable, but a crash must not find a message without them.
            for action in &actions {
                match action {
                    Action::Append { sequence, record, sync } => {
                        self.append(*sequence, record, *sync);
                    }
                    Action::AppendSession { sequence, record, sync } => {
                        self.add(*sequence, codec::encode_session(record), *sync);
                    }
                    _ => {}
                }
            }
            self.flush();
            for action in actions.drain(..) {
                self.perform(action);
            }
            if self.refused.is_empty() {
                self.actions = actions;
                break;
            }
            for event in std::mem::take(&mut self.refused) {
                self.handle(event);
            }
        }
        self.find_keys();
        self.metrics.active.set(self.machine.len() as i64);
        self.metrics.in_doubt.set(self.in_doubt.len() as i64);
        self.metrics.stalled.set(self.stalled.len() as i64);
        self.metrics.notifying.set(self.machine.notifying() as i64);
        self.metrics.show_locks(&self.machine.lock_figures());
    }

    fn append(&mut self, sequence: Sequence, record: &Record, sync: bool) {
        crash_points::appending(record);
        self.add(sequence, codec::encode(record, &self.directory), sync);
    }

    fn add(&mut self, sequence: Sequence, entry: Entry, sync: bool) {
        self.entries.push(entry);
        self.sync |= sync;
        self.appended = sequence;
    }

    fn flush(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let (durable, up_to) = (self.durable.0.clone(), self.appended);
        let entries = std::mem::take(&mut self.entries);
        let sync = std::mem::take(&mut self.sync);
        let reported = move || {
            durable.send_replace(up_to);
        };
        self.journal.append(entries, sync, Box::new(reported));
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Append { .. } | Action::AppendSession { .. } => {}
            Action::LookupKey { id, key } => self.lookups.push((id, key)),
            Action::Lookup { from, id, branch, epoch } => self.find(from, (id, branch), epoch),
            Action::Send { to, id, branch, attempt, message, timeout, trace } => {
                crash_points::sending(&message);
                let outgoing = Outgoing::Message { id, branch, attempt, message, timeout, trace };
                if !self.send(to, outgoing) {
                    let why = Failure::lost("its queue is full, or it has no link");
                    let participant = to;
                    self.refused.push(Event::Unreachable { participant, id, branch, attempt, why });
                }
            }
            Action::Reply { token, reply } => self.reply(token, reply),
            Action::Answer { to, id, branch, outcome } => {
                self.metrics.answered(&outcome);
                event_log::answered(&self.directory, id, branch, to, &outcome);
                match to {
                    Inquirer::Call(token) => drop(self.pending.inquiries.answer(token, outcome)),
                    // If it can't be sent, the participant asks again.
                    Inquirer::Link(participant) => {
                        self.send(participant, Outgoing::Outcome { id, branch, outcome });
                    }
                }
            }
            Action::Happened { id, event, participant, reason, took } => {
                self.metrics.count(event.kind, reason.as_deref(), took);
                self.note_progress(id, event.kind);
                event_log::write(&self.directory, id, &event, participant, reason.as_deref(), took);
                if self.events.receiver_count() > 0 {
                    let _ = self.events.send(Happened { id, event });
                }
            }
        }
    }

    fn send(&mut self, to: ParticipantId, outgoing: Outgoing) -> bool {
        self.links.get(&to).is_some_and(|queue| queue.messages.try_send(outgoing).is_ok())
    }

    fn note_progress(&mut self, id: TransactionId, kind: TrailKind) {
        match kind {
            TrailKind::DecidedCommit | TrailKind::DecidedAbort | TrailKind::Recovered => {
                self.in_doubt.insert(id);
            }
            TrailKind::CompensationDecided => self.stalled.remove(id),
            TrailKind::Stalled => {
                self.stalled.insert(id);
            }
            TrailKind::Ended => {
                self.in_doubt.remove(&id);
                self.stalled.remove(id);
            }
            _ => {}
        }
    }

    /// Tells each participant up to where it may forget, if something ended
    /// since it was told.
    fn notify_ended(&mut self) {
        let newest = self.ids.newest();
        if self.machine.is_empty() && self.notified_at == Some(newest) {
            return;
        }
        let now = self.clock.now();
        let old = self.ids.older_than(OLD, now);
        let next = self.ids.next(now);
        let mut all = true;
        let endings = self.machine.endings(old, next);
        for (&participant, queue) in &mut self.links {
            if queue.ended.strong_count() > 0 {
                all = false;
            } else if let Some(ended) = endings.of(participant) {
                let waits = Arc::new(());
                queue.ended = Arc::downgrade(&waits);
                all &= queue.messages.try_send(Outgoing::Ended { ended, _waits: waits }).is_ok();
            }
        }
        self.notified_at = (all && self.machine.is_empty()).then_some(next);
    }
}

/// Why the journal cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It has no answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A transaction cannot be decoded.
    #[error(transparent)]
    Damaged(#[from] codec::Damaged),
    /// A session cannot be decoded.
    #[error(transparent)]
    DamagedSession(#[from] codec::DamagedSession),
}
