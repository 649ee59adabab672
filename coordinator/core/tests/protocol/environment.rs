//! An environment of one coordinator: a journal, participants, and messages that a
//! test delivers, drops or repeats. Whatever happens in it is checked against
//! the write-ahead rule.

mod looks;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dtc_core::{
    Acknowledgement, Action, AnswerAt, Begin, BranchOutcome, CallKey, Client, Config, Coordinator,
    Event, Failure, Found, Inquirer, LockKey, LockMode, Message, NewBranch, Opaque, Outcome,
    ParticipantId, Reply, Sequence, Time, TrailEvent, TrailKind, View, Vote, Waiter,
};
use dtc_protocol::TransactionId;

use crate::{
    journal::Journal,
    participant::{Participant, YES},
};

pub(crate) const P0: ParticipantId = ParticipantId(0);
pub(crate) const P1: ParticipantId = ParticipantId(1);
pub(crate) const P2: ParticipantId = ParticipantId(2);
const ALL: [ParticipantId; 3] = [P0, P1, P2];

/// Long enough for every wait of a test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A message on its way to a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) to: ParticipantId,
    pub(crate) id: TransactionId,
    pub(crate) branch: u32,
    pub(crate) attempt: u32,
    pub(crate) message: Message,
    pub(crate) trace: Option<Opaque>,
}

/// A run that a test started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) id: TransactionId,
    pub(crate) token: u64,
}

pub(crate) struct Environment {
    pub(crate) config: Config,
    pub(crate) coordinator: Coordinator,
    pub(crate) now: Time,
    pub(crate) journal: Journal,
    pub(crate) participants: BTreeMap<ParticipantId, Participant>,
    /// Messages on their way to participants.
    pub(crate) flights: VecDeque<Flight>,
    /// Answers on their way to the coordinator.
    pub(crate) answers: VecDeque<Event>,
    /// Questions that the journal has to answer.
    pub(crate) lookups: VecDeque<Action>,
    /// Whether what the journal does not have may have been removed from it.
    pub(crate) has_forgotten: bool,
    pub(crate) replies: Vec<(u64, Reply)>,
    /// What participants that asked were told.
    pub(crate) told: Vec<(Inquirer, TransactionId, u32, BranchOutcome)>,
    pub(crate) happened: Vec<(TransactionId, TrailEvent)>,
    /// The same events, with the reason and the time that go with each.
    pub(crate) details: Vec<(TrailKind, Option<String>, Duration)>,
    /// Whether the last record asked for had to be forced.
    pub(crate) sync: Option<bool>,
    /// Transactions that asked for locks when they were begun.
    locking: BTreeSet<TransactionId>,
    /// Of the last record that was asked for.
    sequence: Sequence,
    epoch: u64,
    last: u64,
}

