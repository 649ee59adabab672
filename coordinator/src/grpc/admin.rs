//! `dtc.v1.AdminService`: what is done by an operator.

use dtc::api::{Error, Operator};
use dtc_proto::dtc::{
    AbandonRequest, AbandonResponse, ForgetRequest, ForgetResponse, Resolution, ResolveRequest,
    ResolveResponse, RetryRequest, RetryResponse, admin_service_server::AdminService,
};
use dtc_service::Peer;
use tonic::{Request, Response, Status, async_trait};

use super::{Grpc, read, show, status::status};

fn peer<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<Peer>();
    peer.map_or_else(|| "in process".into(), |Peer(address)| address.to_string())
}

#[async_trait]
impl AdminService for Grpc {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let peer = peer(&request);
        let request = request.into_inner();
        let id = read::transaction_id(&request.transaction_id).map_err(status)?;
        let commit = match request.resolution() {
            Resolution::Commit => true,
            Resolution::Rollback => false,
            Resolution::Unspecified => {
                let problem = "is missing; RESOLUTION_COMMIT or RESOLUTION_ROLLBACK";
                return Err(status(Error::invalid("resolution", problem)));
            }
        };
        let wait = read::duration("wait", request.wait.as_ref()).map_err(status)?;
        let operator = Operator { reason: request.reason, caller: request.caller, peer };
        let resolved = self.0.resolve(id, request.branch, commit, &operator, wait).await;
        let transaction = Some(show::transaction(resolved.map_err(status)?));
        Ok(Response::new(ResolveResponse { transaction }))
    }

    async fn retry(
        &self,
        request: Request<RetryRequest>,
    ) -> Result<Response<RetryResponse>, Status> {
        let peer = peer(&request);
        let RetryRequest { transaction_id, reason, caller } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let retried = self.0.retry(id, &Operator { reason, caller, peer }).await;
        let transaction = Some(show::transaction(retried.map_err(status)?));
        Ok(Response::new(RetryResponse { transaction }))
    }

    async fn abandon(
        &self,
        request: Request<AbandonRequest>,
    ) -> Result<Response<AbandonResponse>, Status> {
        let peer = peer(&request);
        let AbandonRequest { transaction_id, branch, reason, caller } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let abandoned = self.0.abandon(id, branch, &Operator { reason, caller, peer }).await;
        let transaction = Some(show::transaction(abandoned.map_err(status)?));
        Ok(Response::new(AbandonResponse { transaction }))
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        let peer = peer(&request);
        let ForgetRequest { transaction_id, reason, caller } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let forgotten = self.0.forget(id, &Operator { reason, caller, peer }).await;
        let transaction = Some(show::transaction(forgotten.map_err(status)?));
        Ok(Response::new(ForgetResponse { transaction }))
    }
}
