//! Routes events to transactions and keeps time.
//!
//! Invariants:
//! - A transaction is in memory from its first event until its end is durable.
//! - A request key in use belongs to one run; a second request with it joins
//!   that run or is refused.
//! - Nothing is refused for what it would need before it is known that its key is new.
//! - 'Aborted' is answered to a participant about an unknown transaction only
//!   after the journal was asked, and not where it may have forgotten it.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::Bound;

use dtc_protocol::TransactionId;

use crate::{
    Action, Begin, BranchOutcome, Config, Event, Fingerprint, Found, FoundBranch, Inquirer,
    NewBranch, ParticipantId, Record, Refused, Reply, RequestKey, SessionRecord, Time, View,
    failure::brief,
    keys::{Keys, MAX_REPEATS, PendingLookup},
    locks::Locks,
    log::Log,
    participants::Participants,
    sessions::Sessions,
    timers::Timers,
    transaction::{Context, Transaction},
};

/// The coordinator's protocol: see the crate's docs.
#[derive(Debug, Clone)]
pub struct Coordinator {
    config: Config,
    // Boxed: a node of the tree holds eleven, and moves them.
    transactions: BTreeMap<TransactionId, Box<Transaction>>,
    /// Those of them to which branches are added one by one.
    interactive: BTreeSet<TransactionId>,
    keys: Keys,
    participants: Participants,
    timers: Timers<TransactionId>,
    locks: Locks,
    sessions: Sessions,
    log: Log,
    /// Transactions of this run.
    begun: usize,
    /// Their payload bytes.
    bytes: usize,
    /// Bytes of the outputs of all transactions, recovered ones too.
    outputs: usize,
    /// Transactions that only notify.
    notifying: usize,
}

macro_rules! context {
    ($self:ident, $now:expr, $actions:expr) => {
        Context {
            now: $now,
            config: &$self.config,
            participants: &mut $self.participants,
            timers: &mut $self.timers,
            locks: &mut $self.locks,
            log: &mut $self.log,
            actions: $actions,
        }
    };
}

// After the macro, which they use.
mod client;
mod durable;
mod forgetting;
mod locks;
mod projection;
mod waits;

impl FoundBranch {
    fn outcome(self) -> BranchOutcome {
        match self {
            Self { known: false, .. } => BranchOutcome::NotMine,
            Self { resolved: Some(true), number, output, .. } => {
                BranchOutcome::Committed { number: number + 1, output }
            }
            Self { resolved: Some(false), number, .. } => {
                BranchOutcome::Aborted { number: number + 1 }
            }
            Self { commit: true, number, output, .. } => {
                BranchOutcome::Committed { number, output }
            }
            Self { number, .. } => BranchOutcome::Aborted { number },
        }
    }
}

impl Coordinator {
    /// Takes up what the journal holds unfinished, and the sessions that hold locks.
    /// Serve nothing before its actions are performed. `epoch` is the run's, greater
    /// than that of each before.
    ///
    /// # Panics
    ///
    /// On an end record: what has ended is not unfinished.
    pub fn recover(
        config: Config,
        epoch: u64,
        sessions: impl IntoIterator<Item = SessionRecord>,
        records: impl IntoIterator<Item = Record>,
        now: Time,
    ) -> (Self, Vec<Action>) {
        let mut coordinator = Self {
            locks: Locks::new(config.deadlocks, config.max_locks, epoch),
            sessions: Sessions::default(),
            config,
            transactions: BTreeMap::new(),
            interactive: BTreeSet::new(),
            keys: Keys::default(),
            participants: Participants::default(),
            timers: Timers::default(),
            log: Log::default(),
            begun: 0,
            bytes: 0,
            outputs: 0,
            notifying: 0,
        };
        let records = records.into_iter();
        #[cfg(feature = "mutants")]
        let records = records.filter_map(crate::transaction::mutants::recovered);
        let mut actions = Vec::new();
        for session in sessions {
            let mut context = context!(coordinator, now, &mut actions);
            coordinator.sessions.restore(session, &mut context);
        }
        for record in records {
            let mut context = context!(coordinator, now, &mut actions);
            let transaction = match record {
                Record::Begin(record) => Transaction::recover_begun(record, &mut context),
                Record::Decision(record) => Transaction::recover_decided(record, &mut context),
                Record::End(record) => panic!("{} has ended and is no unfinished work", record.id),
            };
            if let Some((key, fingerprint)) = transaction.key() {
                coordinator.keys.take(key.clone(), transaction.id(), *fingerprint);
            }
            coordinator.outputs += transaction.output_bytes();
            coordinator.notifying += usize::from(transaction.is_closed());
            coordinator.transactions.insert(transaction.id(), Box::new(transaction));
        }
        (coordinator, actions)
    }

