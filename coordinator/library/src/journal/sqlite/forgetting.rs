//! Which finished transactions go, and what is remembered of those that went.
//!
//! Invariants:
//! - Ages are service time, which no wall clock moves: a row has the time at which it
//!   was written, and marks say which ids had been given out at a time.
//! - Below the watermark something was removed; it rises in the transaction that
//!   removes.
//! - A pass visits no row twice: rows up to `swept` that could not go yet are found
//!   by the index of those that ended late, or of those that are kept. A transaction
//!   that ends below `swept` gets there at once.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dtc_core::Intervention;
use dtc_protocol::TransactionId;
use dtc_store::{CheckedRow, Damaged, checksum};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Forgotten, JournalError, Keep, Retention, list, sealed};
use crate::journal::body;

/// How many marks there are within a retention, or within the floor.
const MARKS: u32 = 8;
/// Finished transactions that are kept for participants which were never notified.
/// Beyond, the oldest of them go when their time has come.
const MAX_UNNOTIFIED: u64 = 100_000;

pub(super) const OPERATOR: i64 = 1;
pub(super) const UNNOTIFIED: i64 = 2;

/// The checksum is that of a row that says: nothing.
pub(super) const SCHEMA: &str = "
    -- Up to which id each row was looked at, and up to which one something was removed.
    CREATE TABLE IF NOT EXISTS forgotten (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        swept BLOB NOT NULL, watermark BLOB NOT NULL,
        -- Of the others.
        checksum INTEGER NOT NULL
    );
    INSERT OR IGNORE INTO forgotten
        SELECT 1, zeroblob(16), zeroblob(16), 3760131562 FROM meta WHERE epoch = 0;
    -- All ids up to this one were given out by that service time (in microseconds).
    CREATE TABLE IF NOT EXISTS marks (
        at INTEGER PRIMARY KEY, newest BLOB NOT NULL, checksum INTEGER NOT NULL
    );
    -- Neither has a part in what is committed and acknowledged in time.
    CREATE INDEX IF NOT EXISTS finished_late ON finished (ended) WHERE late = 1;
    CREATE INDEX IF NOT EXISTS finished_kept ON finished (kept, id) WHERE kept <> 0;
";

const READ: &str = "SELECT only, swept, watermark, checksum FROM forgotten WHERE only = 1";
const WRITE: &str = "UPDATE forgotten SET swept = ?1, watermark = ?2, checksum = ?3 WHERE only = 1";
const MARK_BEFORE: &str =
    "SELECT at, newest, checksum FROM marks WHERE at <= ?1 ORDER BY at DESC LIMIT 1";
const NEWEST: &str = "SELECT id FROM finished WHERE id <= ?1 ORDER BY id DESC LIMIT 1";
const ADD_MARK: &str = "INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3)";
const LATE: &str = "SELECT id, ended, kept, request_key FROM finished
     WHERE late = 1 AND ended < ?1 ORDER BY ended LIMIT ?2";
const SWEEP: &str = "SELECT id, ended, kept, request_key FROM finished
     WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3";
const NEVER_NOTIFIED: &str = "SELECT id, ended, kept, request_key FROM finished
     WHERE kept = 2 AND kept <> 0 ORDER BY id LIMIT ?1";
const POSTPONE: &str = "UPDATE finished SET late = 1 WHERE id = ?1";
const REMOVE: &str = "DELETE FROM finished WHERE id = ?1";
const REMOVE_KEY: &str = "DELETE FROM request_keys WHERE request_key = ?1 AND id = ?2";
const REMOVE_MARKS: &str = "DELETE FROM marks WHERE at < ?1";
/// Each statement of a pass.
#[cfg(test)]
const ALL: [&str; 12] = [
    READ,
    WRITE,
    MARK_BEFORE,
    NEWEST,
    ADD_MARK,
    LATE,
    SWEEP,
    NEVER_NOTIFIED,
    POSTPONE,
    REMOVE,
    REMOVE_KEY,
    REMOVE_MARKS,
];

/// The row of table `forgotten`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) swept: TransactionId,
    pub(super) watermark: TransactionId,
}

