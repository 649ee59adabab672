//! `dtc.v1.RecoveryService`: participants in doubt that have no link.

use dtc_core::BranchOutcome;
use dtc_proto::dtc::{
    GetOutcomeRequest, GetOutcomeResponse, recovery_service_server::RecoveryService,
};
use dtc_protocol::{CoordinatorId, Incarnation, fence::Run};
use tonic::{Request, Response, Status, async_trait};

use super::{Services, request};
use crate::{error::Error, link::outcome_parts};

#[async_trait]
impl RecoveryService for Services {
    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<GetOutcomeResponse>, Status> {
        let request = request.into_inner();
        let id = request::transaction_id(&request.transaction_id)?;
        let coordinator: CoordinatorId = uuid("coordinator_id", &request.coordinator_id)?;
        let incarnation: Incarnation = uuid("incarnation", &request.incarnation)?;
        let run = Run { epoch: request.epoch, incarnation };
        let journal = &self.handle.journal;
        let outcome = if coordinator == journal.coordinator() && journal.was_mine(&run) {
            self.handle.inquire(id, request.branch, run.epoch).await?
        } else {
            tracing::warn!(
                transaction = %id, branch = request.branch, %coordinator, epoch = run.epoch,
                "asked about a branch of another coordinator; answered: not mine"
            );
            BranchOutcome::NotMine
        };
        let (outcome, decision_number, output) = outcome_parts(&outcome);
        Ok(Response::new(GetOutcomeResponse {
            outcome: outcome.into(),
            decision_number,
            output,
            origin: Some(self.links.origin().clone()),
        }))
    }
}

fn uuid<T: std::str::FromStr<Err = dtc_protocol::ParseIdError>>(
    field: &str,
    text: &str,
) -> Result<T, Error> {
    text.parse().map_err(|error| {
        let text: String = text.chars().take(80).collect();
        Error::invalid(field, format!("'{text}' is {error}"))
    })
}
