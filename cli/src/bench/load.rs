//! A closed loop: so many orders are always in flight.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    args::Mode,
    book::Book,
    plan::Order,
    stream,
    tally::{Answer, Tally},
    template::Templates,
    unary,
    versions::Versions,
};

/// Numbers for orders; no number comes twice in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers(Arc<AtomicU64>);

/// Who wants orders placed, and over which connections.
#[derive(Debug, Clone)]
pub(crate) struct Customers {
    pub(crate) mode: Mode,
    /// One for each lane.
    pub(crate) channels: Vec<Channel>,
    pub(crate) templates: Arc<Templates>,
    /// Where orders name the versions that they have read.
    pub(crate) versions: Option<Versions>,
    pub(crate) numbers: Numbers,
}

/// What is going on.
#[derive(Debug)]
pub(crate) struct Load {
    source: Arc<Source>,
    tallies: Vec<Arc<Mutex<Tally>>>,
    lanes: JoinSet<anyhow::Result<Book>>,
    book: Book,
}

/// Where lanes get their orders, until there are no more.
#[derive(Debug)]
struct Source {
    numbers: Numbers,
    /// Orders to be placed.
    left: AtomicU64,
    stopped: AtomicBool,
}

/// One stream's or connection's share of the load.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) templates: Arc<Templates>,
    pub(crate) versions: Option<Versions>,
    pub(crate) in_flight: usize,
    source: Arc<Source>,
    tally: Arc<Mutex<Tally>>,
    book: Book,
}

impl Customers {
    /// Begins to place orders, `limit` at most.
    pub(crate) fn start(&self, in_flight: u32, limit: Option<u64>) -> Load {
        let source = Arc::new(Source {
            numbers: self.numbers.clone(),
            left: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            stopped: AtomicBool::new(false),
        });
        let count = self.channels.len().min(in_flight as usize);
        let mut lanes = JoinSet::new();
        let tallies = self.channels.iter().take(count).enumerate().map(|(index, channel)| {
            let tally = Arc::<Mutex<Tally>>::default();
            let lane = Lane {
                templates: self.templates.clone(),
                versions: self.versions.clone(),
                in_flight: (in_flight as usize + index) / count,
                source: source.clone(),
                tally: tally.clone(),
                book: Book::new(self.templates.plan()),
            };
            match self.mode {
                Mode::Stream => lanes.spawn(stream::run(lane, channel.clone())),
                Mode::Unary => lanes.spawn(unary::run(lane, channel.clone())),
            };
            tally
        });
        Load { tallies: tallies.collect(), source, lanes, book: Book::new(self.templates.plan()) }
    }
}

impl Load {
    /// What was counted since it was last taken.
    pub(crate) fn take(&self) -> Tally {
        self.fold(std::mem::take)
    }

    /// What was counted so far.
    pub(crate) fn look(&self) -> Tally {
        self.fold(|tally| tally.clone())
    }

    fn fold(&self, get: impl Fn(&mut Tally) -> Tally) -> Tally {
        let mut all = Tally::default();
        for tally in &self.tallies {
            all.merge(&get(&mut tally.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        all
    }

    /// Waits until all orders up to the limit are answered.
    ///
    /// # Errors
    ///
    /// When a lane cannot go on.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.lanes.join_next().await {
            self.book.merge(ended.context("a lane broke down")??);
        }
        Ok(())
    }

    /// Begins nothing more, waits for what is in flight, and says what has to be
    /// found in the end.
    ///
    /// # Errors
    ///
    /// When a lane cannot go on.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Book> {
        self.source.stopped.store(true, Ordering::Relaxed);
        self.wait().await?;
        Ok(self.book)
    }
}

impl Lane {
    /// The next order, if there is to be one.
    pub(crate) fn next_order(&self) -> Option<Order> {
        let source = &self.source;
        if source.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let take = |left: u64| left.checked_sub(1);
        source.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        let number = source.numbers.0.fetch_add(1, Ordering::Relaxed);
        Some(self.templates.plan().order(number))
    }

    /// Counts and enters what became of orders.
    pub(crate) fn enter(&mut self, answers: impl IntoIterator<Item = (Order, Answer, Duration)>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for (order, answer, took) in answers {
            tally.add(&answer, took);
            self.book.enter(self.templates.plan(), &order, &answer);
        }
    }

    /// What has to be found in the end.
    pub(crate) fn into_book(self) -> Book {
        self.book
    }
}