/// What the writer knows without reading.
#[derive(Debug)]
pub(super) struct Known {
    swept: Mutex<TransactionId>,
    operator: AtomicU64,
    unnotified: AtomicU64,
}

/// A finished row as far as it matters here.
struct Candidate {
    id: TransactionId,
    ended: i64,
    kept: i64,
    key: Option<String>,
}

impl Memory {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached(READ)?.query_row([], |row| {
            let row = CheckedRow::new("forgotten", row, 1);
            let (swept, watermark) = (id(&row, 1)?, id(&row, 2)?);
            let memory = Self { swept, watermark };
            match row.get::<u32>(3)? == memory.checksum() {
                true => Ok(memory),
                false => Err(row
                    .damaged(3, "checksum mismatch: the row's contents do not match its checksum")),
            }
        })
    }

    fn checksum(&self) -> u32 {
        checksum(&[self.swept.as_bytes(), self.watermark.as_bytes()])
    }

    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction
            .prepare_cached(WRITE)?
            .execute(params![self.swept.as_bytes(), self.watermark.as_bytes(), self.checksum()])
            .map(drop)
    }
}

impl Known {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT ifnull(sum(kept & 1), 0), ifnull(sum(kept >> 1), 0) FROM finished
                   WHERE kept <> 0";
        let (operator, unnotified) = connection.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        Ok(Self {
            swept: Mutex::new(Memory::read(connection)?.swept),
            operator: operator.into(),
            unnotified: unnotified.into(),
        })
    }

    /// How many are kept for operators, and for participants.
    pub(super) fn kept(&self) -> (u64, u64) {
        (self.operator.load(Relaxed), self.unnotified.load(Relaxed))
    }

    /// Whether a transaction that ends now has to be found by its end.
    pub(super) fn is_late(&self, id: TransactionId, kept: i64) -> bool {
        kept == 0 && id <= *self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keeps(&self, keep: Keep) {
        self.operator.fetch_add(keep.operator.into(), Relaxed);
        self.unnotified.fetch_add(keep.unnotified.into(), Relaxed);
    }

    fn swept(&self, swept: TransactionId) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = swept;
    }

    fn releases(&self, bit: i64) {
        let count = if bit == OPERATOR { &self.operator } else { &self.unnotified };
        let _ = count.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(1)));
    }
}

/// Of `Keep`, as it is written.
pub(super) fn bits(keep: Keep) -> i64 {
    i64::from(keep.operator) * OPERATOR + i64::from(keep.unnotified) * UNNOTIFIED
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn id(row: &CheckedRow<'_>, index: usize) -> rusqlite::Result<TransactionId> {
    row.get(index).map(TransactionId::from_bytes)
}

/// What a pass has to go by.
#[derive(Debug, Clone, Copy)]
struct Pass {
    now: i64,
    aged: i64,
    cutoff: i64,
    too_large: bool,
    mark_every: i64,
}

impl Pass {
    fn new(connection: &Connection, now: Duration, retention: Retention) -> rusqlite::Result<Self> {
        let too_large = used(connection)? > retention.max_bytes;
        let ago = |age: Duration| micros(now).saturating_sub(micros(age));
        let (aged, floor) = (ago(retention.age), ago(retention.floor));
        let mark_every = micros(retention.age.min(retention.floor) / MARKS);
        let cutoff = if too_large { aged.max(floor) } else { aged };
        Ok(Self { now: micros(now), aged, cutoff, too_large, mark_every })
    }
}

/// Bytes of the file's pages that hold something. All its tables are the journal's.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = |name: &str| -> rusqlite::Result<u64> {
        let count: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        Ok(count.cast_unsigned())
    };
    Ok((pages("page_count")? - pages("freelist_count")?) * pages("page_size")?)
}

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    let row = CheckedRow::new("finished", row, 1);
    Ok(Candidate { id: id(&row, 0)?, ended: row.get(1)?, kept: row.get(2)?, key: row.get(3)? })
}

