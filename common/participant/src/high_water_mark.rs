//! How far the journal reaches. Ids grow with time, so that most branches that
//! come for the first time lie beyond all that were seen, and need not be looked
//! for. After an id from the future all are, as if there were no mark.

use std::sync::{Mutex, PoisonError};

use dtc_protocol::{BranchId, TransactionId};
use rusqlite::{Connection, OptionalExtension};

/// At least the greatest key of a branch in the journal.
pub(crate) struct HighWaterMark {
    at_start: Option<Key>,
    last: Mutex<Option<Key>>,
}

/// A transaction and the number of a branch.
pub(crate) type Key = (TransactionId, u32);

impl HighWaterMark {
    /// Of the journal as it is.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let last = |table: &str| {
            let sql = format!(
                "SELECT transaction_id, branch FROM {table}
                 ORDER BY transaction_id DESC, branch DESC LIMIT 1"
            );
            let key = |row: &rusqlite::Row<'_>| {
                Ok((TransactionId::from_bytes(row.get(0)?), row.get::<_, u32>(1)?))
            };
            connection.query_row(&sql, [], key).optional()
        };
        let at_start = last("undecided")?.max(last("decided")?);
        Ok(Self { at_start, last: Mutex::new(at_start) })
    }

    /// How far the journal reached when it was opened.
    pub(crate) fn at_start(&self) -> Option<Key> {
        self.at_start
    }

    /// Whether the journal may have the branch; from now on it may.
    pub(crate) fn reaches(&self, branch: &BranchId) -> bool {
        let key = Some((branch.transaction, branch.number));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let reaches = key <= *last;
        *last = key.max(*last);
        reaches
    }
}
