//! One transaction.
//!
//! Invariants:
//! - The state changes in the `become_*` functions only; each asserts where it
//!   comes from.
//! - Commit is sent, and 'committed' is shown, only from `Committing` on, which
//!   is entered when the commit record is reported durable.
//! - From `Deciding` on there is no way to abort but to compensate a commit, which
//!   its client asked for; from `Compensating` or `Aborting` on there is none to commit.
//! - A transaction in one phase whose prepare was sent is aborted only when its
//!   participant says so.
//! - Nothing is sent before its locks are held and that is durable, and they are
//!   held until nothing is owed.
//! - No prepare is sent while a participant is known to be away.

mod acknowledge;
mod branch;
mod compensate;
mod decide;
mod finish;
mod linking;
mod locking;
#[cfg(feature = "mutants")]
pub(crate) mod mutants;
mod notify;
mod phase;
mod prepare;
mod projection;
mod repeat;
mod resolve;
mod show;
mod timing;

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::time::Duration;

use dtc_protocol::{JournalId, TransactionId};

use crate::{
    Action, AnswerAt, Begin, CallKey, Config, Fingerprint, Intervention, LockKey, LockMode,
    NewBranch, Opaque, Options, Reason, Record, Reply, RequestKey, Sequence, SessionRecord, Time,
    TrailEvent, TrailKind, Waiter,
    locks::Locks,
    log::{Log, RecordPurpose},
    participants::Participants,
    timers::Timers,
};
use branch::Branch;
use locking::Locking;
pub use phase::Phase;
use repeat::Answered;
pub(crate) use repeat::refuse;

/// Calls that may wait for one transaction.
const MAX_WAITERS: usize = 256;

/// What a transaction may touch beside itself.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    pub(crate) participants: &'a mut Participants,
    pub(crate) timers: &'a mut Timers<TransactionId>,
    pub(crate) locks: &'a mut Locks,
    pub(crate) log: &'a mut Log,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Context<'_> {
    fn append(&mut self, record: Record, sync: bool, purpose: RecordPurpose) {
        let sequence = self.log.expect(record.id(), purpose);
        let record = Box::new(record);
        self.actions.push(Action::Append { sequence, record, sync });
    }

    /// The same for a session, which learns of it by the place of the record.
    pub(crate) fn append_session(&mut self, record: SessionRecord, sync: bool) -> Sequence {
        let sequence = self.log.next();
        let record = Box::new(record);
        self.actions.push(Action::AppendSession { sequence, record, sync });
        sequence
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    id: TransactionId,
    age: TransactionId,
    key: Option<(RequestKey, Fingerprint)>,
    interactive: bool,
    id_may_be_known: bool,
    trace: Option<Opaque>,
    options: Box<Options>,
    state: Phase,
    branches: Vec<Branch>,
    /// What it is to lock before anything is sent.
    locks: Vec<(LockKey, LockMode)>,
    /// Interactive: a call that waits for locks.
    locking: Option<Box<Locking>>,
    /// Calls with keys, and how they were answered.
    answered: Vec<Answered>,
    waiters: Vec<Waiter>,
    trail: Trail,
    begun_at: Time,
    decision: Decision,
    end: End,
    interventions: Vec<Intervention>,
    /// Branches that are resolved by an operator once that is durable, and how.
    resolving: Vec<(usize, bool)>,
    /// Branches whose participants are not to be notified, once that is durable.
    abandoning: Vec<usize>,
    /// One phase was asked of the only branch.
    one_phase: bool,
    /// Votes lead to the decision, with no further word of the client.
    commit_requested: bool,
    /// The begin record is durable.
    logged: bool,
    stalled: bool,
    /// Prepare's deadline, or the client's idle limit.
    deadline: Option<Time>,
    /// The earliest timer that is set.
    timer: Option<Time>,
    /// Read from the journal at start.
    recovered: bool,
}

/// What happened.
#[derive(Debug, Clone, Default)]
struct Trail {
    events: Vec<TrailEvent>,
    /// What happened since a decision that is not visible yet.
    withheld: Vec<Action>,
    /// How many of the events the decision record has.
    recorded: usize,
}

/// The decision, once there is one.
#[derive(Debug, Clone)]
struct Decision {
    commit: bool,
    number: u32,
    at: Option<Time>,
    reason: Option<Arc<Reason>>,
    /// The abort record is durable, or nobody has to wait for it.
    is_visible: bool,
}

/// Its end, once it has one.
#[derive(Debug, Clone, Default)]
struct End {
    at: Option<Time>,
    /// What it was turned into can't change any more.
    is_durable: bool,
    /// It has ended for its clients, durably, and still notifies.
    is_closed: bool,
}

/// How much of its newest decision may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visibility {
    /// There is none, or no outcome yet.
    Pending,
    /// Nothing: it is not durable.
    Hidden,
    /// Its outcome, to clients too.
    Visible,
}