    /// Takes an event; what is to be done about it is added to `actions`.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        #[cfg(feature = "mutants")]
        let event = crate::transaction::mutants::received(event);
        match event {
            Event::Begin(begin) => self.begin(now, begin, actions),
            Event::Client { id, token, call } => self.client(now, id, token, call, actions),
            Event::Session { id, token, call } => {
                self.sessions.call(id, token, call, &mut context!(self, now, actions));
            }
            Event::KeyFound { id, found } => self.key_found(now, id, found, actions),
            Event::KeyUnreadable { id, why } => self.key_unreadable(id, &why, actions),
            Event::Voted { from, journal, id, branch, vote } => {
                let room = self.room_for_outputs();
                if let Some(transaction) = self.transactions.get_mut(&id) {
                    let mut context = context!(self, now, actions);
                    self.outputs +=
                        transaction.voted(from, journal, branch, vote, room, &mut context);
                }
                self.pump(now, from, 1, actions);
            }
            Event::Acknowledged { from, journal, id, branch, number, acknowledgement } => {
                if let Some(transaction) = self.transactions.get_mut(&id) {
                    let mut context = context!(self, now, actions);
                    let answer = acknowledgement;
                    transaction.acknowledged(from, journal, branch, number, answer, &mut context);
                }
                self.pump(now, from, 1, actions);
            }
            Event::Unreachable { participant, id, branch, attempt, why } => {
                if let Some(transaction) = self.transactions.get_mut(&id) {
                    let mut context = context!(self, now, actions);
                    transaction.unreachable(participant, branch, attempt, why, &mut context);
                }
                self.pump_freed(now, actions);
            }
            Event::Connected { participant, supports_inquiry, compensates, journal } => {
                self.note_journal(participant, journal);
                let known = self.participants.get(participant);
                known.supports_inquiry = supports_inquiry;
                known.compensates = Some(compensates);
                self.connected(now, participant, actions);
            }
            Event::Disconnected { participant, why } => {
                let known = self.participants.get(participant);
                known.connected = false;
                known.resume = None;
                known.away = Some(brief(&why)).filter(|why| !why.is_empty()).or(known.away.take());
            }
            Event::Durable { up_to } => self.durable(now, up_to, actions),
            Event::Inquired { from, id, branch, epoch } => {
                self.inquired(now, from, (id, branch), epoch, actions);
            }
            Event::Found { to, id, branch, found } => {
                let outcome = match found {
                    Found::Nothing => BranchOutcome::Aborted { number: 1 },
                    Found::Forgotten => BranchOutcome::NotMine,
                    Found::Branch(found) => found.outcome(),
                };
                actions.push(Action::Answer { to, id, branch, outcome });
            }
            Event::Tick => self.tick(now, actions),
        }
        self.end_lock_waits(now, actions);
    }

    fn connected(&mut self, now: Time, participant: ParticipantId, actions: &mut Vec<Action>) {
        let known = self.participants.get(participant);
        known.connected = true;
        known.away = None;
        let unfinished = &known.unfinished;
        known.resume = unfinished.first().copied().zip(unfinished.last().copied());
        let awaited = core::mem::take(&mut known.awaited);
        self.pump(now, participant, self.config.recovery_window, actions);
        for id in awaited {
            if let Some(transaction) = self.transactions.get_mut(&id) {
                transaction.link_is_up(&mut context!(self, now, actions));
            }
        }
    }

    fn tick(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((at, id)) = self.timers.pop(now) {
            if let Some(transaction) = self.transactions.get_mut(&id) {
                transaction.timer(at, &mut context!(self, now, actions));
                // Before the waits of others time out.
                self.end_lock_waits(now, actions);
            }
        }
        while self.sessions.tick(&mut context!(self, now, actions)) {
            self.end_lock_waits(now, actions);
        }
        self.pump_freed(now, actions);
    }

    /// When the next `Event::Tick` is due.
    pub fn next_timeout(&self) -> Option<Time> {
        let timeouts = self.timers.next().into_iter().chain(self.sessions.next_timeout());
        timeouts.min()
    }

    /// The transactions in memory, newest first, from before `before` on.
    pub fn list(&self, before: Option<TransactionId>) -> impl Iterator<Item = View> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.transactions.range((Bound::Unbounded, end)).rev();
        all.map(|(_, transaction)| transaction.view(false))
    }

    /// The transaction in memory that uses a request key.
    pub fn user_of(&self, key: &RequestKey) -> Option<TransactionId> {
        let user = self.keys.user(key).map(|(id, _)| id);
        user.filter(|id| self.transactions.contains_key(id))
    }

    /// How many transactions are in memory.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether no transaction is in memory.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// How many of them have ended for their clients, and are in memory only until a
    /// participant was notified of what an operator resolved.
    pub fn notifying(&self) -> usize {
        self.notifying
    }

    /// How many transactions with a branch at the participant are in memory.
    pub fn unfinished_at(&self, participant: ParticipantId) -> usize {
        self.participants.unfinished(participant)
    }

    /// A repeat is answered before new work is judged: whatever stands against a
    /// request that carries a key is returned only where the key is new.
    fn begin(&mut self, now: Time, begin: Box<Begin>, actions: &mut Vec<Action>) {
        let token = begin.waiter.token;
        let Some((key, fingerprint)) = begin.key.clone() else {
            return match self.refusal(&begin) {
                Some(reply) => actions.push(Action::Reply { token, reply }),
                None => self.start(now, *begin, actions),
            };
        };
        let user = self.keys.user(&key);
        if let Some((user, taken)) = user.filter(|(user, _)| !self.keys.is_looked_up(*user)) {
            return self.repeat(now, user, taken == fingerprint, *begin, actions);
        }
        // Whose the key is, the journal has to say.
        let refusal = self.refusal(&begin);
        if refusal.is_some() && !self.keys.has_room_for_a_repeat() {
            let reply = Reply::Refused(Refused::TooManyRepeats { limit: MAX_REPEATS });
            return actions.push(Action::Reply { token, reply });
        }
        let id = begin.id;
        let (user, pending) = (user.map(|(user, _)| user), PendingLookup::new(begin, refusal));
        if self.keys.look_up(key.clone(), fingerprint, user, pending) {
            actions.push(Action::LookupKey { id, key });
        }
    }

    /// What stands against a request as new work.
    fn refusal(&mut self, begin: &Begin) -> Option<Reply> {
        match begin.admitted {
            true => self.over_a_bound(begin).map(Reply::Refused),
            false => Some(Reply::NoRepeat),
        }
    }

    fn over_a_bound(&mut self, begin: &Begin) -> Option<Refused> {
        let config = &self.config;
        if self.begun + self.keys.pending_count() >= config.max_in_flight {
            return Some(Refused::TooManyInFlight { limit: config.max_in_flight });
        }
        if begin.branches.len() > config.max_branches {
            return Some(Refused::TooManyBranches { limit: config.max_branches });
        }
        if let Some(limit) = self.locks.no_room_for(begin.locks.len()) {
            return Some(Refused::TooManyLocks { limit });
        }
        self.no_room_for(&begin.branches)
    }

    fn no_room_for(&mut self, branches: &[NewBranch]) -> Option<Refused> {
        let limit = self.config.max_per_participant;
        for &NewBranch { participant, .. } in branches {
            if self.participants.get(participant).begun >= limit {
                return Some(Refused::TooManyAtParticipant { participant, limit });
            }
        }
        let limit = self.config.max_in_flight_bytes;
        let bytes: usize = branches.iter().map(|branch| branch.payload.len()).sum();
        let held = self.bytes + self.outputs + self.keys.pending_bytes();
        (held + bytes > limit).then_some(Refused::TooManyBytes { limit })
    }

    /// Payloads that fill the bound leave some room for what their branches return.
    fn room_for_outputs(&self) -> usize {
        let limit = self.config.max_in_flight_bytes;
        let most = limit.saturating_sub(self.bytes).max(limit / 4);
        most.saturating_sub(self.outputs)
    }

    fn start(&mut self, now: Time, begin: Begin, actions: &mut Vec<Action>) {
        let transaction = Transaction::begin(begin, &mut context!(self, now, actions));
        self.begun += 1;
        self.bytes += transaction.bytes();
        if transaction.is_opening() {
            self.interactive.insert(transaction.id());
        }
        self.transactions.insert(transaction.id(), Box::new(transaction));
    }

    /// A request whose key a run in memory has: with the same body it waits for that
    /// run. One that was content to have it unknown after a crash is joined by one
    /// that is not.
    fn repeat(
        &mut self,
        now: Time,
        user: TransactionId,
        same_body: bool,
        begin: Begin,
        actions: &mut Vec<Action>,
    ) {
        let token = begin.waiter.token;
        let transaction = self.transactions.get_mut(&user).filter(|_| same_body);
        let Some(transaction) = transaction else {
            let taken = begin.key.map(|(key, _)| Reply::Refused(Refused::KeyTaken(key)));
            return actions.extend(taken.map(|reply| Action::Reply { token, reply }));
        };
        transaction.announce(begin.id_may_be_known);
        let mut context = context!(self, now, actions);
        if begin.interactive && !transaction.is_opening() {
            transaction.touch(&mut context);
            return actions.push(Action::Reply { token, reply: Reply::Begun(user) });
        }
        transaction.wait(begin.waiter, &mut context);
    }

    fn key_found(
        &mut self,
        now: Time,
        id: TransactionId,
        found: Option<(TransactionId, Fingerprint)>,
        actions: &mut Vec<Action>,
    ) {
        let Some(waiting) = self.keys.unpark(id) else { return };
        let (key, mut begun) = (waiting.key.clone(), None);
        for pending in waiting.into_requests() {
            self.finish_lookup(now, pending, found, &mut begun, actions);
        }
        self.keys.answered(&key, id, begun);
    }

    /// Starts a request that waited for the journal, or answers whoever waits for it why not.
    fn finish_lookup(
        &mut self,
        now: Time,
        pending: PendingLookup,
        found: Option<(TransactionId, Fingerprint)>,
        begun: &mut Option<(TransactionId, Fingerprint)>,
        actions: &mut Vec<Action>,
    ) {
        let PendingLookup { begin, refusal } = pending;
        let Some((key, fingerprint)) = begin.key.clone() else {
            return;
        };
        // One that waited for the same answer has begun with it.
        if let Some((user, taken)) = *begun {
            return self.repeat(now, user, taken == fingerprint, *begin, actions);
        }
        let reply = match found {
            Some((user, taken)) if taken == fingerprint => Reply::See(user),
            Some(_) => Reply::Refused(Refused::KeyTaken(key)),
            // Runs with other keys may have filled what had room when its lookup began.
            None => match refusal.or_else(|| self.refusal(&begin)) {
                Some(refusal) => refusal,
                None => {
                    *begun = Some((begin.id, fingerprint));
                    return self.start(now, *begin, actions);
                }
            },
        };
        actions.push(Action::Reply { token: begin.waiter.token, reply });
    }

    fn inquired(
        &mut self,
        now: Time,
        from: Inquirer,
        (id, branch): (TransactionId, u32),
        epoch: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return actions.push(Action::Lookup { from, id, branch, epoch });
        };
        let outcome = transaction.inquired(branch, &mut context!(self, now, actions));
        actions.push(Action::Answer { to: from, id, branch, outcome });
    }

    /// One that never answers doesn't keep the others from being sent.
    fn pump_freed(&mut self, now: Time, actions: &mut Vec<Action>) {
        for (participant, freed) in self.participants.take_freed() {
            self.pump(now, participant, freed, actions);
        }
    }

    /// Sends to a participant that is back what it is owed, `window` messages
    /// at a time, so that new work gets its turn.
    fn pump(&mut self, now: Time, to: ParticipantId, window: usize, actions: &mut Vec<Action>) {
        let mut left = window;
        while left > 0
            && let Some((from, last)) = self.participants.get(to).resume
        {
            let known = self.participants.get(to);
            let mut owed = known.unfinished.range(from..=last).copied();
            let (id, next) = (owed.next(), owed.next());
            known.resume = next.map(|next| (next, last));
            if let Some(transaction) = id.and_then(|id| self.transactions.get_mut(&id)) {
                let sent = transaction.resume(to, false, &mut context!(self, now, actions));
                left = left.saturating_sub(sent);
            }
        }
    }
}
