//! Forgetting: what is kept of a decided branch goes when its coordinator has said,
//! long enough ago, that the transaction ended, or sooner when the journal is too
//! large.
//!
//! Invariants:
//! - No branch goes whose coordinator has not said that its transaction ended, on every
//!   link that it has, and none that was decided after that was said.
//! - Ages are of service time: the wall clock has no part in it.
//! - Too large a journal makes what is older than a floor go, and nothing else.
//! - With a removal it is written of which transactions something may be missing: a
//!   branch of theirs that is not known is not prepared any more.
//! - A removal is small and rides along with other work; it looks at what may go only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use common::{BranchId, CoordinatorId, TransactionId};
use common_store::{ReadError, Suspect, Urgency, Work, checksum, in_savepoint};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{sync::oneshot, time::Instant};

use crate::{ResourceManager, ended::Ended, engine::Engine, footprint};

/// However large the journal is, what ended is kept for so long: above every time-out
/// after which a message may still come.
pub(crate) const FLOOR: Duration = Duration::from_secs(600);

const TICK: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// What was said is kept at this many times within a retention.
const MARKS: i64 = 16;
const BATCH: usize = 500;

pub(crate) const SCHEMA: &str = "
    -- What a coordinator said at a time about the end of its transactions. Times are
    -- service time, in milliseconds.
    CREATE TABLE IF NOT EXISTS ended (
        coordinator_id BLOB NOT NULL,
        told_at INTEGER NOT NULL,
        ended_before BLOB NOT NULL,
        ended_except BLOB NOT NULL,
        -- Of all the others.
        checksum INTEGER NOT NULL,
        PRIMARY KEY (coordinator_id, told_at)
    ) WITHOUT ROWID;
    -- The ended transactions whose branches may have been removed.
    CREATE TABLE IF NOT EXISTS forgotten (
        coordinator_id BLOB PRIMARY KEY NOT NULL,
        ended_before BLOB NOT NULL,
        ended_except BLOB NOT NULL,
        -- Of all the others.
        checksum INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// Decided branches that may go: of one coordinator, in the order of their keys.
const PAGE: &str = "
    SELECT transaction_id, branch,
           coalesce(length(payload), 0) + length(output) + coalesce(length(refusal_message), 0)
    FROM decided
    WHERE (transaction_id, branch) > (?1, ?2) AND transaction_id < ?3
      AND coordinator_id = ?4 AND decided_at <= ?5
      AND NOT EXISTS (
          SELECT 1 FROM forced
          WHERE forced.transaction_id = decided.transaction_id
            AND forced.branch = decided.branch
            AND forced.coordinator_id = decided.coordinator_id)
    ORDER BY transaction_id, branch LIMIT ?6";

/// Of each coordinator, the transactions of which something may be missing here.
#[derive(Default)]
pub(crate) struct Forgotten(Mutex<BTreeMap<CoordinatorId, Arc<Ended>>>);

impl Forgotten {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT coordinator_id, ended_before, ended_except, checksum FROM forgotten";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let row = Suspect::new("forgotten", row, 1);
            let coordinator = CoordinatorId::from_bytes(row.get(0)?);
            let before = TransactionId::from_bytes(row.get(1)?);
            let except: Vec<u8> = row.get(2)?;
            if row.get::<u32>(3)? != of_forgotten(&coordinator, &before, &except) {
                return Err(row.damaged(3, "it is not of what else the row holds"));
            }
            Ok((coordinator, Arc::new(Ended::from_bytes(before, &except))))
        })?;
        rows.collect::<Result<_, _>>().map(|all| Self(Mutex::new(all)))
    }

    pub(crate) fn of(&self, coordinator: &CoordinatorId) -> Option<Arc<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(coordinator).cloned()
    }

    /// Writes that what `ended` has may be missing, too.
    fn add(
        &self,
        connection: &Connection,
        coordinator: &CoordinatorId,
        ended: &Ended,
    ) -> rusqlite::Result<()> {
        let before = self.of(coordinator);
        let all = before.as_ref().map_or_else(|| ended.clone(), |before| before.or(ended));
        if before.is_some_and(|before| *before == all) {
            return Ok(());
        }
        let (id, except) = (coordinator.as_bytes(), all.except_bytes());
        connection
            .prepare_cached("INSERT OR REPLACE INTO forgotten VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                id,
                all.before().as_bytes(),
                except,
                of_forgotten(coordinator, &all.before(), &except)
            ])?;
        // If the batch fails, more is refused than was removed: all of it has ended.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(*coordinator, Arc::new(all));
        Ok(())
    }
}

fn of_forgotten(coordinator: &CoordinatorId, before: &TransactionId, except: &[u8]) -> u32 {
    checksum(&[b"forgotten", coordinator.as_bytes(), before.as_bytes(), except])
}

