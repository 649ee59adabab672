//! Bugs that a test plants (see `dtc_protocol::planted`): what they make of a function's
//! result, or of what it begins with.

use dtc_protocol::{
    JournalId,
    planted::{Bug, is_planted, planted},
};

use super::{
    Context, Phase, Transaction, Visibility,
    acknowledge::{Awaited, COMMITTED, ROLLED_BACK, Verdict},
    branch::Branch,
};
use crate::{
    Acknowledgement, BranchOutcome, BranchState, Client, Event, Message, Record, RecordPurpose,
    Vote,
};

/// Of `Coordinator::recover`: what is read of a record.
pub(crate) fn recovered(mut record: Record) -> Option<Record> {
    match (planted(), &mut record) {
        (Some(Bug::CommitForgotten), Record::Decision(it)) if it.commit => return None,
        (Some(Bug::AskedJournalForgotten), Record::Begin(it)) => {
            it.branches.iter_mut().for_each(|branch| branch.journal = None);
        }
        (Some(Bug::VotedJournalForgotten), Record::Decision(it)) => {
            it.branches.iter_mut().for_each(|branch| branch.journal = None);
        }
        (Some(Bug::LocksForgotten), Record::Begin(it)) => it.locks.clear(),
        (Some(Bug::LocksForgotten), Record::Decision(it)) => it.locks.clear(),
        _ => {}
    }
    Some(record)
}

/// Of `Coordinator::handle`: what is understood of an event.
pub(crate) fn received(mut event: Event) -> Event {
    match (planted(), &mut event) {
        (Some(Bug::KeyNotLookedUp), Event::KeyFound { found, .. }) => *found = None,
        (Some(Bug::AnyJournalAcknowledges), Event::Acknowledged { journal, .. }) => *journal = None,
        (Some(Bug::CallKeyIgnored), Event::Client { call: Client::Enlist { key, .. }, .. }) => {
            *key = None;
        }
        _ => {}
    }
    event
}

/// Of `append`: whether what follows from a record does so at once.
pub(super) fn is_unawaited(purpose: RecordPurpose) -> bool {
    is_planted(match purpose {
        RecordPurpose::Committed => Bug::CommitSentEarly,
        RecordPurpose::CompensationDecided => Bug::CompensatedEarly,
        RecordPurpose::Resolved => Bug::ResolvedEarly,
        RecordPurpose::Aborted => Bug::KeyedAbortVisibleEarly,
        RecordPurpose::Logged => Bug::BeginRecordMissing,
        _ => return false,
    })
}

pub(super) fn append_unawaited(
    transaction: &mut Transaction,
    record: Record,
    sync: bool,
    purpose: RecordPurpose,
    context: &mut Context,
) {
    if !is_planted(Bug::BeginRecordMissing) {
        context.append(record, sync, RecordPurpose::Noted);
    }
    transaction.durable(purpose, context);
}

/// Of `append`, once the record is asked for.
pub(super) fn appended(transaction: &Transaction, purpose: RecordPurpose, context: &mut Context) {
    if purpose == RecordPurpose::Committed && is_planted(Bug::LocksReleasedEarly) {
        context.locks.release_all(context.now, transaction.owner());
    }
}

/// Of `visibility`.
pub(super) fn visibility(transaction: &Transaction) -> Option<Visibility> {
    let early = match transaction.state {
        Phase::Deciding => Bug::CommitShownEarly,
        Phase::Committing => Bug::CompensableVisibleEarly,
        _ => return None,
    };
    is_planted(early).then_some(Visibility::Visible)
}

/// Of `is_decided`.
pub(super) fn is_taken_back(transaction: &Transaction) -> bool {
    transaction.state == Phase::Deciding && is_planted(Bug::DecisionTakenBack)
}

/// Of `owes_nothing`.
pub(super) fn ends_early() -> bool {
    is_planted(Bug::EndsUnacknowledged)
}

/// Of `owes_notifications`.
pub(super) fn forgets_notifications() -> bool {
    is_planted(Bug::NotificationForgotten)
}

