//! The gRPC service: three calls and the link.

use std::sync::Arc;

use dtc_proto::{
    dtc::{
        self, Acknowledgement, CommitRequest, CommitResponse, LinkAcknowledgement, LinkRequest,
        LinkResponse, PrepareRequest, PrepareResponse, RollbackRequest, RollbackResponse,
        participant_service_server::ParticipantService,
    },
    marker::{LATE_DECISION, ROLLED_BACK, UNKNOWN_BRANCH, mark},
};
use dtc_protocol::{BranchId, JournalId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    ResourceManager,
    engine::Engine,
    event_log, link,
    wire::{self, Batch, Decision, Origin, Prepare},
};

/// Messages that wait for the network on one link.
const QUEUED: usize = 16;

pub(crate) struct Service<R: ResourceManager> {
    pub(crate) engine: Arc<Engine<R>>,
}

impl<R: ResourceManager> Service<R> {
    fn journal_id(&self) -> String {
        JournalId::from_bytes(self.engine.store.identity().id).to_string()
    }

    fn unknown(&self, transaction: &str, branch: u32) -> Status {
        let journal = self.journal_id();
        let message = format!("branch {transaction}/{branch} is not known to journal {journal}");
        mark(Status::not_found(message), UNKNOWN_BRANCH)
    }

    /// `decision` makes it of the branch and the decision's number.
    async fn decide(
        &self,
        origin: Option<&dtc::Origin>,
        transaction: &str,
        number: u32,
        decision_number: u32,
        decision: impl FnOnce(BranchId, u32) -> Decision,
    ) -> Result<LinkAcknowledgement, Status> {
        let origin = Origin::parse("origin", origin)?;
        let branch = branch(&origin, transaction, number)?;
        let number = wire::decision_number("decision_number", decision_number)?;
        let decisions = vec![decision(branch, number)];
        let batch = Batch { decisions, ..Batch::default() };
        let answers = self.engine.perform(Arc::new(origin), batch).await;
        let mut answers = answers.map_err(|refused| Status::from(&refused))?;
        event_log::log(&answers);
        answers.acknowledgements.pop().ok_or_else(|| {
            let status = Status::failed_precondition(format!(
                "branch {branch}: decision_number {number} is late, a newer decision is known"
            ));
            mark(status, LATE_DECISION)
        })
    }
}

fn branch(origin: &Origin, transaction: &str, number: u32) -> Result<BranchId, Status> {
    let transaction = wire::uuid("transaction_id", transaction)?;
    Ok(BranchId { coordinator: origin.coordinator, transaction, number })
}

fn unexpected(answer: &LinkAcknowledgement) -> Status {
    Status::internal(match answer.message.as_str() {
        "" => "the decision could not be applied",
        message => message,
    })
}

#[tonic::async_trait]
impl<R: ResourceManager> ParticipantService for Service<R> {
    type LinkStream = ReceiverStream<Result<LinkResponse, Status>>;

    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<PrepareResponse>, Status> {
        let request = request.into_inner();
        let origin = Origin::parse("origin", request.origin.as_ref())?;
        let branch = branch(&origin, &request.transaction_id, request.branch)?;
        let prepare = Prepare {
            branch,
            age: match &*request.retry_of {
                "" => branch.transaction,
                text => wire::uuid("retry_of", text)?,
            },
            payload: wire::decode::<R>(request.payload.as_ref(), self.engine.limits.max_payload),
            one_phase: request.one_phase,
            may_compensate: request.may_compensate,
        };
        let batch = Batch { prepares: vec![prepare], ..Batch::default() };
        let answers = self.engine.perform(Arc::new(origin), batch).await;
        let mut answers = answers.map_err(|refused| Status::from(&refused))?;
        event_log::log(&answers);
        let vote = answers.votes.pop();
        let vote = vote.ok_or_else(|| Status::internal("the branch was not voted on"))?;
        Ok(Response::new(PrepareResponse {
            vote: vote.vote,
            output: vote.output,
            abort_reason: vote.abort_reason,
            journal_id: self.journal_id(),
            committed: vote.committed,
        }))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitResponse>, Status> {
        let CommitRequest { origin, transaction_id, branch, decision_number, .. } =
            request.into_inner();
        let decide = self.decide(
            origin.as_ref(),
            &transaction_id,
            branch,
            decision_number,
            Decision::commit,
        );
        let answer = decide.await?;
        match answer.acknowledgement() {
            Acknowledgement::Committed => {
                Ok(Response::new(CommitResponse { journal_id: self.journal_id() }))
            }
            Acknowledgement::RolledBack => {
                let message =
                    format!("branch {transaction_id}/{branch} was rolled back here before");
                Err(mark(Status::aborted(message), ROLLED_BACK))
            }
            Acknowledgement::Unknown => Err(self.unknown(&transaction_id, branch)),
            Acknowledgement::Failed | Acknowledgement::Unspecified => Err(unexpected(&answer)),
        }
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<RollbackResponse>, Status> {
        let RollbackRequest { origin, transaction_id, branch, decision_number, compensate, .. } =
            request.into_inner();
        let rollback = |branch, number| Decision::rollback::<R>(branch, number, compensate);
        let decide =
            self.decide(origin.as_ref(), &transaction_id, branch, decision_number, rollback);
        let answer = decide.await?;
        let committed = match answer.acknowledgement() {
            Acknowledgement::RolledBack => false,
            Acknowledgement::Committed => true,
            Acknowledgement::Unknown => return Err(self.unknown(&transaction_id, branch)),
            Acknowledgement::Failed | Acknowledgement::Unspecified => {
                return Err(unexpected(&answer));
            }
        };
        Ok(Response::new(RollbackResponse { journal_id: self.journal_id(), committed }))
    }

    async fn link(
        &self,
        request: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (responses, stream) = mpsc::channel(QUEUED);
        tokio::spawn(link::run(Arc::clone(&self.engine), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
