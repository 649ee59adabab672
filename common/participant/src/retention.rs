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

use dtc_protocol::{BranchId, CoordinatorId, TransactionId};
use dtc_store::{CheckedRow, ReadError, Urgency, Work, checksum, in_savepoint};
use rusqlite::{Connection, params};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    ResourceManager,
    ended::Ended,
    engine::Engine,
    footprint,
    marks::{self, Ages},
};

/// However large the journal is, what ended is kept for so long: above every time-out
/// after which a message may still come.
pub(crate) const FLOOR: Duration = Duration::from_secs(600);

const TICK: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
const BATCH: usize = 500;

pub(crate) const SCHEMA: &str = "
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
          SELECT 1 FROM resolutions
          WHERE resolutions.transaction_id = decided.transaction_id
            AND resolutions.branch = decided.branch
            AND resolutions.coordinator_id = decided.coordinator_id)
    ORDER BY transaction_id, branch LIMIT ?6";

/// Of each coordinator, the transactions of which something may be missing here.
#[derive(Default)]
pub(crate) struct Forgotten(Mutex<BTreeMap<CoordinatorId, Arc<Ended>>>);

impl Forgotten {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT coordinator_id, ended_before, ended_except, checksum FROM forgotten";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let row = CheckedRow::new("forgotten", row, 1);
            let coordinator = CoordinatorId::from_bytes(row.get(0)?);
            let before = TransactionId::from_bytes(row.get(1)?);
            let except: Vec<u8> = row.get(2)?;
            if row.get::<u32>(3)? != of_forgotten(&coordinator, &before, &except) {
                return Err(row.damaged(
                    3,
                    "checksum mismatch: the row's contents do not match its checksum",
                ));
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
    let pause = Duration::from_millis(ages(&engine).step().cast_unsigned()).clamp(TICK, LONGEST);
    let mut next_sweep = Instant::now() + pause;
    let mut said = BTreeMap::new();
    tokio::spawn(footprint::measure(Arc::clone(&engine)));
    loop {
        tokio::select! {
            biased;
            () = engine.environment.shutdown.begun() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        note_ended(&engine, &mut said);
        if Instant::now() < next_sweep {
            continue;
        }
        next_sweep = Instant::now() + pause;
        engine.store.keep_service_time();
        if let Err(error) = sweep(&engine).await {
            tracing::warn!(%error, "ended branches could not be removed");
        }
    }
}

fn ages<R: ResourceManager>(engine: &Engine<R>) -> Ages {
    let limits = &engine.limits;
    let (retention, floor) = (limits.retention, limits.retention_floor.max(limits.lock_wait));
    Ages { retention: millis(retention), floor: millis(floor.min(retention)) }
}

/// Writes down what was said since `said`.
pub(crate) fn note_ended<R: ResourceManager>(
    engine: &Engine<R>,
    said: &mut BTreeMap<CoordinatorId, Ended>,
) {
    let ages = ages(engine);
    for (coordinator, ended, at) in engine.links.ended() {
        if said.get(&coordinator) == Some(&ended) {
            continue;
        }
        said.insert(coordinator, ended.clone());
        let work: Work = Box::new(move |transaction| {
            let noted = in_savepoint(transaction, |connection| {
                marks::note(connection, &coordinator, &ended, at, ages)
            });
            if let Err(error) = noted {
                tracing::warn!(%coordinator, %error, "ended transactions could not be recorded");
            }
            Box::new(drop)
        });
        engine.store.submit(Urgency::Unforced, 1, work);
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}

pub(crate) async fn sweep<R: ResourceManager>(engine: &Arc<Engine<R>>) -> Result<(), ReadError> {
    let (now, Ages { retention, floor }) = (engine.service_time(), ages(engine));
    let coordinators = engine.store.read(marks::coordinators).await?;
    for coordinator in &coordinators {
        remove(engine, *coordinator, now.saturating_sub(retention), false).await?;
    }
    if floor == retention || !engine.footprint.is_above(engine.limits.retention_bytes) {
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
    let said = move |connection: &Connection| marks::said_by(connection, &coordinator, until);
    let Some((ended, said_at)) = engine.store.read(said).await? else { return Ok(0) };
    let (ended, until) = (Arc::new(ended), until.min(said_at));
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
            tracing::warn!(%error, "ended branches could not be removed");
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
        let schema = [crate::journal::SCHEMA, crate::resolutions::SCHEMA, SCHEMA].concat();
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
            searches("resolutions", "transaction_id=? AND branch=? AND coordinator_id=?"),
            "{steps:?}"
        );
        let whole = |step: &String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
        assert!(!steps.iter().any(whole), "{steps:?}");
    }

    const COORDINATOR: CoordinatorId = CoordinatorId::from_bytes([1; 16]);

    fn id(number: u8) -> TransactionId {
        TransactionId::from_bytes([number; 16])
    }

    #[test]
    fn what_is_forgotten_becomes_more_and_is_read_again_after_a_start() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let forgotten = Forgotten::read(&connection).unwrap();
        for (before, except) in [(4, 2), (9, 5)] {
            let ended = Ended::new(id(before), vec![id(except)..=id(except)]);
            forgotten.add(&connection, &COORDINATOR, &ended).unwrap();
        }
        for forgotten in [forgotten, Forgotten::read(&connection).unwrap()] {
            let all = forgotten.of(&COORDINATOR).unwrap();
            let gone: Vec<u8> = (0..12).filter(|number| all.has(&id(*number))).collect();
            assert_eq!(gone, [0, 1, 2, 3, 4, 6, 7, 8]);
        }
        connection.execute("UPDATE forgotten SET ended_before = zeroblob(16)", []).unwrap();
        let error = Forgotten::read(&connection).err().unwrap().to_string();
        assert!(error.contains("table forgotten, row "), "{error}");
    }
}
