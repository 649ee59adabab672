//! One request to one branch, in the batch's transaction. What is to be done is
//! [`dtc_protocol::branch::step`]'s decision; here it is done.

use std::sync::Arc;

use dtc_proto::dtc::{LinkVote, Vote as WireVote};
use dtc_protocol::{
    BranchId,
    branch::{Branch, Request, Reservation, Step, Verdict, step},
};
use dtc_store::{crash_point, in_savepoint};
use prost::Message as _;
use rusqlite::Transaction;

use crate::{
    Error, Refusal, ResourceManager, Vote,
    answers::{DecisionResult, Effects, abort, refused, vote},
    domain::{Domain, PANICKED},
    ended::Ended,
    high_water_mark::HighWaterMark,
    journal::{self, Contents, Decided, Found, PrepareTerms, Undecided},
    lock_waits::LockWaits,
    locks::Claimed,
    prepared_cache::{PreparedCache, Promise},
    resolutions::{self, HeuristicDecision},
    wire::{Decision, Origin, Prepare},
};

/// A batch's transaction, seen by one request after the other.
pub(crate) struct Branches<'a, R: ResourceManager> {
    pub(crate) resource: &'a Domain<R>,
    pub(crate) transaction: &'a Transaction<'a>,
    pub(crate) high_water_mark: &'a HighWaterMark,
    pub(crate) prepared_cache: &'a PreparedCache,
    pub(crate) lock_waits: &'a LockWaits<R>,
    /// The transactions of the one who prepares of which something may be missing.
    pub(crate) forgotten: Option<Arc<Ended>>,
    pub(crate) undo: Undo,
    /// Wall clock, milliseconds: shown, and nothing follows from it.
    pub(crate) now: i64,
    /// Service time, milliseconds.
    pub(crate) service_time: i64,
    /// What happened so far.
    pub(crate) effects: Effects,
}

/// How the work of a request that fails is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undo {
    /// By a savepoint of its own.
    Alone,
    /// With all of its batch, which is then done again, each request [`Self::Alone`].
    WithBatch,
}

/// A request failed after it had written: its batch is to be undone.
#[derive(Debug)]
pub(crate) struct BatchRolledBack;

impl From<rusqlite::Error> for BatchRolledBack {
    fn from(_: rusqlite::Error) -> Self {
        Self
    }
}

/// Why a branch was not decided by an operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("this journal knows no such branch; ListUndecided shows undecided branches")]
    Unknown,
    #[error("it is {0} already; an operator can resolve undecided branches only")]
    Decided(&'static str),
    #[error("the resolution could not be applied: {0}")]
    Failed(String),
}

