//! A closed loop: so many orders are always in flight.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    book::Book,
    choice::Mode,
    lane::{Lane, Numbers, Source},
    stream,
    tally::Tally,
    template::Templates,
    unary,
    versions::Versions,
};

/// Clients that place orders, and their connections.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
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

impl Clients {
    /// Begins to place orders, `limit` at most.
    pub(crate) fn start(&self, in_flight: u32, limit: Option<u64>) -> Load {
        let source = Arc::new(Source::new(self.numbers.clone(), limit));
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
        self.source.stop();
        self.wait().await?;
        Ok(self.book)
    }
}
