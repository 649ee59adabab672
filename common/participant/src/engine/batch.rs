//! A batch's work, in the store's transaction: the fence, decisions, prepares.

use std::sync::atomic::Ordering::Relaxed;

use dtc_proto::dtc::Vote;
use dtc_protocol::fence::{Admission, admit};
use dtc_store::in_savepoint;
use rusqlite::Transaction;

use super::Engine;
use crate::{
    Refusal, ResourceManager,
    answers::{Answers, DecisionResult, Effects, Refused, abort, acknowledge, disk_full},
    branches::{BatchRolledBack, Branches, Undo},
    journal,
    wire::{Batch, Decision, Origin},
};

impl<R: ResourceManager> Engine<R> {
    pub(super) fn admit(
        &self,
        transaction: &Transaction<'_>,
        origin: &Origin,
    ) -> Result<(), Refused> {
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
    pub(super) fn attempt(
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

    pub(super) fn decide(
        &self,
        transaction: &Transaction<'_>,
        undo: Undo,
        decisions: &[Decision],
    ) -> Result<Answers, BatchRolledBack> {
        let mut branches = self.branches(transaction, undo);
        let mut acknowledgements = Vec::with_capacity(decisions.len());
        let (mut over, mut not_mine) = (Vec::new(), Vec::new());
        let is_used = self.lock_waits.is_used();
        for decision in decisions {
            let result = match transaction.is_autocommit() {
                true => DecisionResult::Failed("the storage rolled the batch back".into()),
                false => branches.decide(decision)?,
            };
            match result {
                DecisionResult::NotMine => not_mine.push(decision.branch),
                _ if is_used && result.is_over() => over.push(decision.branch),
                _ => {}
            }
            acknowledgements.extend(acknowledge(decision, result));
        }
        let effects = branches.effects;
        Ok(Answers { acknowledgements, over, not_mine, effects, ..Answers::default() })
    }

    pub(super) fn prepare(
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
                answers.votes.push(abort::<R>(&request.branch, &disk_full()));
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

    pub(super) fn branches<'a>(
        &'a self,
        transaction: &'a Transaction<'a>,
        undo: Undo,
    ) -> Branches<'a, R> {
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
}
