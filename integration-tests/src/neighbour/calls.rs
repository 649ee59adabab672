//! The neighbour over the three calls of gRPC.

use std::pin::Pin;

use axum::Router;
use dtc_proto::dtc::{
    AbortReason, CommitRequest, CommitResponse, LinkRequest, LinkResponse, Payload, PrepareRequest,
    PrepareResponse, RollbackRequest, RollbackResponse, Vote,
    participant_service_server::{ParticipantService, ParticipantServiceServer},
    payload::Kind,
};
use prost::Message;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming, async_trait, service::Routes};

use super::book::{Asked, Call};
use super::{Neighbour, Said};

const EPOCH: &str = "dtc-epoch";

/// What proxies and frameworks answer for reasons of their own.
const CODES: [Code; 12] = [
    Code::Unavailable,
    Code::Aborted,
    Code::ResourceExhausted,
    Code::Internal,
    Code::Unknown,
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::PermissionDenied,
    Code::Unauthenticated,
    Code::FailedPrecondition,
    Code::OutOfRange,
    Code::DataLoss,
];

struct Service(Neighbour);

pub(super) fn router(neighbour: Neighbour) -> Router {
    Routes::new(ParticipantServiceServer::new(Service(neighbour))).into_axum_router()
}

impl Service {
    async fn said(&self, asked: Asked) -> Result<Said, Status> {
        let epoch = asked.origin.epoch;
        let (said, trouble) = self.0.answer(&asked).await;
        match (said, trouble) {
            (_, Some(which)) => Err(self.other(which, epoch)),
            (Some(Said::Fenced(epoch)), None) => Err(fenced(epoch)),
            (Some(said), None) => Ok(said),
            (None, None) => Err(Status::internal("neither")),
        }
    }

    fn other(&self, which: u32, epoch: u64) -> Status {
        match CODES[which as usize % CODES.len()] {
            Code::FailedPrecondition if self.0.manners.forges => fenced(match which % 3 {
                0 => epoch,
                1 => epoch + 1,
                _ => 99,
            }),
            code => Status::new(code, "something between"),
        }
    }
}

fn fenced(epoch: u64) -> Status {
    let mut status = Status::failed_precondition("a newer run is known");
    status.metadata_mut().insert(EPOCH, epoch.into());
    status
}

fn asked(
    call: Call,
    origin: Option<dtc_proto::dtc::Origin>,
    transaction: &str,
    branch: u32,
    content: Option<Vec<u8>>,
) -> Result<Asked, Status> {
    let transaction = transaction.parse().map_err(|_| Status::invalid_argument("no UUID"))?;
    Ok(Asked { call, origin: origin.unwrap_or_default(), transaction, branch, content })
}

fn output(output: Option<Payload>) -> Option<Vec<u8>> {
    match output?.kind? {
        Kind::Typed(bytes) => Some(bytes.into()),
        Kind::Json(_) => None,
    }
}

#[async_trait]
impl ParticipantService for Service {
    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<PrepareResponse>, Status> {
        let request = request.into_inner();
        let content = request.payload.unwrap_or_default().encode_to_vec();
        let asked = asked(
            Call::Prepare,
            request.origin,
            &request.transaction_id,
            request.branch,
            Some(content),
        )?;
        let journal_id = self.0.journal();
        let answer = PrepareResponse { journal_id, ..PrepareResponse::default() };
        Ok(Response::new(match self.said(asked).await? {
            Said::Promised(bytes) => {
                let output = Some(Payload { kind: Some(Kind::Typed(vec![7; bytes].into())) });
                PrepareResponse { vote: Vote::Commit.into(), output, ..answer }
            }
            _ => PrepareResponse {
                vote: Vote::Abort.into(),
                abort_reason: Some(AbortReason {
                    code: "SOLD_OUT".into(),
                    message: "the books say so".into(),
                    participant: String::new(),
                }),
                ..answer
            },
        }))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitResponse>, Status> {
        let request = request.into_inner();
        let content = output(request.output);
        let asked =
            asked(Call::Commit, request.origin, &request.transaction_id, request.branch, content)?;
        match self.said(asked).await? {
            Said::Committed => Ok(Response::new(CommitResponse { journal_id: self.0.journal() })),
            Said::Unknown => Err(Status::not_found("the branch is unknown")),
            _ => Err(Status::aborted("the branch was rolled back")),
        }
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<RollbackResponse>, Status> {
        let request = request.into_inner();
        let asked =
            asked(Call::Rollback, request.origin, &request.transaction_id, request.branch, None)?;
        let committed = self.said(asked).await? == Said::Committed;
        Ok(Response::new(RollbackResponse { journal_id: self.0.journal(), committed }))
    }

    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

    async fn link(
        &self,
        _: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        Err(Status::unimplemented("there is no link"))
    }
}