impl<R: ResourceManager> Branches<'_, R> {
    /// `room` is the refusal of whatever would take more room, or none. No vote where
    /// the branch has to wait for locks.
    pub(crate) fn prepare(
        &mut self,
        origin: &Origin,
        request: &Prepare<R>,
        room: Option<&Refusal>,
    ) -> Result<Option<LinkVote>, BatchRolledBack> {
        let branch = &request.branch;
        let found = match self.find(branch) {
            Ok(found) => found,
            Err(error) => {
                return Ok(Some(abort::<R>(branch, &self.failed(branch, &error.into()))));
            }
        };
        let same_payload = found.as_ref().is_none_or(|found| {
            request.payload.as_ref().is_ok_and(|payload| found.has_payload(&payload.bytes))
        });
        let state = found.as_ref().map(Found::state);
        let forgotten = self.forgotten.as_ref().is_some_and(|gone| gone.has(&branch.transaction));
        let one_phase = request.one_phase;
        let prepare = Request::Prepare { same_payload, forgotten, one_phase };
        Ok(Some(match step(state.as_ref(), &prepare) {
            Step::Reserve => return self.reserve(origin, request, room),
            Step::RepeatVote { committed } => {
                let output = match found {
                    Some(Found::Undecided(undecided)) => undecided.output,
                    Some(Found::Decided(decided)) => decided.output,
                    None => Vec::new(),
                };
                vote(branch, WireVote::Commit, output, committed)
            }
            Step::RefuseRolledBack => {
                let refusal = match found {
                    Some(Found::Decided(decided)) => decided.refusal,
                    _ => None,
                };
                let (code, message) = refusal.unwrap_or_else(|| {
                    let message = "the branch was rolled back before; a late prepare is refused";
                    ("ROLLED_BACK".into(), message.into())
                });
                refused::<R>(branch, code, message)
            }
            Step::RefuseForgotten => {
                let message = "the transaction has ended, and what this participant did in it \
                               may have been forgotten; a late prepare is refused";
                refused::<R>(branch, "FORGOTTEN".into(), message.into())
            }
            Step::RefuseOtherPayload => {
                let message = "the branch was prepared with another payload";
                refused::<R>(branch, "OTHER_PAYLOAD".into(), message.into())
            }
            step => unreachable!("{step:?} is no answer to prepare"),
        }))
    }

    fn find(&self, branch: &BranchId) -> rusqlite::Result<Option<Found>> {
        match self.high_water_mark.reaches(branch) {
            true => journal::find(self.transaction, branch),
            false => Ok(None),
        }
    }

    /// The part of one request that is undone when it fails.
    fn attempt<T>(
        &self,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Result<T, Error>, BatchRolledBack> {
        if self.undo == Undo::Alone {
            return Ok(in_savepoint(self.transaction, |_| work()));
        }
        let before = self.transaction.total_changes();
        let result = work();
        match result.is_err() && self.transaction.total_changes() != before {
            true => Err(BatchRolledBack),
            false => Ok(result),
        }
    }

    fn reserve(
        &mut self,
        origin: &Origin,
        request: &Prepare<R>,
        room: Option<&Refusal>,
    ) -> Result<Option<LinkVote>, BatchRolledBack> {
        if let Some(refusal) = room {
            return Ok(Some(self.refuse(request, Reservation::NotAsked, refusal)));
        }
        let keys = request.payload.as_ref().map(|it| self.resource.locks(&it.message));
        let keys = match keys.unwrap_or_else(|_| Ok(Vec::new())) {
            Ok(keys) => keys,
            Err(error) => {
                let refusal = self.failed(&request.branch, &error);
                return Ok(Some(self.refuse(request, Reservation::NotAsked, &refusal)));
            }
        };
        let kept = journal::encode_keys(&keys);
        match self.lock_waits.claim(request, keys) {
            Ok(Claimed::Granted) => {}
            Ok(Claimed::Waits) => return Ok(None),
            Err(refusal) => {
                return Ok(Some(self.refuse(request, Reservation::NotAsked, &refusal)));
            }
        }
        Ok(Some(match self.ask_domain(origin, request, &kept)? {
            Ok(vote) => vote,
            Err(error) => {
                let refusal = match error {
                    Error::Refused(refusal) => refusal,
                    error => self.failed(&request.branch, &error),
                };
                self.refuse(request, Reservation::Refused, &refusal)
            }
        }))
    }

    /// Votes to abort, and leaves of the branch what follows from that.
    fn refuse(
        &mut self,
        request: &Prepare<R>,
        reservation: Reservation,
        refusal: &Refusal,
    ) -> LinkVote {
        let (branch, one_phase) = (&request.branch, request.one_phase);
        let step = step(None, &Request::Reserved { reservation, one_phase });
        if let Some(state) = step.records() {
            self.leave_tombstone(branch, state, Some(refusal));
        }
        abort::<R>(branch, refusal)
    }

    fn ask_domain(
        &mut self,
        origin: &Origin,
        request: &Prepare<R>,
        keys: &[u8],
    ) -> Result<Result<LinkVote, Error>, BatchRolledBack> {
        let payload = match &request.payload {
            Ok(payload) => payload,
            Err(refusal) => return Ok(Err(refusal.clone().into())),
        };
        let (branch, transaction) = (&request.branch, self.transaction);
        let mut effects = self.effects;
        let vote = self.attempt(|| {
            let (reservation, output) =
                match self.resource.prepare(transaction, branch, &payload.message)? {
                    Vote::Commit(output) => (Reservation::Made, output),
                    Vote::ReadOnly => (Reservation::ReadOnly, R::Output::default()),
                    Vote::Abort(refusal) => return Err(refusal.into()),
                };
            let one_phase = request.one_phase;
            let step = step(None, &Request::Reserved { reservation, one_phase });
            let encoded = output.encode_to_vec();
            match (step, step.records()) {
                (Step::CommitAtOnce, Some(state)) => {
                    self.resource.commit_at_once(transaction, branch, &payload.message, &output)?;
                    let contents =
                        Contents { payload: Some(&payload.bytes), output: &encoded, keep: false };
                    let at = self.service_time;
                    effects.bytes += contents.footprint(None);
                    journal::insert_decided(transaction, branch, state, &contents, None, at)?;
                    effects.commits += 1;
                }
                (Step::Promise, Some(_)) => {
                    let contents = (&payload.bytes[..], &encoded[..]);
                    let may_compensate = request.may_compensate;
                    let terms = PrepareTerms { age: request.age, may_compensate, keys };
                    let now = self.now;
                    journal::insert_undecided(transaction, branch, origin, terms, contents, now)?;
                    self.prepared_cache.keep(*branch, contents, may_compensate);
                    effects.undecided += 1;
                }
                (Step::AnswerReadOnly, _) => {
                    return Ok(vote(branch, WireVote::ReadOnly, Vec::new(), false));
                }
                (step, _) => unreachable!("{step:?} is no answer to a reservation"),
            }
            crash_point("participant-before-prepared-durable");
            Ok(vote(branch, WireVote::Commit, encoded, one_phase))
        })?;
        if vote.is_ok() {
            self.effects = effects;
        }
        Ok(vote)
    }

    /// Applies a decision, or finds out why not.
    pub(crate) fn decide(
        &mut self,
        decision: &Decision,
    ) -> Result<DecisionResult, BatchRolledBack> {
        let branch = &decision.branch;
        let promise = self.prepared_cache.take(branch).map(|promise| {
            let Promise { payload, output, may_compensate } = promise;
            Some(Found::Undecided(Undecided { payload, output, may_compensate, pending: None }))
        });
        let found = match promise.map_or_else(|| self.find(branch), Ok) {
            Ok(found) => found,
            Err(error) => return Ok(self.not_applied(decision, &error.into())),
        };
        let step = step(found.as_ref().map(Found::state).as_ref(), &decision.request);
        let done = match (step, found, step.records()) {
            (Step::Apply(verdict), Some(Found::Undecided(undecided)), _) => {
                self.apply(branch, verdict, &undecided, None)?
            }
            (Step::Compensate { .. }, Some(Found::Decided(decided)), Some(state)) => {
                self.compensate(branch, state, &decided)?
            }
            (Step::LeaveTombstone { .. }, _, Some(state)) => {
                if !self.leave_tombstone(branch, state, None) {
                    let why = "the tombstone could not be written".into();
                    return Ok(DecisionResult::Failed(why));
                }
                Ok(())
            }
            (Step::ReportNotMine, ..) => return Ok(DecisionResult::NotMine),
            (
                Step::AnswerCommitted | Step::AnswerRolledBack | Step::AnswerUnknown | Step::Ignore,
                ..,
            ) => Ok(()),
            (step, ..) => unreachable!("{step:?} is no answer to a decision"),
        };
        Ok(match (done, step.answer()) {
            (Ok(()), Some(answer)) => DecisionResult::Answer(answer),
            (Ok(()), None) => DecisionResult::Ignored,
            (Err(error), _) => self.not_applied(decision, &error),
        })
    }

    fn apply(
        &mut self,
        branch: &BranchId,
        verdict: Verdict,
        undecided: &Undecided,
        by_operator: Option<&HeuristicDecision>,
    ) -> Result<Result<(), Error>, BatchRolledBack> {
        let (transaction, now) = (self.transaction, self.now);
        let applied = self.attempt(|| {
            let contents = (&undecided.payload[..], &undecided.output[..]);
            self.resource.apply_decision(transaction, branch, contents, verdict.commit)?;
            if journal::delete_undecided(transaction, branch)? != 1 {
                return Err(Error::Inconsistent("a prepared branch is not in the journal"));
            }
            let contents = Contents {
                payload: Some(&undecided.payload),
                output: &undecided.output,
                keep: undecided.may_compensate && verdict.commit,
            };
            let (state, at) = (verdict.applied(), self.service_time);
            journal::insert_decided(transaction, branch, state, &contents, None, at)?;
            if let Some(resolution) = by_operator {
                resolutions::insert(transaction, branch, resolution, now)?;
            }
            Ok(contents.footprint(None))
        })?;
        match applied {
            Ok(bytes) => {
                self.effects.bytes += bytes;
                self.effects.undecided -= 1;
                match verdict.commit {
                    true => self.effects.commits += 1,
                    false => self.effects.rollbacks += 1,
                }
            }
            Err(_) => self.keep_pending(branch, &undecided.state(), verdict),
        }
        Ok(applied.map(drop))
    }

    /// The resource could not apply a decision: it is kept where it stands.
    fn keep_pending(&self, branch: &BranchId, state: &Branch, verdict: Verdict) {
        let Step::KeepPending(pending) = step(Some(state), &Request::Failed(verdict)) else {
            return;
        };
        // In a transaction that SQLite has ended, it would be written by itself.
        if self.transaction.is_autocommit() {
            return;
        }
        if let Err(error) = journal::keep_pending(self.transaction, branch, pending) {
            tracing::error!(%error, "the decision could not be recorded");
        }
    }

    /// Decides a promised branch for an operator.
    pub(crate) fn resolve(
        &mut self,
        branch: &BranchId,
        resolution: &HeuristicDecision,
    ) -> Result<Result<(), ResolveError>, BatchRolledBack> {
        // What is kept in memory is in the file too.
        self.prepared_cache.take(branch);
        let found = match self.find(branch) {
            Ok(found) => found,
            Err(error) => return Ok(Err(ResolveError::Failed(error.to_string()))),
        };
        let state = found.as_ref().map(Found::state);
        let step = step(state.as_ref(), &Request::Resolve { commit: resolution.commit });
        let (verdict, undecided) = match (step, found) {
            (Step::Apply(verdict), Some(Found::Undecided(undecided))) => (verdict, undecided),
            (Step::AnswerUnknown, _) => return Ok(Err(ResolveError::Unknown)),
            (Step::RefuseDecided, _) => return Ok(Err(ResolveError::Decided(shown(state)))),
            (step, _) => unreachable!("{step:?} is no answer to an operator"),
        };
        let applied = self.apply(branch, verdict, &undecided, Some(resolution))?;
        Ok(applied.map_err(|error| ResolveError::Failed(error.to_string())))
    }

    /// Undoes a commit.
    fn compensate(
        &mut self,
        branch: &BranchId,
        state: Branch,
        decided: &Decided,
    ) -> Result<Result<(), Error>, BatchRolledBack> {
        let transaction = self.transaction;
        let undone = self.attempt(|| {
            let payload = decided.payload.as_deref().ok_or(Error::Inconsistent(
                "the journal has no payload of a branch to compensate: its prepare lacked may_compensate",
            ))?;
            self.resource.compensate(transaction, branch, (payload, &decided.output))?;
            match journal::record_compensation(transaction, branch, state, self.service_time)? {
                1 => Ok(payload.len() as i64),
                _ => Err(Error::Inconsistent("a branch to compensate is not in the journal")),
            }
        })?;
        if let Ok(kept) = undone {
            crash_point("participant-before-compensation-durable");
            self.effects.bytes -= kept;
            self.effects.compensations += 1;
        }
        Ok(undone.map(drop))
    }

    fn count(&mut self, error: &Error) {
        self.effects.domain_errors += 1;
        self.effects.domain_panics += u64::from(matches!(error, Error::Panicked(_)));
    }

    fn not_applied(&mut self, decision: &Decision, error: &Error) -> DecisionResult {
        self.count(error);
        let Decision { branch, request, .. } = decision;
        let verdict = request.verdict();
        tracing::error!(
            transaction = %branch.transaction, branch = branch.number,
            commit = verdict.map(|it| it.commit), number = verdict.map(|it| it.number), %error,
            "the decision could not be applied; it is retried"
        );
        DecisionResult::Failed(error.to_string())
    }

    fn failed(&mut self, branch: &BranchId, error: &Error) -> Refusal {
        self.count(error);
        tracing::error!(
            transaction = %branch.transaction, branch = branch.number, %error, "prepare failed"
        );
        let code = match error {
            Error::Panicked(_) => PANICKED,
            _ => "PARTICIPANT_ERROR",
        };
        Refusal::new(code, error.to_string())
    }

    /// False if it could not be written.
    fn leave_tombstone(
        &mut self,
        branch: &BranchId,
        state: Branch,
        refusal: Option<&Refusal>,
    ) -> bool {
        // In a transaction that SQLite has ended, it would be written by itself.
        if self.transaction.is_autocommit() {
            return false;
        }
        let written = journal::insert_decided(
            self.transaction,
            branch,
            state,
            &Contents::default(),
            refusal,
            self.service_time,
        );
        if let Err(error) = &written {
            tracing::error!(transaction = %branch.transaction, %error, "no tombstone could be recorded");
        } else {
            self.effects.bytes += Contents::default().footprint(refusal);
        }
        written.is_ok()
    }
}

/// What a decided branch is, to an operator.
fn shown(state: Option<Branch>) -> &'static str {
    match state {
        Some(Branch::Committed { .. }) => "committed",
        Some(Branch::RolledBack { .. }) | None => "rolled back",
        // Its coordinator has decided; only the effect is still to come.
        Some(Branch::Prepared { pending }) => match pending.is_some_and(|it| it.commit) {
            true => "being committed (its effect is retried)",
            false => "being rolled back (its effect is retried)",
        },
    }
}
