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

mod batch;
mod waits;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use dtc_proto::dtc::Vote;
use dtc_protocol::BranchId;
use dtc_runtime::Environment;
use dtc_store::{Store, Urgency, WriteError, crash_point};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    ResourceManager,
    answers::{Answers, Refused},
    branches::ResolveError,
    domain::Domain,
    footprint::Footprint,
    high_water_mark::HighWaterMark,
    journal,
    limits::Limits,
    links::Links,
    lock_waits::{DEADLOCK, LockWaiter, LockWaits},
    locks::BranchLocks,
    metrics::Metrics,
    not_mine::NotMine,
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
    pub(crate) not_mine: NotMine,
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
            not_mine: NotMine::default(),
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
                let over = done.iter().map(|()| branch).collect();
                Ok(Answers { over, effects: branches.effects, ..Answers::default() })
            });
            Box::new(move |durable| {
                let concluded = engine.conclude(Ok(answers), durable);
                drop(answer.send(concluded.map(|_| done)));
            })
        });
        self.store.submit(Urgency::Forced, 1, work);
        answered.await.unwrap_or(Err(WriteError::Closed.into()))
    }

    /// What may be said, now that the fate of the batch is known.
    fn conclude(
        self: &Arc<Self>,
        result: Result<Answers, Refused>,
        durable: Result<(), WriteError>,
    ) -> Result<Answers, Refused> {
        let mut answers = result?;
        self.release(match durable {
            Ok(()) => &answers.over,
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
            self.not_mine.note(&answers.not_mine, &self.metrics);
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