impl Transaction {
    fn new(id: TransactionId, begun_at: Time, options: Box<Options>) -> Self {
        Self {
            id,
            age: id,
            key: None,
            interactive: false,
            id_may_be_known: false,
            trace: None,
            options,
            state: Phase::Opening,
            branches: Vec::new(),
            locks: Vec::new(),
            locking: None,
            answered: Vec::new(),
            waiters: Vec::new(),
            trail: Trail::default(),
            begun_at,
            decision: Decision {
                commit: false,
                number: 1,
                at: None,
                reason: None,
                is_visible: false,
            },
            end: End::default(),
            interventions: Vec::new(),
            resolving: Vec::new(),
            abandoning: Vec::new(),
            one_phase: false,
            commit_requested: false,
            logged: false,
            stalled: false,
            deadline: None,
            timer: None,
            recovered: false,
        }
    }

    /// One of a run before, whose record is durable.
    fn recovered(id: TransactionId, begun_at: Time, options: Options) -> Self {
        let new = Self::new(id, begun_at, Box::new(options));
        Self { logged: true, recovered: true, ..new }
    }

    /// Starts one that a client asked for.
    pub(crate) fn begin(begin: Begin, context: &mut Context) -> Self {
        let mut transaction = Self {
            age: begin.age,
            key: begin.key,
            interactive: begin.interactive,
            id_may_be_known: begin.id_may_be_known,
            trace: begin.trace,
            branches: Vec::with_capacity(begin.branches.len()),
            locks: begin.locks,
            waiters: Vec::from([begin.waiter]),
            trail: Trail {
                events: Vec::with_capacity(4 + 4 * begin.branches.len()),
                ..Trail::default()
            },
            commit_requested: !begin.interactive,
            ..Self::new(begin.id, context.now, begin.options)
        };
        transaction.note(context, TrailKind::Begun, None);
        for branch in begin.branches {
            transaction.add(branch, context);
        }
        if transaction.interactive {
            let record = transaction.begin_record(context);
            transaction.append(record, true, RecordPurpose::Opened, context);
        } else {
            transaction.start_prepare(context);
        }
        transaction
    }

    /// Adds a branch to an active transaction.
    pub(crate) fn enlist(
        &mut self,
        branch: NewBranch,
        key: Option<CallKey>,
        token: u64,
        context: &mut Context,
    ) {
        debug_assert_eq!(self.state, Phase::Active);
        self.add(branch, context);
        let number = self.branches.len() as u32 - 1;
        self.remember_enlisted(key, number);
        self.note(context, TrailKind::Enlisted, Some(number as usize));
        self.touch(context);
        context.actions.push(Action::Reply { token, reply: Reply::Enlisted(number) });
    }

    fn add(&mut self, branch: NewBranch, context: &mut Context) {
        let participant = context.participants.get(branch.participant);
        if participant.unfinished.insert(self.id) {
            participant.begun += 1;
        }
        let NewBranch { participant, payload, one_phase } = branch;
        self.branches.push(Branch { one_phase, ..Branch::new(participant, payload) });
    }

    /// Asks for a record of it.
    fn append(
        &mut self,
        record: Record,
        sync: bool,
        purpose: RecordPurpose,
        context: &mut Context,
    ) {
        #[cfg(feature = "mutants")]
        if mutants::is_unawaited(purpose) {
            return mutants::append_unawaited(self, record, sync, purpose, context);
        }
        context.append(record, sync, purpose);
        #[cfg(feature = "mutants")]
        mutants::appended(self, purpose, context);
    }

