//! The links that are open now. A coordinator may have several in one run, where
//! it knows this participant by several names; a newer run ends those of older.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use dtc_proto::dtc::LinkResponse;
use dtc_protocol::{CoordinatorId, fence::Run};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::ended::Ended;

/// Where a link's messages go.
pub(crate) type Responses = mpsc::Sender<Result<LinkResponse, Status>>;

#[derive(Debug, Default, Clone)]
pub(crate) struct Links {
    open: Arc<Mutex<HashMap<CoordinatorId, Vec<Link>>>>,
    count: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Link {
    number: u64,
    run: Run,
    responses: Responses,
    /// Dropped when a newer run opens a link.
    _replaced: oneshot::Sender<Infallible>,
    /// What was said last on it of transactions that have ended.
    ended: Option<(Ended, i64)>,
}

/// A link's place, for as long as it is open.
#[derive(Debug)]
pub(crate) struct Place {
    links: Links,
    coordinator: CoordinatorId,
    number: u64,
}

impl Links {
    /// Takes a place; links of other runs of the coordinator learn that they
    /// are replaced.
    pub(crate) fn open(
        &self,
        coordinator: CoordinatorId,
        run: Run,
        responses: Responses,
    ) -> (Place, oneshot::Receiver<Infallible>) {
        let (replaced, is_replaced) = oneshot::channel();
        let number = self.count.fetch_add(1, Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let links = open.entry(coordinator).or_default();
        links.retain(|link| link.run == run);
        links.push(Link { number, run, responses, _replaced: replaced, ended: None });
        (Place { links: self.clone(), coordinator, number }, is_replaced)
    }

    /// What has ended by the word of every link of each coordinator. A participant that
    /// is known by several names has a link for each, and what was said on one may be
    /// older than work that came on another. With it, when the first of it was said.
    pub(crate) fn ended(&self) -> Vec<(CoordinatorId, Ended, i64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all = open.iter().filter_map(|(coordinator, links)| {
            let mut said = links.iter().map(|link| link.ended.as_ref());
            let first = said.next()??.clone();
            let (ended, at) = said.try_fold(first, |(ended, at), said| {
                let (more, since) = said?;
                Some((ended.and(more), at.min(*since)))
            })?;
            Some((*coordinator, ended, at))
        });
        all.collect()
    }

    /// The newest link of a coordinator.
    pub(crate) fn get(&self, coordinator: &CoordinatorId) -> Option<Responses> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(coordinator)?.last().map(|link| link.responses.clone())
    }
}

impl Place {
    /// Notes what is said on this link of transactions that have ended, and when.
    pub(crate) fn note_ended(&self, ended: &Ended, at: i64) {
        let mut open = self.links.open.lock().unwrap_or_else(PoisonError::into_inner);
        let links = open.get_mut(&self.coordinator).into_iter().flatten();
        for link in links.filter(|link| link.number == self.number) {
            link.ended = Some((ended.clone(), at));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.links.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(links) = open.get_mut(&self.coordinator) else { return };
        links.retain(|link| link.number != self.number);
        if links.is_empty() {
            open.remove(&self.coordinator);
        }
    }
}