fn candidates(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Candidate>> {
    connection.prepare_cached(sql)?.query_map(params, candidate)?.collect()
}

fn mark(row: &Row<'_>) -> rusqlite::Result<(i64, TransactionId)> {
    let row = CheckedRow::new("marks", row, 1);
    let (at, newest) = (row.get(0)?, id(&row, 1)?);
    match row.get::<u32>(2)? == of_mark(at, newest) {
        true => Ok((at, newest)),
        false => {
            Err(row.damaged(2, "checksum mismatch: the row's contents do not match its checksum"))
        }
    }
}

fn of_mark(at: i64, newest: TransactionId) -> u32 {
    checksum(&[&at.to_le_bytes(), newest.as_bytes()])
}

/// The mark that is due, if ids were given out since the last one.
fn due_mark(connection: &Connection, pass: &Pass) -> rusqlite::Result<Option<TransactionId>> {
    let read = |row: &Row<'_>| id(&CheckedRow::new("finished", row, 1), 0);
    let newest = connection.prepare_cached(NEWEST)?.query_row([[0xff; 16]], read).optional()?;
    let Some(newest) = newest else { return Ok(None) };
    let last = connection.prepare_cached(MARK_BEFORE)?.query_row([i64::MAX], mark).optional()?;
    let is_due = last
        .is_none_or(|(at, known)| newest > known && pass.now.saturating_sub(at) >= pass.mark_every);
    Ok(is_due.then_some(newest))
}

/// Up to which id all were begun by the cutoff.
fn bound(connection: &Connection, cutoff: i64) -> rusqlite::Result<Option<TransactionId>> {
    let mark = connection.prepare_cached(MARK_BEFORE)?.query_row([cutoff], mark).optional()?;
    Ok(mark.map(|(_, newest)| newest))
}

/// What is to be done, if anything; for a reader.
pub(super) fn has_work(
    connection: &Connection,
    known: (u64, u64),
    now: Duration,
    retention: Retention,
) -> rusqlite::Result<(bool, bool)> {
    let pass = Pass::new(connection, now, retention)?;
    let work = known.1 > MAX_UNNOTIFIED
        || due_mark(connection, &pass)?.is_some()
        || !candidates(connection, LATE, params![pass.cutoff, 1])?.is_empty()
        || match bound(connection, pass.cutoff)? {
            Some(bound) => {
                let swept = Memory::read(connection)?.swept;
                let range = params![swept.as_bytes(), bound.as_bytes(), 1];
                !candidates(connection, SWEEP, range)?.is_empty()
            }
            None => false,
        };
    Ok((work, pass.too_large))
}

/// A step of a pass, within the writer's transaction.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    known: &Known,
    now: Duration,
    retention: Retention,
    limit: usize,
) -> rusqlite::Result<Forgotten> {
    let pass = Pass::new(transaction, now, retention)?;
    if let Some(newest) = due_mark(transaction, &pass)? {
        transaction.prepare_cached(ADD_MARK)?.execute(params![
            pass.now,
            newest.as_bytes(),
            of_mark(pass.now, newest)
        ])?;
        let before = transaction.prepare_cached(MARK_BEFORE)?.query_row([pass.aged], mark);
        if let Some((at, _)) = before.optional()? {
            transaction.prepare_cached(REMOVE_MARKS)?.execute([at])?;
        }
    }
    let mut memory = Memory::read(transaction)?;
    let mut gone = candidates(transaction, LATE, params![pass.cutoff, limit as i64])?;
    let mut more = gone.len() == limit;
    if let Some(bound) = bound(transaction, pass.cutoff)?.filter(|bound| *bound > memory.swept) {
        let left = limit - gone.len();
        let range = params![memory.swept.as_bytes(), bound.as_bytes(), left as i64];
        let page = candidates(transaction, SWEEP, range)?;
        let is_last = page.len() < left;
        memory.swept = if is_last { bound } else { page.last().map_or(memory.swept, |it| it.id) };
        more |= !is_last;
        for row in page.into_iter().filter(|row| row.kept == 0) {
            if row.ended < pass.cutoff {
                gone.push(row);
            } else {
                transaction.prepare_cached(POSTPONE)?.execute([row.id.as_bytes()])?;
            }
        }
    }
    let before = gone.len();
    let excess = known.unnotified.load(Relaxed).saturating_sub(MAX_UNNOTIFIED).min(limit as u64);
    if excess > 0 {
        let oldest = candidates(transaction, NEVER_NOTIFIED, [excess.cast_signed()])?;
        gone.extend(oldest.into_iter().filter(|row| row.ended < pass.aged));
    }
    for row in &gone {
        transaction.prepare_cached(REMOVE)?.execute([row.id.as_bytes()])?;
        if let Some(key) = &row.key {
            transaction.prepare_cached(REMOVE_KEY)?.execute(params![key, row.id.as_bytes()])?;
        }
        if row.kept == UNNOTIFIED {
            known.releases(UNNOTIFIED);
        }
        memory.watermark = memory.watermark.max(row.id);
    }
    memory.write(transaction)?;
    known.swept(memory.swept);
    let too_large = used(transaction)? > retention.max_bytes;
    let (count, unnotified) = (gone.len(), gone.len() - before);
    let early = gone.iter().filter(|row| row.ended >= pass.aged).count();
    Ok(Forgotten { count, early, unnotified, more, too_large })
}

