//! What all ways in share: a batch of requests becomes one work of the store,
//! and is answered when that is durable.
//!
//! Invariants:
//! - Every batch passes the fence in the transaction that does it; an older run
//!   changes nothing, however long its link has been open.
//! - A newer run is written in the same transaction, so before any answer.
//! - Decisions go before prepares: they free what is reserved.
//! - A prepare that has to wait for locks holds nothing up: its batch is answered,
//!   and it later.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use dtc_proto::{
    dtc::{AbortReason, Acknowledgement, LinkAcknowledgement, LinkVote, Vote},
    marker::{EPOCH, FENCED, INCARNATION, mark},
};
use dtc_protocol::{
    BranchId, CoordinatorId,
    fence::{Admission, Run, admit},
};
use dtc_runtime::Environment;
use dtc_store::{Store, Urgency, WriteError, crash_point, in_savepoint};
use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;
use tonic::{Status, metadata::MetadataValue};

use crate::{
    Refusal, ResourceManager,
    branches::{self, BatchRolledBack, Branches, DecisionResult, Effects, ResolveError, Undo},
    domain::Domain,
    footprint::Footprint,
    high_water_mark::HighWaterMark,
    journal,
    limits::Limits,
    links::Links,
    lock_waits::{DEADLOCK, LockWaiter, LockWaits},
    locks::BranchLocks,
    metrics::Metrics,
    prepared_cache::PreparedCache,
    resolutions::HeuristicDecision,
    retention::{Forgotten, millis},
    wire::{Batch, Decision, Origin},
};

/// A participant at work.
pub(crate) struct Engine<R: ResourceManager> {
    pub(crate) store: Store,
    pub(crate) resource: Domain<R>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) links: Links,
    pub(crate) environment: Environment,
    /// Undecided branches, the batch that is being done included.
    undecided: AtomicI64,
    pub(crate) high_water_mark: HighWaterMark,
    pub(crate) forgotten: Forgotten,
    pub(crate) footprint: Footprint,
    pub(crate) prepared_cache: PreparedCache,
    pub(crate) lock_waits: LockWaits<R>,
    /// Branches that the one who was asked doesn't know.
    not_mine: Mutex<HashSet<BranchId>>,
}

/// The answers to a batch.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) votes: Vec<LinkVote>,
    pub(crate) acknowledgements: Vec<LinkAcknowledgement>,
    /// Of prepares that wait for locks, one each; an end without an answer where another
    /// attempt took the place.
    pub(crate) later: Vec<DeferredVotes>,
    /// Which of the batch's prepares have to wait.
    pub(crate) waiting: Vec<usize>,
    /// Branches that hold locks from now on, once this is durable.
    pub(crate) promised: Vec<BranchId>,
    /// Branches that hold none any more, once this is durable.
    settled: Vec<BranchId>,
    /// Branches in doubt that the one who was asked doesn't know.
    not_mine: Vec<BranchId>,
    effects: Effects,
}

/// The answer to a prepare that waits.
pub(crate) type DeferredVotes = oneshot::Receiver<Result<Answers, Refused>>;

/// Why a batch was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "coordinator {coordinator}: epoch {} (incarnation {}) was presented, but epoch {} (incarnation {}) is known; this run was replaced",
        presented.epoch, presented.incarnation, known.epoch, known.incarnation
    )]
    Stale { coordinator: CoordinatorId, presented: Run, known: Run },
    #[error("the storage failed: {0}")]
    Storage(#[from] rusqlite::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the prepare waits for a lock no longer: a later attempt took its place")]
    Replaced,
}

impl From<&Refused> for Status {
    fn from(refused: &Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Stale { known, .. } => {
                let mut status = mark(Self::failed_precondition(message), FENCED);
                status.metadata_mut().insert(EPOCH, MetadataValue::from(known.epoch));
                if let Ok(incarnation) = known.incarnation.to_string().parse() {
                    status.metadata_mut().insert(INCARNATION, incarnation);
                }
                status
            }
            Refused::Storage(_) => Self::internal(message),
            Refused::Write(_) | Refused::Replaced => Self::unavailable(message),
        }
    }
}