    /// A record that was asked for is durable. True when the transaction may be
    /// forgotten.
    pub(crate) fn durable(&mut self, purpose: RecordPurpose, context: &mut Context) -> bool {
        match purpose {
            RecordPurpose::Opened => {
                self.logged = true;
                self.become_active(context);
                self.answer(context);
                self.set_timer(context);
            }
            RecordPurpose::Logged => {
                self.logged = true;
                if self.state == Phase::ForcingBegin {
                    self.become_preparing(context);
                }
                self.answer(context);
                self.set_timer(context);
            }
            RecordPurpose::Committed => self.become_committing(context),
            RecordPurpose::Aborted => {
                self.decision.is_visible = true;
                context.actions.append(&mut self.trail.withheld);
                self.answer(context);
            }
            RecordPurpose::CompensationDecided => self.become_compensating(context),
            RecordPurpose::Noted => {}
            RecordPurpose::Resolved => self.become_resolved(context),
            RecordPurpose::Closed => self.become_closed(context),
            RecordPurpose::Abandoned => self.become_abandoned(context),
            RecordPurpose::Ended => {
                self.end.is_durable = true;
                context.actions.append(&mut self.trail.withheld);
                self.answer(context);
                return true;
            }
        }
        false
    }

    fn become_active(&mut self, context: &mut Context) {
        if self.state != Phase::Opening {
            return;
        }
        self.state = Phase::Active;
        for waiter in self.waiters.drain(..) {
            let reply = Reply::Begun(self.id);
            context.actions.push(Action::Reply { token: waiter.token, reply });
        }
        self.touch(context);
    }

    /// The client is alive: its idle limit begins anew.
    pub(crate) fn touch(&mut self, context: &mut Context) {
        if matches!(self.state, Phase::Active | Phase::Prepared) && self.locking.is_none() {
            self.deadline = Some(context.now + self.options.idle_timeout);
            self.set_timer(context);
        }
    }

    /// Takes a call that waits for something. Callers that are gone are not known
    /// here, so that beyond a bound the oldest call is answered as if its wait had
    /// ended.
    pub(crate) fn wait(&mut self, waiter: Waiter, context: &mut Context) {
        if self.waiters.len() >= MAX_WAITERS {
            let oldest = self.waiters.remove(0);
            let reply = Reply::Transaction(self.view(false).into());
            context.actions.push(Action::Reply { token: oldest.token, reply });
        }
        self.waiters.push(waiter);
        self.answer(context);
        self.set_timer(context);
    }

    /// No call waits any longer.
    pub(crate) fn end_waits(&mut self, context: &mut Context) {
        for waiter in &mut self.waiters {
            waiter.until = waiter.until.min(context.now);
        }
        self.answer(context);
    }

    /// Answers the calls whose moment has come.
    fn answer(&mut self, context: &mut Context) {
        if self.waiters.is_empty() {
            return;
        }
        let visible = self.is_outcome_visible();
        let reached = |at| match at {
            AnswerAt::Begun => visible || self.logged,
            AnswerAt::Prepared => visible || self.state == Phase::Prepared,
            AnswerAt::Decision => visible,
            AnswerAt::Completion => visible && self.has_ended() && self.abandoning.is_empty(),
        };
        let known = self.is_known();
        let ready = |waiter: &Waiter| reached(waiter.at) || (known && waiter.until <= context.now);
        if !self.waiters.iter().any(ready) {
            return;
        }
        let (answered, waiting) = self.waiters.iter().partition(|waiter| ready(waiter));
        self.waiters = waiting;
        let answered: Vec<Waiter> = answered;
        for waiter in answered {
            let reply = Reply::Transaction(self.view(false).into());
            context.actions.push(Action::Reply { token: waiter.token, reply });
        }
    }

    /// From here on no client gets its id before that is good for asking.
    pub(crate) fn announce(&mut self, id_may_be_known: bool) {
        self.id_may_be_known |= id_may_be_known;
    }

    /// Whether a client may get its id: none that a crash would make unknown, where
    /// it could be asked for.
    fn is_known(&self) -> bool {
        !self.id_may_be_known || self.logged || self.is_outcome_visible()
    }

    /// How much of its newest decision may be shown.
    fn visibility(&self) -> Visibility {
        #[cfg(feature = "mutants")]
        if let Some(visibility) = mutants::visibility(self) {
            return visibility;
        }
        let decision = &self.decision;
        match self.state {
            Phase::Deciding | Phase::Compensating => Visibility::Hidden,
            Phase::Committing if self.commit_stands() => Visibility::Visible,
            Phase::Notifying | Phase::Ended if decision.commit => match self.commit_stands() {
                true => Visibility::Visible,
                false => Visibility::Hidden,
            },
            Phase::Aborting | Phase::Notifying | Phase::Ended if !decision.is_visible => {
                Visibility::Hidden
            }
            Phase::Aborting if !self.is_compensating() => Visibility::Visible,
            Phase::Notifying | Phase::Ended => Visibility::Visible,
            _ => Visibility::Pending,
        }
    }

