//! Forgetting: what is kept of a decided branch goes when its coordinator has
//! told, long enough ago, that the transaction ended, or sooner when the file
//! is too large.
//!
//! Invariants:
//! - No branch goes whose coordinator has not told the end of its transaction,
//!   and none that was decided after that was told: a transaction may get its
//!   first branch here long after it was begun.
//! - A removal is small and rides along with other work.

use std::{collections::HashSet, sync::Arc, time::Duration};

use common::{BranchId, CoordinatorId, TransactionId};
use common_store::{ReadError, Suspect, Urgency, Work, checksum, in_savepoint};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{sync::oneshot, time::Instant};

use crate::{ResourceManager, engine::Engine, wire::Ended};

const TICK: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// What was told is kept at this many times within a retention.
const MARKS: i64 = 16;
const BATCH: usize = 500;

/// Until the shutdown.
pub(crate) async fn run<R: ResourceManager>(engine: Arc<Engine<R>>) {
    let pause = (engine.limits.retention / MARKS as u32).clamp(TICK, LONGEST);
    let mut next_sweep = Instant::now() + pause;
    loop {
        tokio::select! {
            biased;
            () = engine.environment.shutdown.begun() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let retention = engine.limits.retention.as_millis().try_into().unwrap_or(i64::MAX);
        for (coordinator, (ended, told_at)) in engine.take_ended() {
            keep(&engine, coordinator, ended, told_at, retention);
        }
        if Instant::now() < next_sweep {
            continue;
        }
        next_sweep = Instant::now() + pause;
        if let Err(error) = sweep(&engine, retention).await {
            tracing::warn!(%error, "what has ended could not be removed");
        }
    }
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

/// Notes what was told, sparsely: the last mark moves on until it is a sixteenth
/// of the retention away from the one before.
fn keep_mark(
    connection: &Connection,
    coordinator: &CoordinatorId,
    ended: &Ended,
    now: i64,
    retention: i64,
) -> rusqlite::Result<()> {
    let id = coordinator.as_bytes();
    let except: Vec<u8> = ended.except.iter().flat_map(TransactionId::as_bytes).copied().collect();
    let marks = connection
        .prepare_cached(
            "SELECT told_at, ended_before, ended_except FROM ended
             WHERE coordinator_id = ?1 ORDER BY told_at DESC LIMIT 2",
        )?
        .query_map([id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    if let Some((last, before, last_except)) = marks.first() {
        if before == ended.before.as_bytes() && *last_except == except {
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
            ended.before.as_bytes(),
            except,
            of_mark(coordinator, now, &ended.before, &except)
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM ended WHERE coordinator_id = ?1 AND told_at <
                (SELECT max(told_at) FROM ended WHERE coordinator_id = ?1 AND told_at <= ?2)",
        )?
        .execute(params![id, now.saturating_sub(retention)])
        .map(drop)
}

/// What a coordinator had told, and when.
struct Mark {
    before: TransactionId,
    except: HashSet<TransactionId>,
    told_at: i64,
}

/// What a coordinator had told by `told_by`.
fn mark(
    connection: &Connection,
    coordinator: &CoordinatorId,
    told_by: i64,
) -> rusqlite::Result<Option<Mark>> {
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
            let except = except.chunks_exact(16).filter_map(TransactionId::from_slice).collect();
            Ok(Mark { before, except, told_at })
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

async fn sweep<R: ResourceManager>(engine: &Engine<R>, retention: i64) -> Result<(), ReadError> {
    let aged = engine.now().saturating_sub(retention);
    for coordinator in engine.store.read(coordinators).await? {
        remove(engine, coordinator, aged, false).await?;
        if is_too_large(engine).await? {
            remove(engine, coordinator, i64::MAX, true).await?;
        }
    }
    Ok(())
}

/// Removes what was decided, and told to have ended, by `until`.
async fn remove<R: ResourceManager>(
    engine: &Engine<R>,
    coordinator: CoordinatorId,
    until: i64,
    while_too_large: bool,
) -> Result<(), ReadError> {
    let told = engine.store.read(move |connection| mark(connection, &coordinator, until)).await?;
    let Some(Mark { before, except, told_at }) = told else { return Ok(()) };
    let until = until.min(told_at);
    let mut after = None;
    loop {
        let read = move |connection: &Connection| {
            decided_page(connection, &coordinator, before, until, after.as_ref())
        };
        let mut page = engine.store.read(read).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        page.retain(|branch| !except.contains(&branch.transaction));
        let (removed, done) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let result = in_savepoint(transaction, |connection| delete(connection, &page));
            if let Err(error) = &result {
                tracing::warn!(%error, "what has ended could not be removed");
            }
            Box::new(move |durable| {
                let _ = removed.send(durable.ok().and(result.ok()).unwrap_or(0));
            })
        });
        engine.store.submit(Urgency::Unforced, BATCH, work);
        let Ok(removed) = done.await else { return Err(ReadError::Closed) };
        engine.metrics.forgotten.inc_by(removed);
        if engine.environment.shutdown.is_begun()
            || while_too_large && !is_too_large(engine).await?
        {
            return Ok(());
        }
    }
}

fn decided_page(
    connection: &Connection,
    coordinator: &CoordinatorId,
    before: TransactionId,
    until: i64,
    after: Option<&BranchId>,
) -> rusqlite::Result<Vec<BranchId>> {
    let mut statement = connection.prepare_cached(
        "SELECT transaction_id, branch FROM decided
         WHERE (transaction_id, branch) > (?1, ?2) AND transaction_id < ?3
           AND coordinator_id = ?4 AND decided_at <= ?5
           AND (transaction_id, branch, coordinator_id) NOT IN
               (SELECT transaction_id, branch, coordinator_id FROM forced)
         ORDER BY transaction_id, branch LIMIT ?6",
    )?;
    let (transaction, number) = match after {
        Some(after) => (&after.transaction.as_bytes()[..], i64::from(after.number)),
        None => (&[][..], -1),
    };
    let limit = BATCH.cast_signed();
    let (before, id) = (before.as_bytes(), coordinator.as_bytes());
    let rows =
        statement.query_map(params![transaction, number, before, id, until, limit], |row| {
            Ok(BranchId {
                coordinator: *coordinator,
                transaction: TransactionId::from_bytes(row.get(0)?),
                number: row.get(1)?,
            })
        })?;
    rows.collect()
}

fn delete(connection: &Connection, branches: &[BranchId]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM decided WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
    )?;
    let mut removed = 0;
    for branch in branches {
        removed += statement.execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes()
        ])? as u64;
    }
    Ok(removed)
}

async fn is_too_large<R: ResourceManager>(engine: &Engine<R>) -> Result<bool, ReadError> {
    let used = engine.store.read(|connection| {
        let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let pages = read("PRAGMA page_count")? - read("PRAGMA freelist_count")?;
        Ok(pages * read("PRAGMA page_size")?)
    });
    Ok(used.await?.cast_unsigned() > engine.limits.retention_bytes)
}
