//! A transaction as it goes on.

use dtc_protocol::TransactionId;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Coordinator, Error, TrailEvent, Transaction};
use crate::driver::Happened;

/// A transaction after something has happened to it.
#[derive(Debug, Clone)]
pub struct Update {
    /// As it is now.
    pub transaction: Transaction,
    /// What happened; none in the first update, and where some were missed.
    pub event: Option<TrailEvent>,
}

/// A transaction that is watched.
pub struct Watch {
    coordinator: Coordinator,
    id: TransactionId,
    events: broadcast::Receiver<Happened>,
    event: Option<TrailEvent>,
    /// As it was when the watch began, until that was taken.
    first: Option<Transaction>,
    finished: bool,
}

impl Coordinator {
    /// A transaction now and after each of its events, until it has finished.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTransaction`].
    pub async fn watch(&self, id: TransactionId) -> Result<Watch, Error> {
        // Before the first look, so that nothing is missed between the two.
        let events = self.handle.watch();
        let first = Some(self.get(id).await?);
        let coordinator = self.clone();
        Ok(Watch { coordinator, id, events, event: None, first, finished: false })
    }
}

impl Watch {
    /// The next update; none when it has finished, or the process is being stopped.
    ///
    /// # Errors
    ///
    /// [`Error`], after which nothing comes.
    pub async fn next(&mut self) -> Result<Option<Update>, Error> {
        if self.finished {
            return Ok(None);
        }
        let transaction = match self.first.take() {
            Some(first) => first,
            None => {
                let stopping = self.coordinator.shutdown.begun();
                let event = tokio::select! {
                    biased;
                    () = stopping => return Ok(None),
                    event = happened(&mut self.events, self.id) => event,
                };
                self.event = event.map(|event| TrailEvent::new(&event, &[], None));
                let now = self.coordinator.get(self.id).await;
                now.inspect_err(|_| self.finished = true)?
            }
        };
        self.finished = transaction.is_finished();
        Ok(Some(Update { transaction, event: self.event.take() }))
    }
}

/// The next event of a transaction; none where some were missed: a look shows where it is.
async fn happened(
    events: &mut broadcast::Receiver<Happened>,
    id: TransactionId,
) -> Option<dtc_core::TrailEvent> {
    loop {
        match events.recv().await {
            Ok(happened) if happened.id == id => return Some(happened.event),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return None,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
