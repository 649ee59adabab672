//! Participants by name.

use std::{sync::Arc, time::Duration};

use dtc_protocol::JournalId;

use super::{Coordinator, Error, limits};
use crate::{
    address::Address,
    directory::{self, LinkState, RegistrationStatus, check_name},
    journal::{Capabilities, Registration},
};

/// How many participants may be registered.
const MAX_REGISTERED: usize = 10_000;
/// How often it is looked whether a participant has been drained.
const LOOK: Duration = Duration::from_millis(250);

/// A participant that is to be known by a name.
#[derive(Debug, Clone, Default)]
pub struct NewParticipant {
    /// 1 to 64 of a-z, 0-9 and '-', beginning with a letter.
    pub name: String,
    /// `http://host:port` of one that speaks gRPC, `http://host:port/base/prepare` of one
    /// that speaks HTTP.
    pub address: String,
    /// What it can do, where its link does not say.
    pub capabilities: Capabilities,
    /// How long the registration is good unless it is renewed, 1 s to 24 h; without end
    /// where not set.
    pub lease: Option<Duration>,
}

/// A participant as it is now.
#[derive(Debug, Clone)]
pub struct ParticipantStatus {
    /// Its name; its address where it was never registered.
    pub name: Arc<str>,
    /// Where it is.
    pub address: String,
    /// What it can do, as its link or its registration says.
    pub capabilities: Capabilities,
    /// Its link.
    pub link: LinkState,
    /// Why the last call or connection failed; empty where nothing did.
    pub last_error: Arc<str>,
    /// Transactions that name it and have not ended.
    pub unfinished: usize,
    /// Its journal, where its link says.
    pub journal: Option<JournalId>,
    /// It is refused new transactions and goes when the unfinished ones have ended.
    pub draining: bool,
    /// How long its registration is still good; none where it has no end.
    pub lease_left: Option<Duration>,
    /// While its link is quarantined: the epoch of this coordinator that it says it knows.
    pub newer_epoch: Option<u64>,
}

/// How a participant was deregistered.
#[derive(Debug, Clone, Copy)]
pub struct Deregistered {
    /// It is gone. Else it is being drained.
    pub removed: bool,
    /// Transactions that it still has.
    pub unfinished: usize,
}

impl Coordinator {
    /// Registers a participant, durably. One that is known by the name moves to the
    /// address, with all its unfinished branches.
    ///
    /// # Errors
    ///
    /// [`Error`]: nothing was changed.
    pub async fn register(&self, new: NewParticipant) -> Result<(), Error> {
        let NewParticipant { name, address, capabilities, lease } = new;
        let field = |field: &str| format!("participant.{field}");
        check_name(&name).map_err(|problem| Error::invalid(field("name"), problem))?;
        let address: Address =
            address.parse().map_err(|problem: String| Error::invalid(field("address"), problem))?;
        if capabilities.supports_inquiry && address.is_http() {
            let problem = "is not possible for a participant that speaks HTTP";
            return Err(Error::invalid(field("supports_inquiry"), problem));
        }
        let lease = limits::lease(lease)?;
        let directory = &self.handle.directory;
        let registration = Registration { name, address, capabilities, lease, draining: false };
        match directory.find(&registration.name) {
            // A repeat is answered as the first was, whatever is allowed now.
            Some(known) if is_registered_so(&known, &registration) => {}
            None if directory.all().len() >= MAX_REGISTERED => {
                return Err(Error::Exhausted(format!(
                    "{MAX_REGISTERED} participants are known, the limit"
                )));
            }
            _ => self.check_allowed(&field("address"), &registration.address)?,
        }
        let _one = self.registering.lock().await;
        self.handle.journal.register(registration.clone()).await?;
        let Registration { name, address, .. } = &registration;
        tracing::info!(participant = name, %address, ?capabilities, ?lease, "registered");
        let registered = directory.register(&registration);
        self.ensure_link(&registered)
    }

    /// Begins a registration's lease anew, and returns it; none where it has no end.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownParticipant`].
    pub fn renew(&self, name: &str) -> Result<Option<Duration>, Error> {
        let status = self.handle.directory.renew(name);
        Ok(status.ok_or_else(|| unknown(name))?.lease)
    }

    /// Deregisters a participant, durably; with `drain` once its transactions have ended.
    ///
    /// # Errors
    ///
    /// [`Error::StillUnfinished`], [`Error::UnknownParticipant`].
    pub async fn deregister(&self, name: &str, drain: bool) -> Result<Deregistered, Error> {
        let _one = self.registering.lock().await;
        let known = self.handle.directory.find(name);
        let Some((known, status)) = known.and_then(|it| Some((it.clone(), it.status?))) else {
            // It was deregistered before, and the answer may have been lost.
            if self.handle.directory.is_gone(name) {
                return Ok(Deregistered { removed: true, unfinished: 0 });
            }
            return Err(unknown(name));
        };
        let count = self.handle.unfinished(known.id).await?;
        if count > 0 && !drain {
            return Err(Error::StillUnfinished { name: name.into(), count });
        }
        // Closed before the last look: what begins after it would be lost.
        self.close_to_new(&known, &status).await?;
        let count = self.handle.unfinished(known.id).await?;
        match count {
            0 => self.remove(&known).await?,
            _ => tracing::info!(participant = name, unfinished = count, "being drained"),
        }
        Ok(Deregistered { removed: count == 0, unfinished: count })
    }

    /// New transactions may not name it from here on.
    async fn close_to_new(
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
    pub(crate) async fn drain(self) {
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

    /// All participants: registered, and known by their address.
    ///
    /// # Errors
    ///
    /// [`Error::Stopping`].
    pub async fn participants(&self) -> Result<Vec<ParticipantStatus>, Error> {
        let mut all = Vec::new();
        for known in self.handle.directory.all() {
            let unfinished = self.handle.unfinished(known.id).await?;
            all.push(status(&known, unfinished));
        }
        Ok(all)
    }

    /// One participant, registered or known by its address.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownParticipant`].
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
    ParticipantStatus {
        name: Arc::clone(&known.name),
        address: known.address.as_ref().map_or_else(String::new, |it| it.to_string()),
        capabilities: known.on_its_link.unwrap_or(known.capabilities),
        link: known.link,
        last_error: Arc::clone(&known.last_error),
        unfinished,
        journal: known.journal,
        draining: known.status.is_some_and(|status| status.draining),
        lease_left: known.status.and_then(|status| status.lease_left()),
        newer_epoch: known.newer_epoch,
    }
}
