//! All links: one a participant, started when the participant becomes known.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use coordinator_core::ParticipantId;
use proto::dtc::Origin;
use tokio::sync::mpsc;

use crate::{
    config,
    directory::Participant,
    driver::Handle,
    error::Error,
    link::{Link, Outgoing, endpoint},
};

/// Starts links, and moves them when a participant's address changes.
#[derive(Clone)]
pub(crate) struct Links {
    handle: Handle,
    origin: Origin,
    capacity: usize,
    running: Arc<Mutex<HashMap<ParticipantId, Running>>>,
}

struct Running {
    address: Arc<str>,
    asks: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Links {
    pub(crate) fn new(handle: Handle, advertise: Option<String>, capacity: usize) -> Self {
        let run = handle.journal.run();
        let origin = Origin {
            coordinator_id: handle.journal.coordinator().to_string(),
            epoch: run.epoch,
            incarnation: run.incarnation.to_string(),
            recovery_address: advertise.unwrap_or_default(),
        };
        Self { handle, origin, capacity, running: Arc::default() }
    }

    /// Who this coordinator is, in this run.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes sure that the participant has a link to its present address.
    pub(crate) async fn ensure(&self, participant: &Participant) -> Result<(), Error> {
        let Some(address) = participant.address.clone() else {
            return Ok(());
        };
        let asks = participant.asks;
        let wrong = |error: &dyn std::fmt::Display| Error::invalid("address", error.to_string());
        let endpoint = endpoint(&address).map_err(|error| wrong(&error))?;
        let (queue, queued) = mpsc::channel(self.capacity);
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = running.get(&participant.id) {
                if known.address == address && known.asks == asks {
                    return Ok(());
                }
                known.task.abort();
            }
            let link = Link {
                participant: participant.id,
                name: participant.name.clone(),
                endpoint,
                asks,
                origin: self.origin.clone(),
                handle: self.handle.clone(),
                queue: queued,
            };
            let (handle, id) = (self.handle.clone(), participant.id);
            let start: mpsc::Sender<Outgoing> = queue;
            let task = tokio::spawn(async move {
                // The driver has to know the queue before it hears of the link.
                let gone = coordinator_core::Event::Disconnected { participant: id };
                handle.events(vec![gone]).await;
                handle.link(id, start).await;
                link.run().await;
            });
            running.insert(participant.id, Running { address, asks, task });
        }
        Ok(())
    }

    /// A participant that a client names: registered, or by its address.
    pub(crate) async fn resolve(&self, field: &str, name: &str) -> Result<ParticipantId, Error> {
        if let Some(known) = self.handle.directory.find(name) {
            return Ok(known.id);
        }
        if !crate::directory::is_address(name) {
            return Err(self.unknown(field, name));
        }
        let address = config::parse_address(name).map_err(|error| Error::invalid(field, error))?;
        if let Some(known) = self.handle.directory.at(&address) {
            self.ensure(&known).await?;
            return Ok(known.id);
        }
        let added = self.handle.directory.add_address(&address).ok_or_else(|| {
            Error::Exhausted(format!(
                "{field}: too many participants are known by their address only; register '{address}'"
            ))
        })?;
        self.ensure(&added).await?;
        Ok(added.id)
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
}
