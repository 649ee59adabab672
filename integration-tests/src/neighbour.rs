//! Participants that are no services of ours, one over HTTP and one that serves only
//! the three calls of gRPC. Their books are true; but what stands between them and the
//! coordinator answers with any status, before they did something or after it.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use dtc_runtime::Listener;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::workload::books::Journals;

use book::{Asked, Book, Said};

mod book;
mod calls;
mod requests;

/// The slowest answer.
const SLOW: u64 = 3_000;

/// What a neighbour is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// How many calls in a hundred are answered by something else.
    pub(crate) trouble: u32,
    /// How many prepares in a hundred are refused.
    pub(crate) refusals: u32,
    /// The largest output, which is rare.
    pub(crate) output: usize,
    /// Whether what stands between may speak of runs that never were.
    pub(crate) forges: bool,
}

/// How a neighbour is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http,
    Calls,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Nothing is done, and something is answered: one of so many things.
    Before(u32),
    /// It is done, and something else is answered.
    After(u32),
}

struct State {
    random: StdRng,
    book: Book,
}

/// One of them.
#[derive(Clone)]
pub(crate) struct Neighbour {
    pub(crate) name: &'static str,
    speech: Speech,
    manners: Manners,
    state: Arc<Mutex<State>>,
    healed: Arc<AtomicBool>,
}

impl Neighbour {
    /// One with empty books.
    pub(crate) fn new(name: &'static str, speech: Speech, manners: Manners, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let state = Arc::new(Mutex::new(State { random, book: Book::default() }));
        Self { name, speech, manners, state, healed: Arc::default() }
    }

    /// From here on its answers are its own; or not any more.
    pub(crate) fn heal(&self, healed: bool) {
        self.healed.store(healed, Relaxed);
    }

    /// How many branches wait for a decision.
    pub(crate) fn undecided(&self) -> i64 {
        self.lock().book.undecided()
    }

    /// Adds to the journals what its books hold.
    pub(crate) fn testify(&self, journals: &mut Journals) {
        let book = &self.lock().book;
        book.decided().for_each(|(id, is_committed)| journals.add_branch(id, is_committed));
        let complaints = book.complaints.iter().map(|what| format!("{}: {what}", self.name));
        journals.complaints.extend(complaints);
    }

    /// Answers what comes to a port.
    pub(crate) async fn serve(self, mut port: Box<dyn Listener>) -> io::Result<()> {
        let router: Router = match self.speech {
            Speech::Http => requests::router(self),
            Speech::Calls => calls::router(self),
        };
        loop {
            let (stream, _) = port.accept().await?;
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                // Its length would follow the real clock.
                server.http1().auto_date_header(false);
                server.http2().auto_date_header(false);
                // It ends with the network.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    /// What the books say, what is answered in their place, and the random number that
    /// chooses it.
    async fn answer(&self, asked: &Asked) -> (Option<Said>, Option<u32>) {
        let (trouble, pause, refuse, output) = self.draw();
        tokio::time::sleep(pause).await;
        match trouble {
            Trouble::Before(which) => (None, Some(which)),
            Trouble::None => (Some(self.lock().book.answer(asked, refuse, output)), None),
            Trouble::After(which) => {
                let said = self.lock().book.answer(asked, refuse, output);
                (Some(said), Some(which))
            }
        }
    }

    fn draw(&self) -> (Trouble, Duration, bool, usize) {
        let random = &mut self.lock().random;
        let (trouble, which): (u32, u32) = (random.random_range(0..100), random.random());
        let after = random.random_bool(0.4);
        let slow = random.random_bool(0.1);
        let pause = random.random_range(0..if slow { SLOW } else { 20 });
        let refuse = random.random_range(0..100) < self.manners.refusals;
        let largest = if random.random_bool(0.03) { self.manners.output } else { 40 };
        let output = random.random_range(2..=largest.max(2));
        if self.healed.load(Relaxed) {
            return (Trouble::None, Duration::ZERO, refuse, output);
        }
        let trouble = match trouble < self.manners.trouble {
            true if after => Trouble::After(which),
            true => Trouble::Before(which),
            false => Trouble::None,
        };
        (trouble, Duration::from_millis(pause), refuse, output)
    }

    fn journal(&self) -> String {
        uuid::Uuid::from_u128(self.name.len() as u128 + 0xbad).to_string()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
