//! Transactions, newest first, a page at a time: those in memory and those in
//! the journal, merged by id.

use std::collections::BTreeMap;

use dtc_proto::dtc::{
    ListTransactionsRequest, ListTransactionsResponse, Outcome, Transaction, TransactionState,
};
use dtc_protocol::TransactionId;

use super::Services;
use crate::{convert, driver::IN_ONE_TURN, error::Error};

const PAGE: usize = 100;
const MAX_PAGE: u32 = 1000;
/// Rows of history that one call looks through.
const MAX_SCANNED: usize = 20_000;

impl Services {
    pub async fn list(
        &self,
        request: ListTransactionsRequest,
    ) -> Result<ListTransactionsResponse, Error> {
        let size = match request.page_size {
            0 => PAGE,
            size if size <= MAX_PAGE => size as usize,
            size => {
                let problem = format!("{size} is too large; 1 to {MAX_PAGE}");
                return Err(Error::invalid("page_size", problem));
            }
        };
        for &state in &request.states {
            let known = TransactionState::try_from(state).is_ok_and(|it| it as i32 != 0);
            known.then_some(()).ok_or_else(|| none("states", state, "TRANSACTION_STATE_ACTIVE"))?;
        }
        for &outcome in &request.outcomes {
            let known = Outcome::try_from(outcome).is_ok_and(|it| it as i32 != 0);
            known.then_some(()).ok_or_else(|| none("outcomes", outcome, "OUTCOME_PENDING"))?;
        }
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse::<TransactionId>().map_err(|_| {
                Error::invalid(
                    "page_token",
                    "is not from an answer of List; leave it empty to begin",
                )
            })?),
        };
        let directory = &self.handle.directory;
        let mut found: BTreeMap<TransactionId, Transaction> = BTreeMap::new();
        // Memory, until a page is full: what is older than that is not on it.
        let mut looked = before;
        while found.len() <= size {
            let views = self.handle.list(looked, IN_ONE_TURN).await?;
            looked = views.last().map(|view| view.id).or(looked);
            let shown = views.iter().map(|view| (view.id, convert::transaction(view, directory)));
            found.extend(shown.filter(|(_, transaction)| matches(&request, transaction)));
            if views.len() < IN_ONE_TURN {
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
                let transaction = convert::stored(row, false);
                if matches(&request, &transaction) {
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
        Ok(ListTransactionsResponse {
            transactions: page.into_iter().map(|(_, transaction)| transaction).collect(),
            next_page_token: next.map_or_else(String::new, |id| id.to_string()),
        })
    }
}

fn none(field: &str, value: i32, example: &str) -> Error {
    Error::invalid(field, format!("{value} is none; name them, such as {example}"))
}

fn matches(request: &ListTransactionsRequest, transaction: &Transaction) -> bool {
    let begun = transaction.begun_at.as_ref().map_or((0, 0), |at| (at.seconds, at.nanos));
    let after = request.begun_after.as_ref().is_none_or(|at| begun >= (at.seconds, at.nanos));
    let before = request.begun_before.as_ref().is_none_or(|at| begun < (at.seconds, at.nanos));
    let at = &request.participant;
    after
        && before
        && (request.states.is_empty() || request.states.contains(&transaction.state))
        && (request.outcomes.is_empty() || request.outcomes.contains(&transaction.outcome))
        && (at.is_empty() || transaction.branches.iter().any(|it| it.participant == *at))
        && (!request.stalled || transaction.stalled)
        && (!request.notification_owed || owes_notifications(transaction))
}

/// Whether a participant is still to be notified of what an operator resolved.
pub(super) fn owes_notifications(transaction: &Transaction) -> bool {
    transaction.branches.iter().any(|branch| branch.notification_owed)
}
