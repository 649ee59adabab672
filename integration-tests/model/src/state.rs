//! One state of the whole system, and what happens in it.

mod calls;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use dtc_core::{
    Action, BranchOutcome, CommitPolicy, Config, Coordinator, Event, Failure, Inquirer, Options,
    Outcome, ParticipantId, Projection, Reason, Reply, RequestKey, Time, TrailKind,
};
use dtc_protocol::JournalId;

use crate::{
    client::{Client, EnlistCall},
    journal::{self, Journal},
    network::{Answer, Content, Id, Message, Network, Request},
    participant::{Participant, Vote},
    setup::{Setup, Use},
};

/// Deadlines come after this; nothing else does (but see `projection`).
const SOON: Duration = Duration::from_millis(1);
/// Attempts and the waits between them take this long.
const LATER: Duration = Duration::from_secs(1_000_000);
/// After this, everything that was set is due.
const MUCH_LATER: Duration = Duration::from_secs(100_000_000);
const KEY: &str = "key";
const FINGERPRINT: [u8; 32] = [1; 32];

/// The system, whole. Equality and hash are those of its projection.
#[derive(Debug, Clone)]
pub struct State {
    /// The production machine.
    coordinator: Arc<Coordinator>,
    /// Its projection.
    pub machine: Arc<Projection>,
    /// Its journal.
    pub journal: Arc<Journal>,
    /// Its run.
    pub epoch: u8,
    /// Runs that wait for the journal to look up their key.
    pub lookups: Vec<Id>,
    /// The participants.
    pub participants: Vec<Arc<Participant>>,
    /// Everything that was ever sent.
    pub network: Network,
    /// The client.
    pub client: Client,
    /// Crashes that may still come.
    pub crashes: u8,
    /// Disks that may still be lost.
    pub lost_disks: u8,
    /// Times that an operator may still resolve a branch.
    pub resolutions: u8,
    /// Who watched was told what was not so.
    pub misled: bool,
    /// What went wrong at the coordinator, where it is no matter of the state.
    pub broken: Option<&'static str>,
    /// The only thing that equality and hash leave out.
    pub(crate) now: Time,
}

fn config(setup: &Setup) -> Config {
    Config {
        options: options(setup),
        backoff: LATER,
        backoff_cap: LATER,
        rollback_attempts: setup.rollback_attempts,
        ..Config::default()
    }
}

fn options(setup: &Setup) -> Options {
    Options {
        prepare_timeout: SOON,
        prepare_attempts: setup.prepare_attempts,
        prepare_attempt_timeout: LATER,
        commit_attempt_timeout: LATER,
        idle_timeout: SOON,
        commit_policy: match setup.compensate_after {
            0 => CommitPolicy::Retry,
            after => CommitPolicy::Compensate { after },
        },
        lock_wait: SOON,
        link_grace: SOON,
    }
}

fn journal_id(journal: u8) -> JournalId {
    JournalId::from_bytes([journal + 1; 16])
}

impl State {
    /// Nothing was asked for yet, and everybody can be reached.
    pub(crate) fn new(setup: &Setup) -> Self {
        let now = Time(1_000_000);
        let (coordinator, _) = Coordinator::recover(config(setup), 1, [], [], now);
        let mut state = Self {
            machine: Arc::new(coordinator.projection()),
            coordinator: Arc::new(coordinator),
            journal: Arc::default(),
            epoch: 1,
            lookups: Vec::new(),
            participants: (0..setup.participants)
                .map(|it| Participant {
                    supports_inquiry: setup.supports_inquiry(it),
                    ..Participant::default()
                })
                .map(Arc::new)
                .collect(),
            network: Network::default(),
            client: Client::default(),
            crashes: setup.crashes,
            lost_disks: setup.lost_disks,
            resolutions: setup.resolutions,
            misled: false,
            broken: None,
            now,
        };
        (0..setup.participants).for_each(|participant| state.connect(participant));
        if setup.usage == Use::AnyCoordinator {
            state.send_all();
        }
        state
    }

    /// Every request that there is, from two runs.
    fn send_all(&mut self) {
        let requests = [
            Request::Prepare { one_phase: false, payload: 0 },
            Request::Prepare { one_phase: false, payload: 1 },
            Request::Commit { number: 1 },
            Request::Commit { number: 2 },
            Request::Rollback { number: 1 },
            Request::Rollback { number: 2 },
            Request::Compensate { number: 2 },
            Request::Resolve { commit: true },
            Request::Resolve { commit: false },
            Request::AnsweredCommitted { number: 1 },
            Request::AnsweredAborted { number: 1 },
            Request::AnsweredNotMine,
            Request::ToldByAnother { commit: true },
            Request::ToldByAnother { commit: false },
        ];
        for participant in 0..self.participants.len() as u8 {
            for (epoch, request) in [1, 2].into_iter().flat_map(|it| requests.map(|r| (it, r))) {
                let content = Content::Request { epoch, request };
                self.network.send(Message { participant, id: 1, content });
            }
        }
    }

    // The coordinator.

    fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        let coordinator = Arc::make_mut(&mut self.coordinator);
        let now = self.now;
        let handled =
            catch_unwind(AssertUnwindSafe(|| coordinator.handle(now, event, &mut actions)));
        if handled.is_err() {
            self.broken = Some("an assertion of the coordinator failed");
            return;
        }
        self.machine = Arc::new(self.coordinator.projection());
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Append { sequence, record, .. } => {
                    Arc::make_mut(&mut self.journal).pending.push((sequence, *record));
                }
                Action::LookupKey { id, .. } => self.lookups.push(journal::number(id)),
                // Whatever waits between question and answer, the network may do.
                Action::Lookup { from, id, branch, .. } => {
                    let found = self.journal.find(journal::number(id), branch).into();
                    self.event(Event::Found { to: from, id, branch, found });
                }
                Action::Send { to, id, message, .. } => {
                    let request = match message {
                        dtc_core::Message::Prepare { payload, one_phase, .. } => {
                            Request::Prepare { one_phase, payload: payload[0] }
                        }
                        dtc_core::Message::Commit { number, .. } => {
                            Request::Commit { number: number as u8 }
                        }
                        dtc_core::Message::Rollback { compensate: true, number, .. } => {
                            Request::Compensate { number: number as u8 }
                        }
                        dtc_core::Message::Rollback { number, .. } => {
                            Request::Rollback { number: number as u8 }
                        }
                    };
                    self.request(to, journal::number(id), request);
                }
                Action::Reply { token, reply } => {
                    let call = EnlistCall::of(token);
                    if let (Some(call), Reply::Enlisted(branch)) = (call, &reply) {
                        self.client.hear_enlisted(call, *branch);
                    }
                    let not_here = call.is_none() && matches!(reply, Reply::NotHere);
                    self.client.hear(&reply, &self.journal);
                    if not_here {
                        // The shell reads the journal for the client.
                        self.client.hear(&Reply::See(journal::id(1)), &self.journal);
                    }
                }
                Action::Answer { to: Inquirer::Link(to), id, outcome, .. } => {
                    let request = match outcome {
                        BranchOutcome::Committed { number, .. } => {
                            Request::AnsweredCommitted { number: number as u8 }
                        }
                        BranchOutcome::Aborted { number } => {
                            Request::AnsweredAborted { number: number as u8 }
                        }
                        BranchOutcome::NotMine => Request::AnsweredNotMine,
                        BranchOutcome::Pending => continue,
                    };
                    self.request(to, journal::number(id), request);
                }
                Action::Answer { .. } => {}
                // No client of the model's takes locks.
                Action::AppendSession { .. } => {}
                Action::Happened { id, event, .. } => self.watch(journal::number(id), event.kind),
            }
        }
    }

    fn request(&mut self, to: ParticipantId, id: Id, request: Request) {
        let content = Content::Request { epoch: self.epoch, request };
        self.network.send(Message { participant: to.0 as u8, id, content });
    }

    /// Those who watch are told what happens, when it happens.
    fn watch(&mut self, id: Id, kind: TrailKind) {
        let durable = self.journal.commits(id);
        if kind == TrailKind::DecidedCommit && durable != Some(true) {
            self.misled = true;
        }
        let aborts = [TrailKind::DecidedAbort, TrailKind::CompensationDecided].contains(&kind);
        if aborts && durable == Some(true) {
            self.misled = true;
        }
    }

    /// Whether no transaction is in the coordinator's memory.
    pub fn is_idle(&self) -> bool {
        self.coordinator.is_empty()
    }

    /// What a client that looks now is shown, of all transactions in memory.
    pub fn shown(&self) -> impl Iterator<Item = (Id, Outcome)> {
        self.coordinator.list(None).map(|view| (journal::number(view.id), view.outcome))
    }

    /// The oldest record becomes durable, and that is reported.
    pub(crate) fn sync(&mut self) {
        let up_to = Arc::make_mut(&mut self.journal).sync();
        self.event(Event::Durable { up_to });
    }

    /// The coordinator is killed, when the oldest `survivors` of the records that
    /// were being written had reached the disk, and starts again.
    pub(crate) fn crash(&mut self, setup: &Setup, survivors: usize) {
        let journal = Arc::make_mut(&mut self.journal);
        journal.crash(survivors);
        let unfinished = journal.unfinished();
        self.crashes -= 1;
        self.epoch += 1;
        self.lookups.clear();
        self.client.cut_off();
        if !setup.stray_answers {
            self.network.cut_answers();
        }
        let (now, epoch) = (self.now, self.epoch.into());
        match catch_unwind(|| Coordinator::recover(config(setup), epoch, [], unfinished, now)) {
            Ok((coordinator, actions)) => {
                self.machine = Arc::new(coordinator.projection());
                self.coordinator = Arc::new(coordinator);
                self.perform(actions);
            }
            Err(_) => self.broken = Some("an assertion failed in recovery"),
        }
    }

    pub(crate) fn answer_lookup(&mut self, run: Id) {
        self.lookups.retain(|waiting| *waiting != run);
        let found = self.journal.find_key(&RequestKey::from(KEY));
        self.event(Event::KeyFound { id: journal::id(run), found });
    }

    /// Time passes until prepare's deadline or the idle limit, and not until
    /// anything else.
    pub(crate) fn deadline(&mut self) {
        self.now = self.now + SOON;
        self.event(Event::Tick);
    }

    /// Time passes until everything that was set is due.
    pub(crate) fn everything_due(&mut self) {
        self.now = self.now + MUCH_LATER;
        self.event(Event::Tick);
    }

    pub(crate) fn unreachable(&mut self, participant: usize, id: Id) {
        let (id, branch) = (journal::id(id), participant as u32);
        self.event(Event::Unreachable {
            participant: ParticipantId(branch),
            id,
            branch,
            attempt: self.coordinator.newest_attempt(id, branch).unwrap_or_default(),
            why: Failure::lost("no answer"),
        });
    }

    pub(crate) fn connect(&mut self, participant: usize) {
        self.event(Event::Connected {
            participant: ParticipantId(participant as u32),
            supports_inquiry: self.participants[participant].supports_inquiry,
            compensates: true,
            journal: Some(journal_id(self.participants[participant].journal)),
        });
    }

    pub(crate) fn disconnect(&mut self, participant: usize) {
        let participant = ParticipantId(participant as u32);
        self.event(Event::Disconnected { participant, why: "cut".into() });
    }

    /// Whether the coordinator's link is to the journal that is there.
    pub(crate) fn knows_journal(&self, participant: usize, known: Option<JournalId>) -> bool {
        known == Some(journal_id(self.participants[participant].journal))
    }

    // The network and the participants.

    /// A request arrives at its participant.
    pub(crate) fn deliver(&mut self, setup: &Setup, message: &Message, vote: Vote) {
        let Content::Request { epoch, request } = message.content else { return };
        let index = usize::from(message.participant);
        let participant = Arc::make_mut(&mut self.participants[index]);
        participant.take(message.id, epoch, request, vote);
        if participant.written.is_none() {
            self.sync_participant(setup, index);
        }
    }

    /// What a participant has written is durable; its answers leave, to the run
    /// that asked.
    pub(crate) fn sync_participant(&mut self, setup: &Setup, index: usize) {
        let participant = Arc::make_mut(&mut self.participants[index]);
        for (id, epoch, answer) in participant.sync() {
            if epoch == self.epoch || setup.stray_answers {
                let content = Content::Answer { journal: participant.journal, answer };
                self.network.send(Message { participant: index as u8, id, content });
            }
        }
        if let Some(seen) = participant.durable.seen.filter(|_| setup.drop_stale) {
            self.network.drop_stale(index, seen);
        }
    }

    /// A participant tries again what its domain could not do.
    pub(crate) fn retry_pending(&mut self, setup: &Setup, index: usize, id: Id, vote: Vote) {
        let participant = Arc::make_mut(&mut self.participants[index]);
        participant.retry_pending(id, vote);
        if participant.written.is_none() {
            self.sync_participant(setup, index);
        }
    }

    /// A participant asks about a branch.
    pub(crate) fn ask(&mut self, participant: usize, id: Id) {
        self.event(Event::Inquired {
            from: Inquirer::Link(ParticipantId(participant as u32)),
            id: journal::id(id),
            branch: participant as u32,
            epoch: 1,
        });
    }

    pub(crate) fn crash_participant(&mut self, participant: usize) {
        self.crashes -= 1;
        Arc::make_mut(&mut self.participants[participant]).crash();
    }

    pub(crate) fn lose_disk(&mut self, participant: usize) {
        self.lost_disks -= 1;
        Arc::make_mut(&mut self.participants[participant]).lose_disk();
    }

    /// An answer arrives at the coordinator.
    pub(crate) fn hear(&mut self, message: &Message) {
        let Content::Answer { journal, answer } = message.content else { return };
        let from = ParticipantId(message.participant.into());
        let (id, branch) = (journal::id(message.id), u32::from(message.participant));
        let own = Some(journal_id(journal));
        let voted = |vote| Event::Voted { from, journal: own, id, branch, vote };
        let acknowledged = |number: u8, acknowledgement| Event::Acknowledged {
            from,
            journal: Some(journal_id(journal)),
            id,
            branch,
            number: number.into(),
            acknowledgement,
        };
        self.event(match answer {
            Answer::Yes { committed, .. } => {
                voted(dtc_core::Vote::Commit { output: None, committed })
            }
            Answer::No => voted(dtc_core::Vote::Abort(refusal())),
            Answer::ReadOnly => voted(dtc_core::Vote::ReadOnly),
            Answer::Committed { number } => {
                acknowledged(number, dtc_core::Acknowledgement::Committed)
            }
            Answer::RolledBack { number } => {
                acknowledged(number, dtc_core::Acknowledgement::RolledBack)
            }
            Answer::Unknown { number } => acknowledged(number, dtc_core::Acknowledgement::Unknown),
        });
    }
}

fn refusal() -> Arc<Reason> {
    Arc::new(Reason { code: "NO".into(), message: String::new(), participant: None })
}
