//! `dtc.v1.RegistryService`: participants by name.

use std::time::Duration;

use dtc_proto::dtc::{
    DeregisterRequest, DeregisterResponse, ListParticipantsRequest, ListParticipantsResponse,
    Participant, ParticipantStatus, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    registry_service_server::RegistryService,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Services, request};
use crate::{
    address::Address,
    directory::{self, RegistrationStatus, check_name},
    error::Error,
    journal::{Capabilities, Registration},
};

/// How many participants may be registered.
const MAX_REGISTERED: usize = 10_000;
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
/// How often it is looked whether a participant has been drained.
const LOOK: Duration = Duration::from_millis(250);

impl Services {
    pub async fn register(&self, request: RegisterRequest) -> Result<(), Error> {
        let Participant { name, address, supports_inquiry, compensates } =
            request.participant.unwrap_or_default();
        let field = |field: &str| format!("participant.{field}");
        check_name(&name).map_err(|problem| Error::invalid(field("name"), problem))?;
        let address: Address =
            address.parse().map_err(|problem: String| Error::invalid(field("address"), problem))?;
        if supports_inquiry && address.is_http() {
            let problem = "is not possible for a participant that speaks HTTP";
            return Err(Error::invalid(field("supports_inquiry"), problem));
        }
        let lease = request::duration("lease", request.lease.as_ref())?;
        if lease.is_some_and(|lease| lease < SHORTEST_LEASE) {
            return Err(Error::invalid("lease", "is too short; at least 1s"));
        }
        let directory = &self.handle.directory;
        let capabilities = Capabilities { supports_inquiry, compensates };
        let registration = Registration { name, address, capabilities, lease, draining: false };
        match directory.find(&registration.name) {
            // A repeat is answered as the first was, whatever is allowed now.
            Some(known) if is_registered_so(&known, &registration) => {}
            None if directory.all().len() >= MAX_REGISTERED => {
                return Err(Error::Exhausted(format!(
                    "{MAX_REGISTERED} participants are known, the limit"
                )));
            }
            _ => self.links.check_allowed(&field("address"), &registration.address)?,
        }
        let _one = self.registering.lock().await;
        self.handle.journal.register(registration.clone()).await?;
        let Registration { name, address, .. } = &registration;
        tracing::info!(participant = name, %address, ?capabilities, ?lease, "registered");
        let registered = directory.register(&registration);
        self.links.ensure(&registered)
    }

    pub fn renew(&self, name: &str) -> Result<RenewResponse, Error> {
        let status = self.handle.directory.renew(name);
        let status = status.ok_or_else(|| unknown(name))?;
        Ok(RenewResponse { lease: status.lease.and_then(|lease| lease.try_into().ok()) })
    }

    pub async fn deregister(
        &self,
        request: DeregisterRequest,
    ) -> Result<DeregisterResponse, Error> {
        let DeregisterRequest { name, drain } = request;
        let _one = self.registering.lock().await;
        let known = self.handle.directory.find(&name);
        let Some((known, status)) = known.and_then(|it| Some((it.clone(), it.status?))) else {
            // It was deregistered before, and the answer may have been lost.
            if self.handle.directory.is_gone(&name) {
                return Ok(DeregisterResponse { removed: true, unfinished: 0 });
            }
            return Err(unknown(&name));
        };
        let count = self.handle.unfinished(known.id).await?;
        if count > 0 && !drain {
            return Err(Error::StillUnfinished { name, count });
        }
        // Closed before the last look: what begins after it would be lost.
        self.close(&known, &status).await?;
        let count = self.handle.unfinished(known.id).await?;
        match count {
            0 => self.remove(&known).await?,
            _ => tracing::info!(participant = name, unfinished = count, "being drained"),
        }
        let unfinished = u32::try_from(count).unwrap_or(u32::MAX);
        Ok(DeregisterResponse { removed: count == 0, unfinished })
    }

    /// New transactions may not name it from here on.
    async fn close(
        &self,
        known: &directory::Participant,
        status: &RegistrationStatus,
    ) -> Result<(), Error> {
        self.handle.journal.register(registration(known, status)).await?;
        self.handle.directory.update(known.id, |it| {
            it.status = it.status.map(|status| RegistrationStatus { draining: true, ..status });
        });
        Ok(())
    }

