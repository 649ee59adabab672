//! `dtc.v1.RecoveryService`: participants in doubt that have no link.

use dtc::api::{CoordinatorId, Error, Incarnation, Run, parse_id};
use dtc_proto::dtc::{
    GetOutcomeRequest, GetOutcomeResponse, recovery_service_server::RecoveryService,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Grpc, read, status::status};

impl Grpc {
    async fn outcome(&self, request: GetOutcomeRequest) -> Result<GetOutcomeResponse, Error> {
        let id = read::transaction_id(&request.transaction_id)?;
        let coordinator: CoordinatorId = parse_id("coordinator_id", &request.coordinator_id)?;
        let incarnation: Incarnation = parse_id("incarnation", &request.incarnation)?;
        let run = Run { epoch: request.epoch, incarnation };
        let outcome = self.0.outcome_of((coordinator, run), id, request.branch).await?;
        let (outcome, decision_number, output) = dtc::outcome_parts(&outcome);
        Ok(GetOutcomeResponse {
            outcome: outcome.into(),
            decision_number,
            output,
            origin: Some(self.0.origin().clone()),
        })
    }
}

#[async_trait]
impl RecoveryService for Grpc {
    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<GetOutcomeResponse>, Status> {
        self.outcome(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