/// Of `abort`.
pub(super) fn aborts(transaction: &mut Transaction) {
    if is_planted(Bug::LostVoteNotRolledBack) {
        let all = transaction.branches.iter_mut();
        let silent = all.filter(|it| it.state == BranchState::Preparing);
        silent.for_each(|branch| branch.sent = false);
    }
}

/// Of `take_vote`.
pub(super) fn votes(
    one_phase: &mut bool,
    branch: &mut Branch,
    journal: Option<JournalId>,
    vote: &Vote,
) {
    match (planted(), vote) {
        (Some(Bug::OtherJournalRefuses), Vote::Abort(_)) => {
            branch.journal = journal.or(branch.journal);
        }
        (Some(Bug::RefusalEndsAllAttempts), Vote::Abort(_)) => {
            (branch.attempts, *one_phase) = (1, false);
        }
        _ => {}
    }
}

/// Of `has_all_votes`.
pub(super) fn one_vote_is_enough() -> bool {
    is_planted(Bug::OneVoteCommits)
}

/// Of `may_be_committed`.
pub(super) fn lost_answers_abort() -> bool {
    is_planted(Bug::LostAnswerAborts)
}

/// Of `become_locking`.
pub(super) fn locks_are_not_awaited() -> bool {
    is_planted(Bug::LocksNotAwaited)
}

pub(super) fn prepare_unlocked(transaction: &mut Transaction, context: &mut Context) {
    let locks = core::mem::take(&mut transaction.locks);
    let (owner, age) = (transaction.owner(), transaction.age);
    let _ = context.locks.acquire(context.now, owner, age, &locks);
    transaction.start_prepare(context);
}

/// Of `Awaited::judge`.
pub(super) fn judge(awaited: &Awaited, answer: &Acknowledgement) -> Option<Verdict> {
    match (planted()?, answer) {
        (Bug::UnknownAccepted, Acknowledgement::Unknown) if awaited.commit => Some(COMMITTED),
        (Bug::UnknownAccepted, Acknowledgement::Unknown) if awaited.compensating => {
            Some(ROLLED_BACK)
        }
        (Bug::LostCompensationLeft, _) if awaited.compensating => {
            Some(Awaited { compensating: false, ..*awaited }.judge(answer))
        }
        _ => None,
    }
}

/// Of `asserted`.
pub(super) fn asserted(transaction: &Transaction, index: usize) -> Option<BranchState> {
    let as_decided = transaction.branches[index].resolved == Some(transaction.decision.commit);
    let acknowledged = match transaction.decision.commit {
        true => BranchState::Committed,
        false => BranchState::RolledBack,
    };
    match planted()? {
        Bug::ResolutionDressedUp => Some(acknowledged),
        Bug::AssertedAsAcknowledged if as_decided && !transaction.is_compensating() => {
            Some(acknowledged)
        }
        Bug::AssertedUncompensated if as_decided => Some(BranchState::Asserted),
        _ => None,
    }
}

/// Of `message`.
pub(super) fn message(transaction: &Transaction, index: usize) -> Option<Message> {
    let branch = &transaction.branches[index];
    let uncompensated = Message::Rollback {
        number: transaction.decision.number + 1,
        output: branch.output.clone(),
        compensate: false,
    };
    let resolved = branch.resolved == Some(false) && is_planted(Bug::ResolvedNotCompensated);
    resolved.then_some(uncompensated)
}

/// Of `may_leave_to_ask`.
pub(super) fn may_leave_to_ask(transaction: &Transaction, index: usize) -> Option<bool> {
    let branch = &transaction.branches[index];
    let may = branch.supports_inquiry && branch.state == BranchState::RollingBack;
    let changes = transaction.is_compensating() && is_planted(Bug::CompensationUnacknowledged);
    changes.then_some(may)
}

/// Of `inquired`.
pub(super) fn inquired(transaction: &Transaction) -> Option<BranchOutcome> {
    let pending = !transaction.is_decided() && is_planted(Bug::PendingAnsweredAborted);
    pending.then_some(BranchOutcome::Aborted { number: transaction.decision.number })
}
