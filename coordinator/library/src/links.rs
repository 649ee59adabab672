//! All links: one a participant, started when the participant becomes known.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use dtc_core::{Event, ParticipantId};
use dtc_proto::dtc::Origin;
use tokio::sync::mpsc;

use crate::{
    address::Address,
    allow::Pattern,
    directory::Participant,
    driver::Handle,
    error::Error,
    journal::Capabilities,
    link::{self, Link, Outgoing, Target},
};

/// Starts links, and moves them when a participant's address changes.
#[derive(Clone)]
pub struct Links {
    handle: Handle,
    origin: Origin,
    capacity: usize,
    allowed: Arc<[Pattern]>,
    client: link::Client,
    running: Arc<Mutex<HashMap<ParticipantId, Running>>>,
}

struct Running {
    address: Arc<Address>,
    capabilities: Capabilities,
    task: tokio::task::JoinHandle<()>,
}

impl Links {
    /// `capacity` messages may wait for one participant.
    pub fn new(
        handle: Handle,
        advertise: Option<String>,
        capacity: usize,
        allowed: Vec<Pattern>,
    ) -> Self {
        let run = handle.journal.run();
        let origin = Origin {
            coordinator_id: handle.journal.coordinator().to_string(),
            epoch: run.epoch,
            incarnation: run.incarnation.to_string(),
            recovery_address: advertise.unwrap_or_default(),
        };
        let (client, running) =
            (link::client(Arc::clone(&handle.environment.network)), Arc::default());
        Self { handle, origin, capacity, allowed: allowed.into(), client, running }
    }

    /// Who this coordinator is, in this run.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes sure that the participant has a link to its present address.
    pub fn ensure(&self, participant: &Participant) -> Result<(), Error> {
        let Some(address) = participant.address.clone() else {
            return Ok(());
        };
        // With nobody to ask, it is treated as one that can't.
        let can_ask = !self.origin.recovery_address.is_empty() && !address.is_http();
        let capabilities = participant.capabilities;
        let capabilities = Capabilities {
            supports_inquiry: capabilities.supports_inquiry && can_ask,
            ..capabilities
        };
        let target = match address.is_http() {
            true => Target::Http(address.base()),
            false => {
                let endpoint = link::endpoint(&address)
                    .map_err(|error| Error::invalid("address", error.to_string()))?;
                Target::Grpc(Box::new(endpoint))
            }
        };
        let mut running = self.running();
        if let Some(known) = running.get(&participant.id) {
            if known.address == address && known.capabilities == capabilities {
                return Ok(());
            }
            known.task.abort();
        }
        let (queue, queued) = mpsc::channel(self.capacity);
        let link = Link {
            participant: participant.id,
            name: participant.name.clone(),
            address: address.clone(),
            target,
            client: self.client.clone(),
            capabilities,
            origin: self.origin.clone(),
            handle: self.handle.clone(),
            queue: queued,
        };
        let (handle, id) = (self.handle.clone(), participant.id);
        let start: mpsc::Sender<Outgoing> = queue;
        let task = tokio::spawn(async move {
            // The driver has to know the queue before it hears of the link.
            let why = "it is being connected to".into();
            handle.events(vec![Event::Disconnected { participant: id, why }]).await;
            handle.link(id, start).await;
            link.run().await;
        });
        running.insert(participant.id, Running { address, capabilities, task });
        Ok(())
    }

    /// Ends a participant's link.
    pub async fn end(&self, participant: ParticipantId) {
        let known = self.running().remove(&participant);
        if let Some(known) = known {
            known.task.abort();
            let why = "it was deregistered".into();
            self.handle.events(vec![Event::Disconnected { participant, why }]).await;
            self.handle.unlink(participant).await;
        }
    }

    /// A participant that a client names for new work: registered, or by its address.
    pub fn resolve(&self, field: &str, name: &str) -> Result<Participant, Error> {
        let directory = &self.handle.directory;
        if let Some(known) = directory.find(name) {
            return self.open(field, known);
        }
        if !name.contains("://") {
            return Err(self.unknown(field, name));
        }
        let address: Address =
            name.parse().map_err(|error: String| Error::invalid(field, error))?;
        if let Some(known) = directory.at(&address) {
            let known = self.open(field, known)?;
            self.ensure(&known)?;
            return Ok(known);
        }
        self.check_allowed(field, &address)?;
        let added = directory.add_address(&address).ok_or_else(|| {
            Error::Exhausted(format!(
                "{field}: too many participants are known by their address only; register '{address}'"
            ))
        })?;
        self.ensure(&added)?;
        Ok(added)
    }

    /// Whether a request may make the coordinator call an address.
    pub fn check_allowed(&self, field: &str, address: &Address) -> Result<(), Error> {
        if self.allowed.iter().any(|pattern| pattern.matches(address)) {
            return Ok(());
        }
        Err(Error::NotAllowed {
            field: field.into(),
            address: address.to_string(),
            pattern: format!("{}:{}", address.host(), address.port()),
        })
    }

    /// Whether a known participant takes new work.
    fn open(&self, field: &str, known: Participant) -> Result<Participant, Error> {
        if let Some(epoch) = known.newer_epoch {
            let own = self.origin.epoch;
            let why = format!(
                "is quarantined: it says that it knows epoch {epoch} of this coordinator, which is \
                 in epoch {own}; its operators have to find out which of the two is right"
            );
            return Err(Error::NotOpen { field: field.into(), name: known.name.to_string(), why });
        }
        let Some(standing) = &known.status else {
            // It may be known from a journal that was written under other patterns.
            if let Some(address) = &known.address {
                self.check_allowed(field, address)?;
            }
            return Ok(known);
        };
        let why = match standing.lease_left() {
            _ if standing.draining => "is being drained; it takes no new transactions",
            Some(left) if left.is_zero() => {
                "has not renewed its registration, which has run out; renew it or register again"
            }
            _ => return Ok(known),
        };
        let why = why.into();
        Err(Error::NotOpen { field: field.into(), name: known.name.to_string(), why })
    }

    fn unknown(&self, field: &str, name: &str) -> Error {
        let known: Vec<_> = self.handle.directory.all();
        let known: Vec<_> = known.iter().map(|it| &*it.name).take(20).collect();
        let known = match known.is_empty() {
            true => "none".into(),
            false => known.join(", "),
        };
        let name: String = name.chars().take(80).collect();
        Error::invalid(
            field,
            format!(
                "no participant '{name}' is registered (known: {known}); register it, start the \
                 coordinator with --participant {name}=http://host:port, or give its address"
            ),
        )
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<ParticipantId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