/// Until the shutdown.
pub(crate) async fn run<R: ResourceManager>(engine: Arc<Engine<R>>) {
    let pause = (engine.limits.retention / MARKS as u32).clamp(TICK, LONGEST);
    let mut next_sweep = Instant::now() + pause;
    let mut said = BTreeMap::new();
    tokio::spawn(footprint::measure(Arc::clone(&engine)));
    loop {
        tokio::select! {
            biased;
            () = engine.environment.shutdown.begun() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let retention = millis(engine.limits.retention);
        for (coordinator, ended, at) in engine.links.ended() {
            if said.get(&coordinator) != Some(&ended) {
                said.insert(coordinator, ended.clone());
                keep(&engine, coordinator, ended, at, retention);
            }
        }
        if Instant::now() < next_sweep {
            continue;
        }
        next_sweep = Instant::now() + pause;
        engine.store.keep_service_time();
        if let Err(error) = sweep(&engine, retention).await {
            tracing::warn!(%error, "what has ended could not be removed");
        }
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}

fn keep<R: ResourceManager>(
    engine: &Engine<R>,
    coordinator: CoordinatorId,
    ended: Ended,
    told_at: i64,
    retention: i64,
) {
    let work: Work = Box::new(move |transaction| {
        let kept = in_savepoint(transaction, |connection| {
            keep_mark(connection, &coordinator, &ended, told_at, retention)
        });
        if let Err(error) = kept {
            tracing::warn!(%coordinator, %error, "what has ended could not be noted");
        }
        Box::new(drop)
    });
    engine.store.submit(Urgency::Unforced, 1, work);
}

/// Notes what was said, sparsely: the last mark moves on until it is a sixteenth
/// of the retention away from the one before.
fn keep_mark(
    connection: &Connection,
    coordinator: &CoordinatorId,
    ended: &Ended,
    now: i64,
    retention: i64,
) -> rusqlite::Result<()> {
    let id = coordinator.as_bytes();
    let (before, except) = (ended.before(), ended.except_bytes());
    let marks = connection
        .prepare_cached(
            "SELECT told_at, ended_before, ended_except FROM ended
             WHERE coordinator_id = ?1 ORDER BY told_at DESC LIMIT 2",
        )?
        .query_map([id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    if let Some((last, last_before, last_except)) = marks.first() {
        if last_before == before.as_bytes() && *last_except == except {
            return Ok(());
        }
        if marks.get(1).is_some_and(|(previous, ..)| last - previous < retention / MARKS) {
            connection
                .prepare_cached("DELETE FROM ended WHERE coordinator_id = ?1 AND told_at = ?2")?
                .execute(params![id, last])?;
        }
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO ended VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            id,
            now,
            before.as_bytes(),
            except,
            of_mark(coordinator, now, &before, &except)
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM ended WHERE coordinator_id = ?1 AND told_at <
                (SELECT max(told_at) FROM ended WHERE coordinator_id = ?1 AND told_at <= ?2)",
        )?
        .execute(params![id, now.saturating_sub(retention)])
        .map(drop)
}

/// What a coordinator had said by `told_by`, and when.
fn mark(
    connection: &Connection,
    coordinator: &CoordinatorId,
    told_by: i64,
) -> rusqlite::Result<Option<(Ended, i64)>> {
    connection
        .prepare_cached(
            "SELECT coordinator_id, told_at, ended_before, ended_except, checksum FROM ended
             WHERE coordinator_id = ?1 AND told_at <= ?2 ORDER BY told_at DESC LIMIT 1",
        )?
        .query_row(params![coordinator.as_bytes(), told_by], |row| {
            let row = Suspect::new("ended", row, 2);
            let (told_at, except): (i64, Vec<u8>) = (row.get(1)?, row.get(3)?);
            let before = TransactionId::from_bytes(row.get(2)?);
            if row.get::<u32>(4)? != of_mark(coordinator, told_at, &before, &except) {
                return Err(row.damaged(4, "it is not of what else the row holds"));
            }
            Ok((Ended::from_bytes(before, &except), told_at))
        })
        .optional()
}

fn of_mark(
    coordinator: &CoordinatorId,
    told_at: i64,
    before: &TransactionId,
    except: &[u8],
) -> u32 {
    checksum(&[coordinator.as_bytes(), &told_at.to_le_bytes(), before.as_bytes(), except])
}

fn coordinators(connection: &Connection) -> rusqlite::Result<Vec<CoordinatorId>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT coordinator_id FROM ended")?;
    let rows = statement.query_map([], |row| row.get(0).map(CoordinatorId::from_bytes))?;
    rows.collect()
}

async fn sweep<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    retention: i64,
) -> Result<(), ReadError> {
    let now = engine.service_time();
    let coordinators = engine.store.read(coordinators).await?;
    for coordinator in &coordinators {
        remove(engine, *coordinator, now.saturating_sub(retention), false).await?;
    }
    let floor = millis(engine.limits.retention_floor.max(engine.limits.lock_wait));
    if floor >= retention || !engine.footprint.is_above(engine.limits.retention_bytes) {
        return Ok(());
    }
    let before = engine.footprint.bytes();
    let mut removed = 0;
    for coordinator in &coordinators {
        removed += remove(engine, *coordinator, now.saturating_sub(floor), true).await?;
    }
    engine.metrics.forgotten_early.inc_by(removed);
    tracing::warn!(
        removed,
        bytes = before,
        bytes_left = engine.footprint.bytes(),
        limit = engine.limits.retention_bytes,
        retention = ?engine.limits.retention,
        "the journal was above --retention-bytes: ended branches were removed before the end of \
         --retention; raise the one or lower the other"
    );
    Ok(())
}

/// Removes what was decided, and said to have ended, by `until`; returns how much.
async fn remove<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    coordinator: CoordinatorId,
    until: i64,
    while_too_large: bool,
) -> Result<u64, ReadError> {
    let told = engine.store.read(move |connection| mark(connection, &coordinator, until)).await?;
    let Some((ended, told_at)) = told else { return Ok(0) };
    let (ended, until) = (Arc::new(ended), until.min(told_at));
    let (mut after, mut removed) = (None, 0);
    loop {
        let before = ended.before();
        let read = move |connection: &Connection| {
            decided_page(connection, &coordinator, before, until, after.as_ref())
        };
        let mut page = engine.store.read(read).await?;
        let Some((last, _)) = page.last() else { return Ok(removed) };
        after = Some(*last);
        page.retain(|(branch, _)| ended.has(&branch.transaction));
        if !page.is_empty() {
            removed += remove_page(engine, coordinator, Arc::clone(&ended), page).await?;
        }
        if engine.environment.shutdown.is_begun()
            || while_too_large && !engine.footprint.is_above(engine.limits.retention_bytes)
        {
            return Ok(removed);
        }
    }
}

async fn remove_page<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    coordinator: CoordinatorId,
    ended: Arc<Ended>,
    page: Vec<(BranchId, i64)>,
) -> Result<u64, ReadError> {
    let (removed, done) = oneshot::channel();
    let remover = Arc::clone(engine);
    let work: Work = Box::new(move |transaction| {
        let result = in_savepoint(transaction, |connection| {
            remover.forgotten.add(connection, &coordinator, &ended)?;
            delete(connection, &page)
        });
        if let Err(error) = &result {
            tracing::warn!(%error, "what has ended could not be removed");
        }
        Box::new(move |durable| {
            let _ = removed.send(durable.ok().and(result.ok()).unwrap_or_default());
        })
    });
    engine.store.submit(Urgency::Unforced, BATCH, work);
    let Ok((count, bytes)) = done.await else { return Err(ReadError::Closed) };
    engine.metrics.forgotten.inc_by(count);
    engine.footprint.add(-bytes);
    Ok(count)
}