    async fn remove(&self, known: &directory::Participant) -> Result<(), Error> {
        self.handle.journal.deregister(&known.name).await?;
        self.handle.directory.deregister(known.id);
        self.links.end(known.id).await;
        tracing::info!(participant = %known.name, "deregistered");
        Ok(())
    }

    /// Lets go of addresses that nobody uses, where nothing is unfinished.
    async fn let_go_of_addresses(&self) -> Result<(), Error> {
        for id in self.handle.directory.unused() {
            if self.handle.unfinished(id).await? > 0 {
                self.handle.directory.note_use(id);
            } else if self.handle.directory.let_go(id) {
                self.links.end(id).await;
            }
        }
        Ok(())
    }

    /// Removes participants when they have been drained, and addresses that nobody uses,
    /// for as long as the process runs.
    pub async fn drain(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.let_go_of_addresses().await.is_err() {
                return;
            }
            for known in self.handle.directory.draining() {
                if let Err(error) = self.remove_if_drained(&known).await {
                    tracing::warn!(participant = %known.name, %error, "cannot be deregistered");
                }
            }
        }
    }

    async fn remove_if_drained(&self, known: &directory::Participant) -> Result<(), Error> {
        let _one = self.registering.lock().await;
        // It may have been registered anew meanwhile.
        let now = self.handle.directory.find(&known.name).and_then(|it| it.status);
        let draining = now.is_some_and(|status| status.draining);
        if draining && self.handle.unfinished(known.id).await? == 0 {
            self.remove(known).await?;
        }
        Ok(())
    }

    pub async fn list_participants(&self) -> Result<Vec<ParticipantStatus>, Error> {
        let mut all = Vec::new();
        for known in self.handle.directory.all() {
            let unfinished = self.handle.unfinished(known.id).await?;
            all.push(status(&known, unfinished));
        }
        Ok(all)
    }

    /// One participant, registered or known by its address.
    pub async fn participant(&self, name: &str) -> Result<ParticipantStatus, Error> {
        let known = self.handle.directory.find(name).ok_or_else(|| unknown(name))?;
        Ok(status(&known, self.handle.unfinished(known.id).await?))
    }
}

/// Whether a registration would change nothing but when its lease ends.
fn is_registered_so(known: &directory::Participant, registration: &Registration) -> bool {
    let Registration { address, capabilities, lease, .. } = registration;
    let status = known.status.filter(|it| it.lease == *lease && !it.draining);
    known.address.as_deref() == Some(address)
        && known.capabilities == *capabilities
        && status.is_some()
}

fn unknown(name: &str) -> Error {
    Error::UnknownParticipant(name.chars().take(80).collect())
}

/// Of one that is to be drained.
fn registration(known: &directory::Participant, status: &RegistrationStatus) -> Registration {
    let Some(address) = known.address.as_deref().cloned() else {
        unreachable!("only a participant that can be reached is found by its name");
    };
    let (name, capabilities, lease) = (known.name.to_string(), known.capabilities, status.lease);
    Registration { name, address, capabilities, lease, draining: true }
}

fn status(known: &directory::Participant, unfinished: usize) -> ParticipantStatus {
    let address = known.address.as_ref().map_or_else(String::new, |it| it.to_string());
    let name = known.name.to_string();
    let Capabilities { supports_inquiry, compensates } =
        known.on_its_link.unwrap_or(known.capabilities);
    let participant = Participant { name, address, supports_inquiry, compensates };
    ParticipantStatus {
        participant: Some(participant),
        link: known.link.into(),
        last_error: known.last_error.to_string(),
        unfinished: u32::try_from(unfinished).unwrap_or(u32::MAX),
        journal_id: known.journal.map_or_else(String::new, |id| id.to_string()),
        draining: known.status.is_some_and(|status| status.draining),
        newer_epoch: known.newer_epoch,
        lease_left: known.status.and_then(|it| it.lease_left()?.try_into().ok()),
    }
}

#[async_trait]
impl RegistryService for Services {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Services::register(self, request.into_inner()).await?;
        Ok(Response::new(RegisterResponse {}))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        Ok(Response::new(Services::renew(self, &request.into_inner().name)?))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        Ok(Response::new(Services::deregister(self, request.into_inner()).await?))
    }

    async fn list_participants(
        &self,
        _request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let participants = Services::list_participants(self).await?;
        Ok(Response::new(ListParticipantsResponse { participants }))
    }
}
