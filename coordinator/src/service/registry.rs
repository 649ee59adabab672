//! `dtc.v1.RegistryService`: participants by name.

use proto::dtc::{
    ListParticipantsRequest, ListParticipantsResponse, Participant, ParticipantStatus,
    RegisterRequest, RegisterResponse, registry_service_server::RegistryService,
};
use tonic::{Request, Response, Status, async_trait};

use super::Services;
use crate::{
    config::{check_name, parse_address},
    error::Error,
    journal::Registration,
};

/// How many participants may be registered.
const MAX_REGISTERED: usize = 10_000;

impl Services {
    async fn register(&self, participant: Participant) -> Result<(), Error> {
        let Participant { name, address, asks } = participant;
        let invalid =
            |field: &str, problem| Error::invalid(format!("participant.{field}"), problem);
        check_name(&name).map_err(|problem| invalid("name", problem))?;
        let address = parse_address(&address).map_err(|problem| invalid("address", problem))?;
        let directory = &self.handle.directory;
        if directory.find(&name).is_none() && directory.all().len() >= MAX_REGISTERED {
            return Err(Error::Exhausted(format!(
                "{MAX_REGISTERED} participants are known, the limit"
            )));
        }
        let registration = Registration { name: name.clone(), address: address.clone(), asks };
        self.handle.journal.register(registration).await?;
        tracing::info!(participant = name, address, asks, "registered");
        let registered = directory.register(&name, &address, asks);
        self.links.ensure(&registered).await
    }

    async fn list_participants(&self) -> Result<Vec<ParticipantStatus>, Error> {
        let mut all = Vec::new();
        for known in self.handle.directory.all() {
            let unfinished = self.handle.unfinished(known.id).await?;
            let address = known.address.as_deref().unwrap_or_default().into();
            let participant =
                Participant { name: known.name.to_string(), address, asks: known.asks };
            all.push(ParticipantStatus {
                participant: Some(participant),
                link: known.link.into(),
                last_error: known.last_error.to_string(),
                unfinished: u32::try_from(unfinished).unwrap_or(u32::MAX),
                journal_id: known.journal.map_or_else(String::new, |id| id.to_string()),
            });
        }
        Ok(all)
    }
}

#[async_trait]
impl RegistryService for Services {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let participant = request.into_inner().participant.unwrap_or_default();
        Services::register(self, participant).await?;
        Ok(Response::new(RegisterResponse {}))
    }

    async fn list_participants(
        &self,
        _request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let participants = Services::list_participants(self).await?;
        Ok(Response::new(ListParticipantsResponse { participants }))
    }
}
