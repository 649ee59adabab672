//! Transactions whose decision is not acknowledged are logged until they end.

use std::{collections::BTreeSet, time::Duration};

use dtc_protocol::TransactionId;
use tokio::time::Instant;

/// How often they are logged.
const REPEAT: Duration = Duration::from_secs(60);
/// How many of them by id.
const NAMED: usize = 5;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    all: BTreeSet<TransactionId>,
    logged_at: Option<Instant>,
}

impl Stalled {
    pub(super) fn insert(&mut self, id: TransactionId) {
        self.all.insert(id);
    }

    pub(super) fn remove(&mut self, id: TransactionId) {
        self.all.remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells of them, now and then.
    pub(super) fn log(&mut self) {
        if self.all.is_empty() {
            if self.logged_at.take().is_some() {
                tracing::info!("no transaction is stalled any more");
            }
            return;
        }
        if self.logged_at.is_some_and(|at| at.elapsed() < REPEAT) {
            return;
        }
        self.logged_at = Some(Instant::now());
        let names: Vec<_> = self.all.iter().take(NAMED).map(ToString::to_string).collect();
        tracing::warn!(
            transactions = self.all.len(),
            oldest = names.join(", "),
            "stalled: decided, but not acknowledged by every participant. Delivery goes on; \
             List shows them (stalled), AdminService.Resolve ends them"
        );
    }
}