    /// Whether its outcome is visible to clients.
    fn is_outcome_visible(&self) -> bool {
        self.visibility() == Visibility::Visible
    }

    /// Whether its newest decision is not durable, so that nothing of it may be shown.
    fn is_outcome_hidden(&self) -> bool {
        self.visibility() == Visibility::Hidden
    }

    /// Whether it was decided, durably or not.
    fn is_decided(&self) -> bool {
        #[cfg(feature = "mutants")]
        if mutants::is_taken_back(self) {
            return false;
        }
        matches!(
            self.state,
            Phase::Deciding
                | Phase::Committing
                | Phase::Compensating
                | Phase::Aborting
                | Phase::Notifying
                | Phase::Ended
        )
    }

    /// Whether its decision is durable, and what becomes of it may be shown.
    fn is_durably_decided(&self) -> bool {
        self.is_outcome_visible()
            || self.state == Phase::Committing
            || self.has_ended() && self.decision.commit
            || self.state == Phase::Aborting && self.is_compensating()
    }

    /// Puts an event on the trail and reports it to the driver.
    fn note(&mut self, context: &mut Context, kind: TrailKind, branch: Option<usize>) {
        let (participant, refusal, attempt) = match branch.map(|number| &self.branches[number]) {
            Some(branch) => (Some(branch.participant), branch.refusal.clone(), branch.attempts),
            None => (None, None, 0),
        };
        let reason = match kind {
            TrailKind::DecidedAbort | TrailKind::CompensationDecided => {
                self.decision.reason.clone()
            }
            TrailKind::VotedAbort => refusal,
            _ => None,
        };
        let branch = branch.map(|number| number as u32);
        let event = TrailEvent { at: context.now, kind, branch, attempt };
        let same = |old: &&mut TrailEvent| old.kind == kind && old.branch == branch;
        let recorded = self.trail.recorded;
        // Where the number of attempts decides, each of them is kept.
        let counted = matches!(kind, TrailKind::Retried | TrailKind::Unreachable)
            && self.state == Phase::Committing
            && self.attempts_to_commit().is_some()
            && !self.is_forced();
        let repeated = (kind.repeats() && !counted)
            .then(|| self.trail.events[recorded..].iter_mut().find(same));
        match repeated.flatten() {
            Some(old) => *old = event,
            None => self.trail.events.push(event),
        }
        let since = match kind {
            TrailKind::DecidedCommit | TrailKind::DecidedAbort => Some(self.begun_at),
            TrailKind::Ended => self.decision.at,
            _ => None,
        };
        let took = since.map_or(Duration::ZERO, |since| context.now.since(since));
        let happened = Action::Happened { id: self.id, event, participant, reason, took };
        if show::shows_a_decision(kind) && self.is_outcome_hidden() {
            self.trail.withheld.push(happened);
        } else {
            context.actions.push(happened);
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> TransactionId {
        self.id
    }

    /// The client's key and its fingerprint.
    pub(crate) fn key(&self) -> Option<&(RequestKey, Fingerprint)> {
        self.key.as_ref()
    }

    /// Whether it counts for the bounds of this run.
    pub(crate) fn is_counted(&self) -> bool {
        !self.recovered && !self.end.is_closed
    }

    /// How many branches it has.
    pub(crate) fn branch_count(&self) -> usize {
        self.branches.len()
    }

    /// Where its branches are.
    pub(crate) fn participants(&self) -> impl Iterator<Item = crate::ParticipantId> {
        self.branches.iter().map(|branch| branch.participant)
    }

    /// Where the branches are that it owes something, and which journals voted for them;
    /// once it only notifies, only those that are known: who gave no id can't ask, and
    /// forgets nothing on its word.
    pub(crate) fn journals(
        &self,
    ) -> impl Iterator<Item = (crate::ParticipantId, Option<JournalId>)> {
        let owed = |it: &&Branch| !self.end.is_closed || it.notify && it.journal.is_some();
        self.branches.iter().filter(owed).map(|it| (it.participant, it.journal))
    }

    /// Payload bytes that it was begun or enlisted with.
    pub(crate) fn bytes(&self) -> usize {
        self.branches.iter().map(|branch| branch.bytes).sum()
    }

    /// Bytes that its branches returned.
    pub(crate) fn output_bytes(&self) -> usize {
        self.branches.iter().filter_map(|branch| branch.output.as_deref()).map(<[u8]>::len).sum()
    }
}
