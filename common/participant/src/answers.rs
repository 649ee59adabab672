//! What a batch is answered with, and what it changed.

use dtc_proto::{
    dtc::{AbortReason, Acknowledgement, LinkAcknowledgement, LinkVote, Vote},
    marker::{EPOCH, FENCED, INCARNATION, mark},
};
use dtc_protocol::{BranchId, CoordinatorId, branch::Answer, fence::Run};
use dtc_store::WriteError;
use tokio::sync::oneshot;
use tonic::{Status, metadata::MetadataValue};

use crate::{
    Refusal, ResourceManager,
    wire::{self, Decision},
};

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
    pub(crate) over: Vec<BranchId>,
    /// Branches in doubt that the one who was asked doesn't know.
    pub(crate) not_mine: Vec<BranchId>,
    pub(crate) effects: Effects,
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
    #[error("the prepare waits for its lock no longer: a later attempt replaced it")]
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

/// What a batch changed, to be counted when it is durable.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) undecided: i64,
    pub(crate) commits: u64,
    pub(crate) rollbacks: u64,
    pub(crate) compensations: u64,
    pub(crate) domain_errors: u64,
    /// Of these, the panics.
    pub(crate) domain_panics: u64,
    /// By which the journal's decided branches grew.
    pub(crate) bytes: i64,
}

/// What was done with a decision.
pub(crate) enum DecisionResult {
    Answer(Answer),
    Failed(String),
    /// The branch stays in doubt, and is to be reported.
    NotMine,
    /// No answer: a newer decision is known, or nobody is in doubt.
    Ignored,
}

impl DecisionResult {
    /// Whether the branch is over here.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Answer(Answer::Committed | Answer::RolledBack))
    }
}

impl Answers {
    pub(crate) fn is_empty(&self) -> bool {
        self.votes.is_empty() && self.acknowledgements.is_empty() && self.later.is_empty()
    }

    /// Nothing of the batch is in the file.
    pub(crate) fn take_back<R: ResourceManager>(&mut self, error: &WriteError) {
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
    pub(crate) fn add(&mut self, more: Self) {
        self.undecided += more.undecided;
        self.commits += more.commits;
        self.rollbacks += more.rollbacks;
        self.compensations += more.compensations;
        self.domain_errors += more.domain_errors;
        self.domain_panics += more.domain_panics;
        self.bytes += more.bytes;
    }
}

pub(crate) fn vote(branch: &BranchId, vote: Vote, output: Vec<u8>, committed: bool) -> LinkVote {
    LinkVote {
        transaction_id: branch.transaction.as_bytes().to_vec().into(),
        branch: branch.number,
        vote: vote.into(),
        output: wire::output(output),
        abort_reason: None,
        committed,
    }
}

/// A vote to abort.
pub(crate) fn abort<R: ResourceManager>(branch: &BranchId, refusal: &Refusal) -> LinkVote {
    refused::<R>(branch, refusal.code.into(), refusal.message.clone())
}

pub(crate) fn refused<R: ResourceManager>(
    branch: &BranchId,
    code: String,
    message: String,
) -> LinkVote {
    let reason = AbortReason { code, message, participant: R::NAME.into() };
    LinkVote { abort_reason: Some(reason), ..vote(branch, Vote::Abort, Vec::new(), false) }
}

/// The answer to a decision, where there is one.
pub(crate) fn acknowledge(
    decision: &Decision,
    result: DecisionResult,
) -> Option<LinkAcknowledgement> {
    let (acknowledgement, message) = match result {
        DecisionResult::Answer(answer) => (wire::acknowledgement(answer), String::new()),
        DecisionResult::Failed(message) => (Acknowledgement::Failed, message),
        DecisionResult::NotMine | DecisionResult::Ignored => return None,
    };
    Some(LinkAcknowledgement {
        transaction_id: decision.branch.transaction.as_bytes().to_vec().into(),
        branch: decision.branch.number,
        acknowledgement: acknowledgement.into(),
        message,
        decision_number: decision.request.verdict().map_or(0, |verdict| verdict.number),
        attempt: decision.attempt,
    })
}

pub(crate) fn disk_full() -> Refusal {
    let message =
        "too little disk space is free at the participant for another prepared branch (--min-free)";
    Refusal::new("DISK_FULL", message)
}
