//! A lane, one stream's or connection's share of the load: where it gets its orders, and
//! where it enters their outcomes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    book::Book,
    plan::Order,
    tally::{Answer, Tally},
    template::Templates,
    versions::Versions,
};

/// Numbers for orders; no number comes twice in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers(Arc<AtomicU64>);

/// Where lanes get their orders, until there are no more.
#[derive(Debug)]
pub(crate) struct Source {
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
    pub(crate) source: Arc<Source>,
    pub(crate) tally: Arc<Mutex<Tally>>,
    pub(crate) book: Book,
}

impl Source {
    /// Yields `limit` orders at most.
    pub(crate) fn new(numbers: Numbers, limit: Option<u64>) -> Self {
        let left = AtomicU64::new(limit.unwrap_or(u64::MAX));
        Self { numbers, left, stopped: AtomicBool::new(false) }
    }

    /// Yields no more orders.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn next_number(&self) -> Option<u64> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let take = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(self.numbers.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl Lane {
    /// The next order, if there is to be one.
    pub(crate) fn next_order(&self) -> Option<Order> {
        let number = self.source.next_number()?;
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
