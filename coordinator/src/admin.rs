//! `dtc.v1.AdminService` over gRPC.

use dtc::service::Services;
use dtc_proto::dtc::{
    AbandonRequest, AbandonResponse, ForgetRequest, ForgetResponse, ResolveRequest,
    ResolveResponse, RetryRequest, RetryResponse, admin_service_server::AdminService,
};
use dtc_service::Peer;
use tonic::{Request, Response, Status, async_trait};

/// The service over gRPC.
pub(crate) struct Admin(pub(crate) Services);

fn peer<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<Peer>();
    peer.map_or_else(|| "in process".into(), |Peer(address)| address.to_string())
}

#[async_trait]
impl AdminService for Admin {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let peer = peer(&request);
        Ok(Response::new(self.0.resolve(request.into_inner(), &peer).await?))
    }

    async fn retry(
        &self,
        request: Request<RetryRequest>,
    ) -> Result<Response<RetryResponse>, Status> {
        let peer = peer(&request);
        Ok(Response::new(self.0.retry(request.into_inner(), &peer).await?))
    }

    async fn abandon(
        &self,
        request: Request<AbandonRequest>,
    ) -> Result<Response<AbandonResponse>, Status> {
        let peer = peer(&request);
        Ok(Response::new(self.0.abandon(request.into_inner(), &peer).await?))
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        let peer = peer(&request);
        Ok(Response::new(self.0.forget(request.into_inner(), &peer).await?))
    }
}
