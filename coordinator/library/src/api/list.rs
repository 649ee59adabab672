//! Transactions, newest first, a page at a time: those in memory and those in
//! the journal, merged by id.

use std::collections::BTreeMap;

use dtc_core::{Outcome, Time, TransactionState};
use dtc_protocol::TransactionId;

use super::{Coordinator, Error, Transaction, limits};
use crate::driver::IN_ONE_TURN;

/// Rows of history that one call looks through.
const MAX_SCANNED: usize = 20_000;

/// Which transactions to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only these states; all when empty.
    pub states: Vec<TransactionState>,
    /// Only these outcomes; all when empty.
    pub outcomes: Vec<Outcome>,
    /// Only those with a branch at this participant.
    pub participant: Option<String>,
    /// Only those whose commit or rollback is still sent after the set number of attempts.
    pub stalled: bool,
    /// Only those that an operator resolved and whose participants are not all notified.
    pub notification_owed: bool,
    /// Only those begun at this time or later.
    pub begun_after: Option<Time>,
    /// Only those begun before this time.
    pub begun_before: Option<Time>,
    /// 1 to [`MAX_PAGE`](super::MAX_PAGE); 0 for the default.
    pub page_size: u32,
    /// Where the page before ended; none for the first.
    pub before: Option<TransactionId>,
}

/// A page of transactions, without their trails.
#[derive(Debug, Clone)]
pub struct Page {
    /// Newest first.
    pub transactions: Vec<Transaction>,
    /// Where the next page begins; none on the last one.
    pub next: Option<TransactionId>,
}

impl Filter {
    fn takes(&self, transaction: &Transaction) -> bool {
        let begun = transaction.begun_at.unwrap_or_default();
        let at = self.participant.as_deref();
        self.begun_after.is_none_or(|at| begun >= at)
            && self.begun_before.is_none_or(|at| begun < at)
            && (self.states.is_empty() || self.states.contains(&transaction.state))
            && (self.outcomes.is_empty() || self.outcomes.contains(&transaction.outcome))
            && at.is_none_or(|at| transaction.branches.iter().any(|it| *it.participant == *at))
            && (!self.stalled || transaction.stalled)
            && (!self.notification_owed || transaction.owes_notifications())
    }
}

impl Coordinator {
    /// A page of transactions, newest first.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn list(&self, filter: &Filter) -> Result<Page, Error> {
        let size = limits::page_size(filter.page_size)?;
        let before = filter.before;
        let directory = &self.handle.directory;
        let mut found: BTreeMap<TransactionId, Transaction> = BTreeMap::new();
        // Memory, until a page is full: what is older than that is not on it.
        let mut looked = before;
        while found.len() <= size {
            let views = self.handle.list(looked, IN_ONE_TURN).await?;
            looked = views.last().map(|view| view.id).or(looked);
            let is_last = views.len() < IN_ONE_TURN;
            let shown =
                views.into_iter().map(|view| (view.id, Transaction::new(view, &**directory)));
            found.extend(shown.filter(|(_, transaction)| filter.takes(transaction)));
            if is_last {
                break;
            }
        }

        // History, until a page is full. A transaction may end between the two
        // looks; then it is in both, and the journal's is the newer.
        let mut from = before;
        let mut scanned = 0;
        let mut exhausted = false;
        while !exhausted && scanned < MAX_SCANNED {
            let rows = self.handle.journal.finished(from, size + 1).await?;
            exhausted = rows.len() <= size;
            scanned += rows.len();
            from = rows.last().map(|row| row.id).or(from);
            for row in &rows {
                let transaction =
                    Transaction { trail: Vec::new(), ..Transaction::in_journal(row)? };
                if filter.takes(&transaction) {
                    found.insert(row.id, transaction);
                }
            }
            let reached = from.unwrap_or(TransactionId::from_bytes([0; 16]));
            if found.range(reached..).count() > size {
                break;
            }
        }
        let mut page: Vec<(TransactionId, Transaction)> = found.into_iter().rev().collect();
        if !exhausted {
            // Older ones in memory come after history that was not looked at yet.
            page.retain(|(id, _)| from.is_none_or(|from| *id >= from));
        }
        let more = page.len() > size;
        page.truncate(size);
        let last = page.last().map(|(id, _)| *id);
        let next = match (more, exhausted) {
            (true, _) => last,
            (false, false) => from,
            (false, true) => None,
        };
        let transactions = page.into_iter().map(|(_, transaction)| transaction).collect();
        Ok(Page { transactions, next })
    }
}