fn kept(
    transaction: &Transaction<'_>,
    id: TransactionId,
    bit: i64,
) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let sql = "SELECT kept FROM finished WHERE id = ?1";
    let kept: Option<i64> =
        transaction.prepare_cached(sql)?.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
    let Some(kept) = kept.filter(|kept| kept & bit != 0) else { return Ok(None) };
    let sql = "SELECT id, NULL, NULL, end FROM finished WHERE id = ?1";
    let stored = list(transaction, "finished", sql, [id.as_bytes()])?.pop();
    Ok(stored.and_then(|stored| stored.end).map(|end| (kept, end)))
}

fn damaged(id: TransactionId, why: &JournalError) -> rusqlite::Error {
    Damaged::new("finished", &id.to_string(), "end", why.to_string()).into()
}

fn keep_less(
    transaction: &Transaction<'_>,
    known: &Known,
    (id, kept): (TransactionId, i64),
    end: &[u8],
    ended: Option<Duration>,
) -> rusqlite::Result<()> {
    let end = sealed(id, "end", end);
    let sql = "UPDATE finished SET kept = ?2, late = ?3, end = ?4, ended = ifnull(?5, ended)
               WHERE id = ?1";
    let late = known.is_late(id, kept);
    let row = params![id.as_bytes(), kept, late, end, ended.map(micros)];
    transaction.prepare_cached(sql)?.execute(row).map(drop)
}

/// An operator has looked. True if it was kept for one.
pub(super) fn release(
    transaction: &Transaction<'_>,
    known: &Known,
    id: TransactionId,
    done: &Intervention,
) -> rusqlite::Result<bool> {
    let Some((kept, end)) = kept(transaction, id, OPERATOR)? else { return Ok(false) };
    let end = body::with_intervention(&end, done).map_err(|why| damaged(id, &why))?;
    keep_less(transaction, known, (id, kept & !OPERATOR), &end, None)?;
    known.releases(OPERATOR);
    Ok(true)
}

/// A participant has been given the answer. It may be lost: with the last of them,
/// the transaction's retention begins anew.
pub(super) fn notified(
    transaction: &Transaction<'_>,
    known: &Known,
    (id, branch): (TransactionId, u32),
    now: Duration,
) -> rusqlite::Result<()> {
    let Some((kept, end)) = kept(transaction, id, UNNOTIFIED)? else { return Ok(()) };
    let (end, all) = body::with_notified(&end, branch).map_err(|why| damaged(id, &why))?;
    if !all {
        return keep_less(transaction, known, (id, kept), &end, None);
    }
    keep_less(transaction, known, (id, kept & !UNNOTIFIED), &end, Some(now))?;
    known.releases(UNNOTIFIED);
    Ok(())
}

#[cfg(test)]
mod tests;
