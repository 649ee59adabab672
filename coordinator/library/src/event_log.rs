//! The event log of transactions: a line for each event, with the id.

use std::time::Duration;

use dtc_core::{BranchOutcome, Inquirer, ParticipantId, Reason, TrailEvent, TrailKind};
use dtc_protocol::TransactionId;
use tracing::{Level, debug, enabled, info, warn};

use crate::directory::Directory;

/// Tells one event of the trail. What every transaction goes through is told at
/// DEBUG, its outcome at INFO if it is an abort, what needs attention at WARN.
pub(crate) fn write(
    directory: &Directory,
    transaction: TransactionId,
    event: &TrailEvent,
    participant: Option<ParticipantId>,
    reason: Option<&Reason>,
    took: Duration,
) {
    let level = match event.kind {
        TrailKind::Stalled
        | TrailKind::CompensationDecided
        | TrailKind::Resolved
        | TrailKind::Asserted
        | TrailKind::Abandoned
        | TrailKind::Heuristic
        | TrailKind::Hazard
        | TrailKind::RollbackUnacknowledged => Level::WARN,
        TrailKind::DecidedAbort
        | TrailKind::VotedAbort
        | TrailKind::Retried
        | TrailKind::Unreachable
        | TrailKind::Recovered
        | TrailKind::Asked => Level::INFO,
        _ => Level::DEBUG,
    };
    let on = match level {
        Level::WARN => enabled!(Level::WARN),
        Level::INFO => enabled!(Level::INFO),
        _ => enabled!(Level::DEBUG),
    };
    if !on {
        return;
    }
    let participant = participant.map(|id| directory.name(id));
    let participant = participant.as_deref();
    let branch = event.branch;
    let attempt = (event.attempt > 1).then_some(event.attempt);
    let code = reason.map(|reason| reason.code.as_str());
    let why = reason.map(|reason| reason.message.as_str());
    let took = (!took.is_zero()).then(|| tracing::field::debug(took));
    let what = words(event.kind);
    macro_rules! line {
        ($level:ident) => {
            $level!(%transaction, branch, participant, attempt, code, why, took, "{what}")
        };
    }
    match level {
        Level::WARN => line!(warn),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}

fn words(kind: TrailKind) -> &'static str {
    match kind {
        TrailKind::Begun => "begun",
        TrailKind::Enlisted => "branch enlisted",
        TrailKind::LocksAwaited => "waits for its locks",
        TrailKind::LinksAwaited => "waits for links to its participants",
        TrailKind::Locked => "has its locks",
        TrailKind::PrepareSent => "prepare sent",
        TrailKind::VotedCommit => "voted to commit",
        TrailKind::VotedAbort => "voted to abort",
        TrailKind::VotedReadOnly => "voted read-only",
        TrailKind::DecidedCommit => "decided to commit; the record is durable",
        TrailKind::DecidedAbort => "decided to abort",
        TrailKind::CommitAcknowledged => "commit acknowledged",
        TrailKind::RollbackAcknowledged => "rollback acknowledged",
        TrailKind::Retried => "sent again",
        TrailKind::Unreachable => "no answer; will be tried again",
        TrailKind::Stalled => "stalled: the decision stands and is retried",
        TrailKind::RollbackUnacknowledged => {
            "rollback not delivered; the participant asks when it is back"
        }
        TrailKind::Asked => "the participant is in doubt and asks",
        TrailKind::Heuristic => "the participant did the opposite of the decision",
        TrailKind::Hazard => "the participant does not know the branch that it voted for",
        TrailKind::Recovered => "recovered from the journal",
        TrailKind::Resolved => "resolved by an operator",
        TrailKind::Asserted => {
            "resolved, and not acknowledged: shown as asserted; the participant will be notified"
        }
        TrailKind::Abandoned => {
            "abandoned by an operator: the participant is not notified any more"
        }
        TrailKind::CompensationDecided => "compensated: committed branches are undone",
        TrailKind::Ended => "ended",
    }
}

/// Tells what a participant in doubt was answered.
pub(crate) fn answered(
    directory: &Directory,
    transaction: TransactionId,
    branch: u32,
    to: Inquirer,
    outcome: &BranchOutcome,
) {
    let participant = match to {
        Inquirer::Link(id) => directory.name(id),
        Inquirer::Call(_) => "a caller of GetOutcome".into(),
    };
    let participant = &*participant;
    match outcome {
        BranchOutcome::Committed { .. } => {
            info!(%transaction, branch, participant, "in doubt; answered: committed");
        }
        BranchOutcome::Aborted { .. } => {
            info!(%transaction, branch, participant, "in doubt; answered: aborted");
        }
        BranchOutcome::Pending => {
            debug!(%transaction, branch, participant, "in doubt; answered: not decided yet");
        }
        BranchOutcome::NotMine => {
            warn!(
                %transaction, branch, participant,
                "in doubt about a branch that this journal did not coordinate; answered: not mine"
            );
        }
    }
}