/// Branches that may go, each with the bytes of its contents.
fn decided_page(
    connection: &Connection,
    coordinator: &CoordinatorId,
    before: TransactionId,
    until: i64,
    after: Option<&BranchId>,
) -> rusqlite::Result<Vec<(BranchId, i64)>> {
    let mut statement = connection.prepare_cached(PAGE)?;
    let (transaction, number) = match after {
        Some(after) => (&after.transaction.as_bytes()[..], i64::from(after.number)),
        None => (&[][..], -1),
    };
    let limit = BATCH.cast_signed();
    let (before, id) = (before.as_bytes(), coordinator.as_bytes());
    let rows =
        statement.query_map(params![transaction, number, before, id, until, limit], |row| {
            let branch = BranchId {
                coordinator: *coordinator,
                transaction: TransactionId::from_bytes(row.get(0)?),
                number: row.get(1)?,
            };
            Ok((branch, row.get(2)?))
        })?;
    rows.collect()
}

/// Returns how many there were, and their bytes.
fn delete(connection: &Connection, branches: &[(BranchId, i64)]) -> rusqlite::Result<(u64, i64)> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM decided WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
    )?;
    let (mut removed, mut bytes) = (0, 0);
    for (branch, contents) in branches {
        let rows = statement.execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes()
        ])?;
        removed += rows as u64;
        bytes += rows as i64 * footprint::of_row(*contents);
    }
    Ok((removed, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_is_found_by_searches() {
        let connection = Connection::open_in_memory().unwrap();
        let schema = [crate::journal::SCHEMA, crate::forced::SCHEMA, SCHEMA].concat();
        connection.execute_batch(&schema).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {PAGE}")).unwrap();
        let blob = &[0_u8; 16];
        let steps = plan
            .query_map(params![blob, 0, blob, blob, 0, 1], |row| row.get::<_, String>(3))
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let searches = |table: &str, by: &str| {
            let search = format!("SEARCH {table} USING PRIMARY KEY ({by})");
            steps.contains(&search)
        };
        assert!(
            searches("decided", "(transaction_id,branch)>(?,?) AND transaction_id<?"),
            "{steps:?}"
        );
        assert!(
            searches("forced", "transaction_id=? AND branch=? AND coordinator_id=?"),
            "{steps:?}"
        );
        let whole = |step: &String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
        assert!(!steps.iter().any(whole), "{steps:?}");
    }
}
