//! How large the journal's part of the file is that retention may make smaller: its
//! decided branches. The domain's own tables are not counted.
//!
//! It is measured once after a start, page by page beside other work, and kept up to
//! date from then on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use crate::{ResourceManager, engine::Engine, high_water_mark::Key};

/// What a row takes beside its contents: key, state, digest, stamps and its share of the
/// tree.
const ROW: i64 = 128;
/// Rows that are measured in one read.
const PAGE: i64 = 5000;
/// Measuring may take this part of the time.
const SHARE: u32 = 4;

/// Bytes of decided branches.
#[derive(Debug, Default)]
pub(crate) struct Footprint {
    bytes: AtomicI64,
    is_measured: AtomicBool,
}

/// Bytes of a decided branch with so many bytes of contents.
pub(crate) fn of_row(contents: i64) -> i64 {
    ROW + contents
}

impl Footprint {
    pub(crate) fn add(&self, bytes: i64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn bytes(&self) -> i64 {
        self.bytes.load(Relaxed).max(0)
    }

    /// Whether it is known to be larger than `limit`.
    pub(crate) fn is_above(&self, limit: u64) -> bool {
        self.is_measured.load(Relaxed) && self.bytes().cast_unsigned() > limit
    }
}

/// Measures what earlier runs have left. What this one decides of older transactions
/// meanwhile may be counted twice; it is little, and the bound is rough.
pub(crate) async fn measure<R: ResourceManager>(engine: Arc<Engine<R>>) {
    let mut from: Option<Key> = None;
    let last = engine.high_water_mark.at_start();
    while let Some(until) = last {
        let began = Instant::now();
        let page = engine.store.read(move |connection| measure_page(connection, from, until)).await;
        match page {
            Ok((bytes, Some(next))) => {
                engine.footprint.add(bytes);
                from = Some(next);
            }
            Ok((bytes, None)) => {
                engine.footprint.add(bytes);
                break;
            }
            Err(error) => {
                tracing::warn!(%error, "the journal could not be measured; its bound is not held");
                return;
            }
        }
        tokio::time::sleep(began.elapsed().max(Duration::from_millis(1)) * SHARE).await;
    }
    engine.footprint.is_measured.store(true, Relaxed);
}

/// The bytes of a page of rows after `from`, up to `until`, and where the next begins.
fn measure_page(
    connection: &Connection,
    from: Option<Key>,
    until: Key,
) -> rusqlite::Result<(i64, Option<Key>)> {
    let (first, number) = match &from {
        Some((transaction, number)) => (&transaction.as_bytes()[..], i64::from(*number)),
        None => (&[][..], -1),
    };
    let key = params![first, number, until.0.as_bytes(), until.1, PAGE];
    let next = connection
        .prepare_cached(
            "SELECT transaction_id, branch FROM decided
             WHERE (transaction_id, branch) > (?1, ?2) AND (transaction_id, branch) <= (?3, ?4)
             ORDER BY transaction_id, branch LIMIT 1 OFFSET ?5 - 1",
        )?
        .query_row(key, |row| {
            Ok((dtc_protocol::TransactionId::from_bytes(row.get(0)?), row.get(1)?))
        })
        .optional()?;
    let end = next.as_ref().unwrap_or(&until);
    let (rows, contents): (i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(coalesce(length(payload), 0) + length(output)
                    + coalesce(length(refusal_message), 0)), 0)
             FROM decided
             WHERE (transaction_id, branch) > (?1, ?2) AND (transaction_id, branch) <= (?3, ?4)",
        )?
        .query_row(params![first, number, end.0.as_bytes(), end.1], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok((rows * ROW + contents, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i64) -> Key {
        let id = format!("{number:016}").into_bytes();
        (dtc_protocol::TransactionId::from_slice(&id).unwrap(), 0)
    }

    #[test]
    fn a_journal_is_measured_a_page_at_a_time_up_to_where_it_reached() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::journal::SCHEMA).unwrap();
        let rows = PAGE + 3;
        let fill = "
            WITH RECURSIVE numbers (it) AS (
                VALUES (1) UNION ALL SELECT it + 1 FROM numbers WHERE it < ?1
            )
            INSERT INTO decided
            SELECT CAST(printf('%016d', it) AS BLOB), 0, zeroblob(16), 1, 1, NULL,
                   CASE it WHEN 1 THEN zeroblob(5) END, zeroblob(2), NULL,
                   CASE it WHEN 2 THEN 'seven b' END, 0, 0
            FROM numbers";
        connection.execute(fill, [rows]).unwrap();
        let first = measure_page(&connection, None, key(rows)).unwrap();
        assert_eq!(first, (PAGE * (ROW + 2) + 5 + 7, Some(key(PAGE))));
        let rest = measure_page(&connection, first.1, key(rows)).unwrap();
        assert_eq!(rest, (3 * (ROW + 2), None));
        let until = measure_page(&connection, first.1, key(rows - 1)).unwrap();
        assert_eq!(until, (2 * (ROW + 2), None));
    }

    #[test]
    fn a_row_takes_more_than_its_contents() {
        assert_eq!(of_row(2), ROW + 2);
    }

    #[test]
    fn it_is_above_a_limit_only_once_it_is_measured() {
        let footprint = Footprint::default();
        footprint.add(10);
        assert!(!footprint.is_above(9));
        footprint.is_measured.store(true, Relaxed);
        assert!(footprint.is_above(9));
        assert!(!footprint.is_above(10));
        footprint.add(-11);
        assert_eq!(footprint.bytes(), 0);
    }
}
