//! `dtc.v1.RegistryService`: participants by name.

use dtc::{api::NewParticipant, journal::Capabilities};
use dtc_proto::dtc::{
    DeregisterRequest, DeregisterResponse, ListParticipantsRequest, ListParticipantsResponse,
    Participant, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    registry_service_server::RegistryService,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Grpc, read, show, status::status};

#[async_trait]
impl RegistryService for Grpc {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let RegisterRequest { participant, lease } = request.into_inner();
        let Participant { name, address, supports_inquiry, compensates } =
            participant.unwrap_or_default();
        let lease = read::duration("lease", lease.as_ref()).map_err(status)?;
        let capabilities = Capabilities { supports_inquiry, compensates };
        let new = NewParticipant { name, address, capabilities, lease };
        self.0.register(new).await.map_err(status)?;
        Ok(Response::new(RegisterResponse {}))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let lease = self.0.renew(&request.into_inner().name).map_err(status)?;
        Ok(Response::new(RenewResponse { lease: lease.and_then(show::duration) }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let DeregisterRequest { name, drain } = request.into_inner();
        let done = self.0.deregister(&name, drain).await.map_err(status)?;
        let unfinished = show::count(done.unfinished);
        Ok(Response::new(DeregisterResponse { removed: done.removed, unfinished }))
    }

    async fn list_participants(
        &self,
        _request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let all = self.0.participants().await.map_err(status)?;
        let participants = all.into_iter().map(show::participant).collect();
        Ok(Response::new(ListParticipantsResponse { participants }))
    }
}