impl Environment {
    /// Three participants, connected, that ask when in doubt.
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let now = Time(1_000_000);
        let (coordinator, actions) = Coordinator::recover(config.clone(), 1, [], [], now);
        assert!(actions.is_empty());
        let mut environment = Self {
            config,
            coordinator,
            now,
            journal: Journal::default(),
            participants: ALL.map(|id| (id, Participant::new(id))).into(),
            flights: VecDeque::new(),
            answers: VecDeque::new(),
            lookups: VecDeque::new(),
            replies: Vec::new(),
            told: Vec::new(),
            has_forgotten: false,
            happened: Vec::new(),
            details: Vec::new(),
            sync: None,
            locking: BTreeSet::new(),
            sequence: 0,
            epoch: 1,
            last: 0,
        };
        ALL.into_iter().for_each(|id| environment.connect(id));
        environment
    }

    /// Makes a participant one that cannot ask.
    pub(crate) fn cannot_ask(&mut self, id: ParticipantId) {
        self.participant(id).supports_inquiry = false;
        self.connect(id);
    }

    pub(crate) fn participant(&mut self, id: ParticipantId) -> &mut Participant {
        self.participants.get_mut(&id).expect("a participant of this environment")
    }

    pub(crate) fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.coordinator.handle(self.now, event, &mut actions);
        self.perform(actions);
    }

    // Clients.

    pub(crate) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Starts a transaction with a branch of payload `YES` at each participant.
    pub(crate) fn execute(&mut self, at: &[ParticipantId]) -> Run {
        let branches: Vec<_> = at.iter().map(|to| (*to, YES)).collect();
        self.execute_with(&branches, |_| {})
    }

    pub(crate) fn execute_keyed(&mut self, key: &str, at: &[ParticipantId]) -> Run {
        let branches: Vec<_> = at.iter().map(|to| (*to, YES)).collect();
        let run = self.execute_with(&branches, |begin| begin.key = keyed(key, 1));
        self.answer_lookups();
        run
    }

    pub(crate) fn execute_with(
        &mut self,
        branches: &[(ParticipantId, u8)],
        adapt: impl FnOnce(&mut Begin),
    ) -> Run {
        let number = self.next_number();
        let id = TransactionId::from_bytes(u128::from(number).to_be_bytes());
        let branches = branches.iter().map(|(to, payload)| branch(*to, *payload)).collect();
        let mut begin = Begin {
            id,
            age: id,
            key: None,
            options: Box::default(),
            branches,
            locks: Vec::new(),
            admitted: true,
            interactive: false,
            id_may_be_known: false,
            trace: None,
            waiter: Waiter { token: number, at: AnswerAt::Decision, until: self.now + LONG },
        };
        adapt(&mut begin);
        if !begin.locks.is_empty() {
            self.locking.insert(id);
        }
        self.event(Event::Begin(Box::new(begin)));
        Run { id, token: number }
    }

    /// Begins an interactive transaction; it is durable on return.
    pub(crate) fn begin(&mut self) -> TransactionId {
        let run = self.execute_with(&[], |begin| begin.interactive = true);
        self.sync();
        assert!(matches!(self.reply(run.token), Some(Reply::Begun(id)) if *id == run.id));
        run.id
    }

    pub(crate) fn call(&mut self, id: TransactionId, call: Client) -> u64 {
        let token = self.next_number();
        self.event(Event::Client { id, token, call });
        token
    }

    pub(crate) fn enlist(&mut self, id: TransactionId, to: ParticipantId) -> u64 {
        self.call(id, Client::Enlist { branch: Some(branch(to, YES)), key: None })
    }

    /// Starts a transaction with locks: 'a' is shared, 'A' exclusive.
    pub(crate) fn execute_locked(&mut self, keys: &str, at: &[ParticipantId]) -> Run {
        let branches: Vec<_> = at.iter().map(|to| (*to, YES)).collect();
        self.execute_with(&branches, |begin| begin.locks = locks(keys))
    }

    pub(crate) fn lock(&mut self, id: TransactionId, keys: &str) -> u64 {
        let until = self.now + seconds(10);
        self.call(id, Client::Lock { locks: Some(locks(keys)), key: None, until })
    }

    pub(crate) fn prepare(&mut self, id: TransactionId) -> u64 {
        let until = self.now + LONG;
        self.call(id, Client::Prepare { until })
    }

    pub(crate) fn commit(&mut self, id: TransactionId) -> u64 {
        let until = self.now + LONG;
        self.call(id, Client::Commit { at: AnswerAt::Decision, until })
    }

    pub(crate) fn roll_back(&mut self, id: TransactionId) -> u64 {
        let until = self.now + LONG;
        self.call(id, Client::Rollback { at: AnswerAt::Decision, until })
    }

    pub(crate) fn reply(&self, token: u64) -> Option<&Reply> {
        let mut replies = self.replies.iter().filter(|(to, _)| *to == token);
        let reply = replies.next().map(|(_, reply)| reply);
        assert!(replies.next().is_none(), "two replies to one call");
        reply
    }

    /// The view that a call was answered with.
    pub(crate) fn answer(&self, token: u64) -> &View {
        match self.reply(token) {
            Some(Reply::Transaction(view)) => view,
            other => panic!("not answered with a transaction: {other:?}"),
        }
    }

    pub(crate) fn outcome(&self, run: Run) -> Outcome {
        self.answer(run.token).outcome
    }

    /// What can be seen of a transaction in memory.
    pub(crate) fn look(&mut self, id: TransactionId) -> View {
        let token = self.call(id, Client::Get);
        self.answer(token).clone()
    }

    // The network.

    pub(crate) fn connect(&mut self, id: ParticipantId) {
        let participant = self.participant(id);
        let (supports_inquiry, compensates) =
            (participant.supports_inquiry, participant.compensates);
        let journal = Some(participant.journal);
        self.event(Event::Connected { participant: id, supports_inquiry, compensates, journal });
    }

    pub(crate) fn disconnect(&mut self, id: ParticipantId) {
        self.event(Event::Disconnected { participant: id, why: "connection refused".into() });
    }

    /// The participant asks about all that it is in doubt about.
    pub(crate) fn inquire(&mut self, from: ParticipantId) {
        if self.participant(from).supports_inquiry {
            for (id, branch) in self.participant(from).in_doubt() {
                let from = Inquirer::Link(from);
                self.event(Event::Inquired { from, id, branch, epoch: 1 });
            }
        }
    }

    /// Asks about one branch and returns the answer, where there is one at once.
    pub(crate) fn ask(&mut self, id: TransactionId, branch: u32) -> Option<BranchOutcome> {
        let before = self.told.len();
        let token = self.next_number();
        let from = Inquirer::Call(token);
        self.event(Event::Inquired { from, id, branch, epoch: 1 });
        self.told.get(before).map(|(.., outcome)| outcome.clone())
    }

    /// Delivers the message at `index`; its answer is on its way.
    pub(crate) fn deliver_at(&mut self, index: usize) {
        let flight = self.flights.remove(index).expect("a message");
        self.deliver(&flight);
    }

    pub(crate) fn deliver(&mut self, flight: &Flight) {
        let participant = self.participant(flight.to);
        let answer = participant.handle((flight.id, flight.branch), &flight.message);
        self.answers.extend(answer);
    }

    /// Delivers what is on its way to one participant.
    pub(crate) fn deliver_to(&mut self, to: ParticipantId) {
        let (there, rest) = self.flights.drain(..).partition(|flight| flight.to == to);
        self.flights = rest;
        let there: VecDeque<Flight> = there;
        there.iter().for_each(|flight| self.deliver(flight));
    }

    pub(crate) fn deliver_all(&mut self) {
        while !self.flights.is_empty() {
            self.deliver_at(0);
        }
    }

    pub(crate) fn hear_at(&mut self, index: usize) {
        let answer = self.answers.remove(index).expect("an answer");
        self.event(answer);
    }

    pub(crate) fn hear_all(&mut self) {
        while !self.answers.is_empty() {
            self.hear_at(0);
        }
    }

    /// Delivers messages and their answers, once round.
    pub(crate) fn exchange(&mut self) {
        self.deliver_all();
        self.hear_all();
    }

    /// Everything on its way is lost.
    pub(crate) fn lose_all(&mut self) {
        self.flights.clear();
        self.answers.clear();
    }

    pub(crate) fn take_flights(&mut self) -> Vec<Flight> {
        self.flights.drain(..).collect()
    }

    /// A vote of the test's own.
    pub(crate) fn vote(&mut self, from: ParticipantId, id: TransactionId, branch: u32, vote: Vote) {
        let journal = Some(self.participant(from).journal);
        self.event(Event::Voted { from, journal, id, branch, vote });
    }

    /// An acknowledgement of the test's own.
    pub(crate) fn acknowledge(
        &mut self,
        from: ParticipantId,
        id: TransactionId,
        branch: u32,
        acknowledgement: Acknowledgement,
    ) {
        let (journal, number) = (Some(self.participant(from).journal), 1);
        self.event(Event::Acknowledged { from, journal, id, branch, number, acknowledgement });
    }

    /// Messages on their way to a participant are answered with an error, or lost.
    pub(crate) fn fail_all_at(&mut self, to: ParticipantId, why: &Failure) {
        let (there, rest) = self.flights.drain(..).partition(|flight| flight.to == to);
        self.flights = rest;
        let there: VecDeque<Flight> = there;
        there.into_iter().for_each(|flight| self.fail(&flight, why));
    }

    pub(crate) fn fail(&mut self, flight: &Flight, why: &Failure) {
        let &Flight { to: participant, id, branch, attempt, .. } = flight;
        self.event(Event::Unreachable { participant, id, branch, attempt, why: why.clone() });
    }

    // The disk.

    pub(crate) fn sync(&mut self) {
        self.sync_some(usize::MAX);
    }

    pub(crate) fn sync_some(&mut self, count: usize) {
        let last = self.journal.sync(count);
        let sessions = match (count, last) {
            (usize::MAX, _) => self.journal.sync_sessions(None),
            (_, Some(last)) => self.journal.sync_sessions(Some(last)),
            (_, None) => None,
        };
        self.journal.check_locks();
        if let Some(up_to) = last.max(sessions) {
            self.event(Event::Durable { up_to });
        }
    }

    pub(crate) fn answer_lookups(&mut self) {
        while let Some(lookup) = self.lookups.pop_front() {
            let found = match lookup {
                Action::LookupKey { id, key } => {
                    Event::KeyFound { id, found: self.journal.find_key(&key) }
                }
                Action::Lookup { from, id, branch, .. } => {
                    let found = match self.journal.find(id, branch) {
                        None if self.has_forgotten => Found::Forgotten,
                        found => found.into(),
                    };
                    Event::Found { to: from, id, branch, found }
                }
                other => unreachable!("{other:?} is no lookup"),
            };
            self.event(found);
        }
    }

    // Time and crashes.

    pub(crate) fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.coordinator.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    /// No call waits any longer.
    pub(crate) fn end_waits(&mut self) {
        let mut actions = Vec::new();
        self.coordinator.end_waits(self.now, &mut actions);
        self.perform(actions);
    }

    /// The coordinator is killed and comes back; no participant is connected.
    pub(crate) fn crash(&mut self) {
        self.journal.crash();
        self.answers.clear();
        self.lookups.clear();
        let unfinished = self.journal.unfinished();
        let sessions = self.journal.sessions.values().cloned();
        self.epoch += 1;
        self.sequence = 0;
        let (coordinator, actions) =
            Coordinator::recover(self.config.clone(), self.epoch, sessions, unfinished, self.now);
        self.coordinator = coordinator;
        self.perform(actions);
    }

    /// The same, and it is started with other flags.
    pub(crate) fn restart_with(&mut self, config: Config) {
        self.config = config;
        self.crash();
    }

    pub(crate) fn connect_all(&mut self) {
        for id in ALL {
            self.connect(id);
            self.inquire(id);
        }
    }

    /// Lets everything on its way arrive, with no time passing.
    pub(crate) fn settle(&mut self) {
        while !(self.flights.is_empty()
            && self.answers.is_empty()
            && self.lookups.is_empty()
            && self.journal.pending.is_empty()
            && self.journal.pending_sessions.is_empty())
        {
            self.answer_lookups();
            self.exchange();
            self.sync();
        }
    }

    /// Heals everything and waits until nothing is owed to anybody.
    pub(crate) fn heal(&mut self) {
        self.connect_all();
        for _ in 0..200 {
            self.settle();
            let in_doubt = self.participants.values().any(|it| !it.in_doubt().is_empty());
            if self.coordinator.is_empty() && !in_doubt {
                return;
            }
            self.advance(Duration::from_secs(2));
            ALL.into_iter().for_each(|id| self.inquire(id));
        }
        let left: Vec<_> = self.coordinator.list(None).collect();
        panic!("something is still owed: {left:?}");
    }

    /// Records are named, and reported durable, by numbers that only grow.
    fn check_sequence(&mut self, sequence: Sequence) {
        assert!(sequence > self.sequence, "{sequence} after {}", self.sequence);
        self.sequence = sequence;
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Append { sequence, record, sync } => {
                    self.check_sequence(sequence);
                    self.sync = Some(sync);
                    self.journal.pending.push_back((sequence, *record));
                }
                Action::AppendSession { sequence, record, sync } => {
                    self.check_sequence(sequence);
                    self.sync = Some(sync);
                    self.journal.pending_sessions.push_back((sequence, *record));
                }
                Action::LookupKey { .. } | Action::Lookup { .. } => self.lookups.push_back(action),
                Action::Send { to, id, branch, attempt, message, trace, .. } => {
                    if matches!(message, Message::Prepare { .. }) && self.locking.contains(&id) {
                        let begin = self.journal.begin(id);
                        let locked = begin.is_some_and(|begin| !begin.locks.is_empty());
                        assert!(locked, "prepare, and its locks are not durable");
                    }
                    if matches!(message, Message::Commit { .. }) {
                        assert_eq!(
                            self.journal.commits_branch(id, branch),
                            Some(true),
                            "commit, not durable"
                        );
                    }
                    if matches!(message, Message::Rollback { .. }) {
                        assert_ne!(
                            self.journal.commits_branch(id, branch),
                            Some(true),
                            "undoes a commit"
                        );
                    }
                    self.flights.push_back(Flight { to, id, branch, attempt, message, trace });
                }
                Action::Reply { token, reply } => {
                    if let Reply::Transaction(view) = &reply {
                        self.check_shown(view);
                    }
                    self.replies.push((token, reply));
                }
                Action::Answer { to, id, branch, outcome } => {
                    match outcome {
                        BranchOutcome::Committed { .. } => {
                            assert_eq!(
                                self.journal.commits_branch(id, branch),
                                Some(true),
                                "told too early"
                            );
                        }
                        BranchOutcome::Aborted { .. } => {
                            assert_ne!(
                                self.journal.commits_branch(id, branch),
                                Some(true),
                                "told a lie"
                            );
                        }
                        _ => {}
                    }
                    if let Inquirer::Link(participant) = to {
                        self.participant(participant).learn((id, branch), &outcome);
                    }
                    self.told.push((to, id, branch, outcome));
                }
                Action::Happened { id, event, reason, took, .. } => {
                    self.happened.push((id, event));
                    self.details.push((event.kind, reason.map(|it| it.code.clone()), took));
                }
            }
        }
    }
}

pub(crate) fn branch(participant: ParticipantId, payload: u8) -> NewBranch {
    NewBranch { participant, payload: Opaque::from([payload]), one_phase: true }
}

/// 'a' is shared, 'A' exclusive.
pub(crate) fn locks(keys: &str) -> Vec<(LockKey, LockMode)> {
    let lock = |key: char| match key.is_uppercase() {
        true => (LockKey::from(key.to_lowercase().to_string()), LockMode::Exclusive),
        false => (LockKey::from(key.to_string()), LockMode::Shared),
    };
    keys.chars().map(lock).collect()
}

pub(crate) fn keyed(key: &str, body: u8) -> Option<CallKey> {
    Some((key.into(), [body; 32]))
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
