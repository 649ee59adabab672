//! All links: one a participant, started when the participant becomes known.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use dtc_core::{Event, ParticipantId};
use dtc_proto::dtc::Origin;
use tokio::sync::mpsc;

use super::connection;
use super::http;
use super::{Link, Target};
use crate::{
    address::Address,
    directory::Participant,
    driver::{Handle, Outgoing},
    journal::Capabilities,
};

/// Starts links, and moves them when a participant's address changes.
#[derive(Clone)]
pub(crate) struct Links {
    handle: Handle,
    origin: Origin,
    capacity: usize,
    client: http::Client,
    running: Arc<Mutex<HashMap<ParticipantId, Running>>>,
}

struct Running {
    address: Arc<Address>,
    capabilities: Capabilities,
    task: tokio::task::JoinHandle<()>,
}

/// An address that cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[error("address '{0}': {1}")]
pub struct InvalidAddress(String, String);

impl Links {
    /// `capacity` messages may wait for one participant.
    pub(crate) fn new(handle: Handle, origin: Origin, capacity: usize) -> Self {
        let client = http::client(Arc::clone(&handle.environment.network));
        Self { handle, origin, capacity, client, running: Arc::default() }
    }

    /// Who this coordinator is, in this run.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether there can be a link to an address at all.
    pub(crate) fn check(address: &Address) -> Result<(), InvalidAddress> {
        target(address).map(drop)
    }

    /// Makes sure that the participant has a link to its present address.
    pub(crate) fn ensure(&self, participant: &Participant) -> Result<(), InvalidAddress> {
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
        let target = target(&address)?;
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
    pub(crate) async fn end(&self, participant: ParticipantId) {
        let known = self.running().remove(&participant);
        if let Some(known) = known {
            known.task.abort();
            let why = "it was deregistered".into();
            self.handle.events(vec![Event::Disconnected { participant, why }]).await;
            self.handle.unlink(participant).await;
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<ParticipantId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn target(address: &Address) -> Result<Target, InvalidAddress> {
    if address.is_http() {
        return Ok(Target::Http(address.base()));
    }
    let invalid =
        |error: tonic::transport::Error| InvalidAddress(address.to_string(), error.to_string());
    Ok(Target::Grpc(Box::new(connection::endpoint(address).map_err(invalid)?)))
}