impl<R: ResourceManager> Engine<R> {
    pub(crate) async fn new(
        store: Store,
        resource: R,
        limits: Limits,
        metrics: Metrics,
        environment: Environment,
    ) -> Result<Arc<Self>, dtc_store::ReadError> {
        let locks = store.read(restore).await?;
        let undecided = store.read(journal::count_undecided).await?;
        let high_water_mark = store.read(HighWaterMark::read).await?;
        let forgotten = store.read(Forgotten::read).await?;
        metrics.undecided.set(undecided);
        let engine = Self {
            store,
            resource: Domain::new(resource),
            limits,
            metrics,
            links: Links::default(),
            environment,
            undecided: AtomicI64::new(undecided),
            high_water_mark,
            forgotten,
            footprint: Footprint::default(),
            prepared_cache: PreparedCache::default(),
            lock_waits: LockWaits::new(locks),
            not_mine: Mutex::default(),
        };
        engine.count_locks();
        Ok(Arc::new(engine))
    }

    /// How long this participant has run, over all of its runs, in milliseconds: for
    /// retention.
    pub(crate) fn service_time(&self) -> i64 {
        millis(self.store.service_time())
    }

    /// The wall clock in milliseconds, for people.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from((self.environment.wall_clock)().as_millis()).unwrap_or(i64::MAX)
    }

    /// Does a batch and calls `done`, on the storage's thread, once that is durable.
    pub(crate) fn submit(
        self: &Arc<Self>,
        origin: Arc<Origin>,
        batch: Batch<R>,
        done: impl FnOnce(Result<Answers, Refused>) + Send + 'static,
    ) {
        if !batch.decisions.is_empty() {
            crash_point("participant-decision-received");
        }
        let engine = Arc::clone(self);
        let weight = batch.len().max(1);
        let work: dtc_store::Work = Box::new(move |transaction| {
            let mut result = engine.admit(transaction, &origin).map(|()| {
                engine.lock_waits.decide(&batch.decisions);
                engine.attempt(transaction, |undo| {
                    let mut answers = engine.decide(transaction, undo, &batch.decisions)?;
                    engine.prepare(transaction, undo, &origin, &batch, &mut answers)?;
                    Ok(answers)
                })
            });
            engine.sort_out(&origin, batch, &mut result);
            engine.completion(result, done)
        });
        self.store.submit(Urgency::Forced, weight, work);
    }

    /// What is done once the fate of a batch is known.
    fn completion(
        self: Arc<Self>,
        result: Result<Answers, Refused>,
        done: impl FnOnce(Result<Answers, Refused>) + Send + 'static,
    ) -> dtc_store::Completion {
        #[cfg(feature = "mutants")]
        if crate::mutants::answers_early() {
            done(self.conclude(result, Ok(())));
            return Box::new(drop);
        }
        Box::new(move |durable| done(self.conclude(result, durable)))
    }

    /// Like [`Self::submit`], for callers that wait, also for what has to wait for
    /// locks.
    pub(crate) async fn perform(
        self: &Arc<Self>,
        origin: Arc<Origin>,
        batch: Batch<R>,
    ) -> Result<Answers, Refused> {
        let (answer, answered) = oneshot::channel();
        self.submit(origin, batch, move |result| drop(answer.send(result)));
        let mut answers = answered.await.unwrap_or(Err(WriteError::Closed.into()))?;
        while let Some(later) = answers.later.pop() {
            let more = tokio::select! {
                biased;
                () = self.environment.shutdown.begun() => Err(WriteError::Closed.into()),
                more = later => more.unwrap_or(Err(Refused::Replaced)),
            }?;
            answers.votes.extend(more.votes);
            answers.later.extend(more.later);
        }
        Ok(answers)
    }

    /// Tries again what the domain could not do.
    pub(crate) async fn retry(
        self: &Arc<Self>,
        decisions: Vec<Decision>,
    ) -> Result<Answers, Refused> {
        let (answer, answered) = oneshot::channel();
        let engine = Arc::clone(self);
        self.metrics.retries.inc_by(decisions.len() as u64);
        let work: dtc_store::Work = Box::new(move |transaction| {
            engine.lock_waits.decide(&decisions);
            let answers =
                engine.attempt(transaction, |undo| engine.decide(transaction, undo, &decisions));
            Box::new(move |durable| drop(answer.send(engine.conclude(Ok(answers), durable))))
        });
        self.store.submit(Urgency::Forced, 1, work);
        answered.await.unwrap_or(Err(WriteError::Closed.into()))
    }

    /// Decides a branch for an operator.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        branch: BranchId,
        resolution: HeuristicDecision,
    ) -> Result<Result<(), ResolveError>, Refused> {
        let (answer, answered) = oneshot::channel();
        let engine = Arc::clone(self);
        let work: dtc_store::Work = Box::new(move |transaction| {
            let mut done = Err(ResolveError::Unknown);
            let answers = engine.attempt(transaction, |undo| {
                // What SQLite has rolled back must not be written by itself.
                if transaction.is_autocommit() {
                    done = Err(ResolveError::Failed("the storage rolled the batch back".into()));
                    return Ok(Answers::default());
                }
                let mut branches = engine.branches(transaction, undo);
                done = branches.resolve(&branch, &resolution)?;
                let settled = done.iter().map(|()| branch).collect();
                Ok(Answers { settled, effects: branches.effects, ..Answers::default() })
            });
            Box::new(move |durable| {
                let concluded = engine.conclude(Ok(answers), durable);
                drop(answer.send(concluded.map(|_| done)));
            })
        });
        self.store.submit(Urgency::Forced, 1, work);
        answered.await.unwrap_or(Err(WriteError::Closed.into()))
    }

    fn admit(&self, transaction: &Transaction<'_>, origin: &Origin) -> Result<(), Refused> {
        let known = journal::highest_run(transaction, &origin.coordinator)?;
        match (admit(known.as_ref(), &origin.run), known) {
            (Admission::Stale, Some(known)) => {
                self.metrics.stale_refusals.inc();
                let (coordinator, presented) = (origin.coordinator, origin.run);
                Err(Refused::Stale { coordinator, presented, known })
            }
            (Admission::Newer, _) => {
                journal::keep_highest_run(transaction, &origin.coordinator, &origin.run)?;
                Ok(())
            }
            (Admission::Current | Admission::Stale, _) => Ok(()),
        }
    }

    /// Does a batch in one savepoint: one for each request costs more than the
    /// work. Where a request fails after it has written, all is undone and done
    /// again with a savepoint for each.
    fn attempt(
        &self,
        transaction: &Transaction<'_>,
        mut work: impl FnMut(Undo) -> Result<Answers, BatchRolledBack>,
    ) -> Answers {
        let mut answers = None;
        let released = in_savepoint(transaction, |_| {
            answers = Some(work(Undo::WithBatch)?);
            Ok::<_, BatchRolledBack>(())
        });
        // Where SQLite has ended the transaction, the savepoint went with it.
        let done = answers.filter(|_| released.is_ok() || transaction.is_autocommit());
        let answers = done.unwrap_or_else(|| {
            self.prepared_cache.clear();
            match work(Undo::Alone) {
                Ok(answers) => answers,
                Err(BatchRolledBack) => unreachable!("each request is undone alone"),
            }
        });
        self.undecided.fetch_add(answers.effects.undecided, Relaxed);
        answers
    }

    fn decide(
        &self,
        transaction: &Transaction<'_>,
        undo: Undo,
        decisions: &[Decision],
    ) -> Result<Answers, BatchRolledBack> {
        let mut branches = self.branches(transaction, undo);
        let mut acknowledgements = Vec::with_capacity(decisions.len());
        let (mut settled, mut not_mine) = (Vec::new(), Vec::new());
        let is_used = self.lock_waits.is_used();
        for decision in decisions {
            let result = match transaction.is_autocommit() {
                true => DecisionResult::Failed("the storage rolled the batch back".into()),
                false => branches.decide(decision)?,
            };
            match result {
                DecisionResult::NotMine => not_mine.push(decision.branch),
                _ if is_used && result.is_over() => settled.push(decision.branch),
                _ => {}
            }
            acknowledgements.extend(branches::acknowledge(decision, result));
        }
        let effects = branches.effects;
        Ok(Answers { acknowledgements, settled, not_mine, effects, ..Answers::default() })
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        undo: Undo,
        origin: &Origin,
        batch: &Batch<R>,
        answers: &mut Answers,
    ) -> Result<(), BatchRolledBack> {
        let mut branches = self.branches(transaction, undo);
        branches.forgotten = self.forgotten.of(&origin.coordinator);
        let before = self.undecided.load(Relaxed) + answers.effects.undecided;
        let disk = (!self.store.has_room()).then(disk_full);
        answers.votes.reserve(batch.prepares.len());
        for (index, request) in batch.prepares.iter().enumerate() {
            if transaction.is_autocommit() {
                answers.votes.push(branches::abort::<R>(&request.branch, &disk_full()));
                continue;
            }
            let undecided = before + branches.effects.undecided;
            let limit = self.limits.max_undecided;
            let bound = (undecided >= limit && !request.one_phase).then(|| {
                let message = format!(
                    "this participant has {undecided} undecided branches, the limit is {limit}"
                );
                Refusal::new("TOO_MANY_UNDECIDED", message)
            });
            let room = disk.as_ref().or(bound.as_ref());
            let Some(vote) = branches.prepare(origin, request, room)? else {
                answers.waiting.push(index);
                continue;
            };
            if self.lock_waits.is_used() && vote.vote() == Vote::Commit && !vote.committed {
                answers.promised.push(request.branch);
            }
            answers.votes.push(vote);
        }
        answers.effects.add(branches.effects);
        Ok(())
    }

    fn branches<'a>(&'a self, transaction: &'a Transaction<'a>, undo: Undo) -> Branches<'a, R> {
        Branches {
            resource: &self.resource,
            transaction,
            high_water_mark: &self.high_water_mark,
            prepared_cache: &self.prepared_cache,
            lock_waits: &self.lock_waits,
            forgotten: None,
            undo,
            now: self.now(),
            service_time: self.service_time(),
            effects: Effects::default(),
        }
    }

    /// What may be said, now that the fate of the batch is known.
    fn conclude(
        self: &Arc<Self>,
        result: Result<Answers, Refused>,
        durable: Result<(), WriteError>,
    ) -> Result<Answers, Refused> {
        let mut answers = result?;
        self.release(match durable {
            Ok(()) => &answers.settled,
            Err(_) => &answers.promised,
        });
        if let Err(error) = durable {
            self.prepared_cache.clear();
            self.undecided.fetch_sub(answers.effects.undecided, Relaxed);
            if answers.is_empty() {
                return Err(error.into());
            }
            answers.take_back::<R>(&error);
            return Ok(answers);
        }
        if answers.votes.iter().any(|vote| vote.vote() == Vote::Commit) {
            crash_point("participant-prepared-durable");
        }
        if answers.effects.compensations > 0 {
            crash_point("participant-undone");
        }
        if !answers.acknowledgements.is_empty() {
            crash_point("participant-applied");
        }
        self.metrics.undecided.set(self.undecided.load(Relaxed));
        if !answers.not_mine.is_empty() {
            self.note_not_mine(&answers.not_mine);
        }
        self.count(&answers);
        Ok(answers)
    }

    fn count(&self, answers: &Answers) {
        let votes = &self.metrics.votes;
        for vote in &answers.votes {
            match vote.vote() {
                Vote::Commit => votes.commit.inc(),
                Vote::ReadOnly => votes.read_only.inc(),
                Vote::Abort | Vote::Unspecified => votes.abort.inc(),
            }
            if vote.abort_reason.as_ref().is_some_and(|reason| reason.code == DEADLOCK) {
                self.metrics.deadlocks.inc();
            }
        }
        self.metrics.commits.inc_by(answers.effects.commits);
        self.metrics.rollbacks.inc_by(answers.effects.rollbacks);
        self.metrics.compensations.inc_by(answers.effects.compensations);
        self.metrics.domain_errors.inc_by(answers.effects.domain_errors);
        self.metrics.domain_panics.inc_by(answers.effects.domain_panics);
        self.footprint.add(answers.effects.bytes);
    }

    /// Notes branches that nobody decides, until somebody does.
    pub(crate) fn note_not_mine(&self, branches: &[BranchId]) {
        for branch in branches {
            tracing::warn!(
                transaction = %branch.transaction, branch = branch.number,
                coordinator = %branch.coordinator,
                "in doubt, and the coordinator that was asked does not know the run that prepared it; the branch stays in doubt"
            );
        }
        let mut not_mine = self.not_mine.lock().unwrap_or_else(PoisonError::into_inner);
        not_mine.extend(branches);
        self.metrics.not_mine.set(not_mine.len().cast_signed() as i64);
    }

    /// Forgets what was noted of branches that are not among the undecided ones.
    pub(crate) fn keep_not_mine(&self, undecided: &HashSet<BranchId>) {
        let mut not_mine = self.not_mine.lock().unwrap_or_else(PoisonError::into_inner);
        not_mine.retain(|branch| undecided.contains(branch));
        self.metrics.not_mine.set(not_mine.len().cast_signed() as i64);
    }

    /// Whether nobody who was asked knows the run that prepared a branch.
    pub(crate) fn is_not_mine(&self, branch: &BranchId) -> bool {
        self.not_mine.lock().unwrap_or_else(PoisonError::into_inner).contains(branch)
    }

    pub(crate) fn has_not_mine(&self) -> bool {
        !self.not_mine.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Answers {
    fn is_empty(&self) -> bool {
        self.votes.is_empty() && self.acknowledgements.is_empty() && self.later.is_empty()
    }

    /// Nothing of the batch is in the file.
    fn take_back<R: ResourceManager>(&mut self, error: &WriteError) {
        let Refusal { code, message } = disk_full();
        for vote in &mut self.votes {
            let (code, participant) = (code.into(), R::NAME.into());
            let reason = AbortReason { code, message: message.clone(), participant };
            *vote = LinkVote {
                transaction_id: std::mem::take(&mut vote.transaction_id),
                branch: vote.branch,
                vote: Vote::Abort.into(),
                output: None,
                abort_reason: Some(reason),
                committed: false,
            };
        }
        for acknowledgement in &mut self.acknowledgements {
            acknowledgement.set_acknowledgement(Acknowledgement::Failed);
            acknowledgement.message = error.to_string();
        }
    }
}

impl Effects {
    fn add(&mut self, more: Self) {
        self.undecided += more.undecided;
        self.commits += more.commits;
        self.rollbacks += more.rollbacks;
        self.compensations += more.compensations;
        self.domain_errors += more.domain_errors;
        self.domain_panics += more.domain_panics;
        self.bytes += more.bytes;
    }
}

/// Looks through the journal, and takes the locks of what it has promised.
fn restore<R: ResourceManager>(
    connection: &Connection,
) -> rusqlite::Result<BranchLocks<LockWaiter<R>>> {
    let mut locks = BranchLocks::default();
    journal::check(connection, |branch, age, keys| {
        if !keys.is_empty() {
            locks.restore(branch, age, keys);
        }
    })?;
    Ok(locks)
}

fn disk_full() -> Refusal {
    let message = "the participant's disk has too little room for another promise";
    Refusal::new("DISK_FULL", message)
}
