//! The links that are open now: one a coordinator.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use common::CoordinatorId;
use proto::dtc::LinkResponse;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Where a link's messages go.
pub(crate) type Responses = mpsc::Sender<Result<LinkResponse, Status>>;

#[derive(Debug, Default, Clone)]
pub(crate) struct Links {
    open: Arc<Mutex<HashMap<CoordinatorId, Link>>>,
    count: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Link {
    number: u64,
    responses: Responses,
    /// Dropped when another link takes its place.
    _replaced: oneshot::Sender<Infallible>,
}

/// A link's place, for as long as it is open.
#[derive(Debug)]
pub(crate) struct Place {
    links: Links,
    coordinator: CoordinatorId,
    number: u64,
}

impl Links {
    /// Takes the coordinator's place; the link that had it learns so.
    pub(crate) fn open(
        &self,
        coordinator: CoordinatorId,
        responses: Responses,
    ) -> (Place, oneshot::Receiver<Infallible>) {
        let (replaced, is_replaced) = oneshot::channel();
        let number = self.count.fetch_add(1, Relaxed);
        let link = Link { number, responses, _replaced: replaced };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(coordinator, link);
        (Place { links: self.clone(), coordinator, number }, is_replaced)
    }

    pub(crate) fn get(&self, coordinator: &CoordinatorId) -> Option<Responses> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(coordinator).map(|link| link.responses.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.links.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&self.coordinator).is_some_and(|link| link.number == self.number) {
            open.remove(&self.coordinator);
        }
    }
}
