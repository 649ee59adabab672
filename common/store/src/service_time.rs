//! Service time: how long a journal's service has run, over all of its runs.
//!
//! Invariants:
//! - It follows the monotonic clock and is never ahead of it: what the wall clock
//!   does, in a run or between two, does not reach it, and the time in which no
//!   process runs does not count.
//! - It never goes back by more than what was not yet written when a process was
//!   killed: [`WRITE_EVERY`] under load, and the time since the last batch else.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::{Connection, Transaction, params};
use tokio::time::Instant;

use crate::{
    damage::{CheckedRow, checksum},
    options::WallClock,
};

/// How old what is written may be before the next batch writes it anew.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How far the wall clock may go from the monotonic one between two looks before it is
/// said to have jumped.
const SLACK: Duration = Duration::from_secs(3);

pub(crate) const SCHEMA: &str = "
    CREATE TABLE service_time (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        -- Both in microseconds; what the wall clock said is for people.
        elapsed INTEGER NOT NULL,
        wall INTEGER NOT NULL,
        -- Of the others.
        checksum INTEGER NOT NULL
    );
";

/// What is written of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    elapsed: i64,
    wall: i64,
}

/// Of one run.
pub(crate) struct ServiceTime {
    before: Duration,
    opened: Instant,
    /// Microseconds.
    written: AtomicU64,
    wall_clock: WallClock,
    looked: Mutex<Look>,
    jumps: AtomicU64,
}

/// Both clocks at once.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    wall: Duration,
}

pub(crate) fn create(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(SCHEMA)?;
    let sum = of(&Written::default());
    let sql = "INSERT INTO service_time VALUES (1, 0, 0, ?1)";
    transaction.execute(sql, params![sum]).map(drop)
}

pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Written> {
    let sql = "SELECT only, elapsed, wall, checksum FROM service_time";
    connection.query_row(sql, [], |row| {
        let row = CheckedRow::new("service_time", row, 1);
        let written = Written { elapsed: row.get(1)?, wall: row.get(2)? };
        match row.get::<u32>(3)? == of(&written) && written.elapsed >= 0 {
            true => Ok(written),
            false => {
                Err(row
                    .damaged(3, "checksum mismatch: the row's contents do not match its checksum"))
            }
        }
    })
}

fn of(written: &Written) -> u32 {
    checksum(&[&written.elapsed.to_le_bytes(), &written.wall.to_le_bytes()])
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl ServiceTime {
    /// Goes on from what the run before has written.
    pub(crate) fn resume(written: Written, wall_clock: WallClock, file: &str) -> Self {
        let look = Look { at: Instant::now(), wall: wall_clock() };
        let before = Duration::from_micros(written.elapsed.cast_unsigned());
        let back =
            Duration::from_micros(written.wall.max(0).cast_unsigned()).checked_sub(look.wall);
        let jumped = back.filter(|back| *back > SLACK);
        if let Some(back) = jumped {
            tracing::warn!(
                file,
                seconds = back.as_secs(),
                "the wall clock is behind that of the run before; retention is not affected, as \
                 it follows the service time"
            );
        }
        Self {
            before,
            opened: look.at,
            written: AtomicU64::new(written.elapsed.cast_unsigned()),
            wall_clock,
            looked: Mutex::new(look),
            jumps: AtomicU64::new(jumped.is_some().into()),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.before + self.opened.elapsed()
    }

    /// How often the wall clock was seen to jump.
    pub(crate) fn jumps(&self) -> u64 {
        self.jumps.load(Relaxed)
    }

    /// Says so, once for each time, where the wall clock went another way than the
    /// monotonic one since the last look.
    pub(crate) fn watch(&self, file: &str) {
        let now = Look { at: Instant::now(), wall: (self.wall_clock)() };
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *looked, now);
        drop(looked);
        let expected = before.wall + now.at.saturating_duration_since(before.at);
        if now.wall.abs_diff(expected) <= SLACK {
            return;
        }
        self.jumps.fetch_add(1, Relaxed);
        let seconds = now.wall.abs_diff(expected).as_secs();
        let direction = if now.wall > expected { "forward" } else { "back" };
        tracing::warn!(
            file,
            seconds,
            direction,
            "the wall clock jumped, or the machine was asleep; what is kept, and for how long, \
             follows the time that the service has run"
        );
    }

    /// Writes it with the batch, where it is due or `now`.
    pub(crate) fn write(&self, transaction: &Transaction<'_>, now: bool) -> rusqlite::Result<()> {
        let elapsed = self.now();
        let written = Duration::from_micros(self.written.load(Relaxed));
        if !now && elapsed.saturating_sub(written) < WRITE_EVERY {
            return Ok(());
        }
        let row = Written { elapsed: micros(elapsed), wall: micros((self.wall_clock)()) };
        transaction
            .prepare_cached("UPDATE service_time SET elapsed = ?1, wall = ?2, checksum = ?3")?
            .execute(params![row.elapsed, row.wall, of(&row)])?;
        self.written.store(row.elapsed.cast_unsigned(), Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicI64};

    use crate::{Options, Store};

    use super::*;

    const DAY: i64 = 86_400;
    const NOON: i64 = 1_800_000_000;

    /// A store whose wall clock is what the test says, in seconds.
    fn open(path: &std::path::Path, wall: &Arc<AtomicI64>) -> Store {
        let wall = Arc::clone(wall);
        let wall_clock: WallClock =
            Arc::new(move || Duration::from_secs(wall.load(Relaxed).cast_unsigned()));
        Store::open(path, Options { wall_clock, ..Options::default() }).unwrap()
    }

    #[tokio::test]
    async fn it_is_the_time_of_all_runs_whatever_the_wall_clock_does() {
        let began = std::time::Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let wall = Arc::new(AtomicI64::new(NOON));
        let mut last = Duration::ZERO;
        for (jump, between) in [(DAY, -3 * DAY), (-2 * DAY, 30 * DAY), (DAY, 0)] {
            let store = open(&path, &wall);
            assert!(store.service_time() >= last, "it goes on from the run before");
            wall.fetch_add(jump, Relaxed);
            store.write(|_| Ok(())).await.unwrap();
            let now = store.service_time();
            assert!(now > last && now <= began.elapsed(), "{now:?}");
            store.close().await;
            last = store.service_time().min(now);
            wall.fetch_add(between, Relaxed);
        }
    }

    #[tokio::test]
    async fn a_jump_of_the_wall_clock_is_counted_once_for_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let wall = Arc::new(AtomicI64::new(NOON));
        let store = open(&path, &wall);
        let time = &store.shared().time;
        let mut jumps = 0;
        for (jump, is_one) in [(0, 0), (1, 0), (DAY, 1), (0, 0), (-DAY, 1), (0, 0), (-60, 1)] {
            wall.fetch_add(jump, Relaxed);
            time.watch("a.db");
            jumps += is_one;
            assert_eq!(time.jumps(), jumps, "after {jump} s");
            assert_eq!(store.statistics().wall_clock_jumps, jumps);
        }
        store.close().await;
        wall.fetch_add(-(SLACK.as_secs().cast_signed()), Relaxed);
        let store = open(&path, &wall);
        assert_eq!(store.shared().time.jumps(), 0, "no more than the slack");
        store.close().await;
        wall.fetch_add(-DAY, Relaxed);
        let store = open(&path, &wall);
        assert_eq!(store.shared().time.jumps(), 1, "back, between two runs");
        store.close().await;
    }

    #[tokio::test]
    async fn what_another_wrote_there_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Store::open(&path, Options::default()).unwrap().close().await;
        let connection = Connection::open(&path).unwrap();
        connection.execute("UPDATE service_time SET elapsed = 1 << 60", []).unwrap();
        drop(connection);
        let error = Store::open(&path, Options::default()).unwrap_err();
        assert!(error.to_string().contains("table service_time"), "{error}");
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// A file whose service has run for a minute.
    async fn an_old_file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Store::open(&path, Options::default()).unwrap().close().await;
        let written = Written { elapsed: micros(MINUTE), wall: 0 };
        let sql = "UPDATE service_time SET elapsed = ?1, wall = 0, checksum = ?2";
        let connection = Connection::open(&path).unwrap();
        connection.execute(sql, params![written.elapsed, of(&written)]).unwrap();
        (folder, path)
    }

    async fn elapsed(store: &Store) -> Duration {
        let written = store.read(read).await.unwrap();
        Duration::from_micros(written.elapsed.cast_unsigned())
    }

    fn is_written(store: &Store, since: Duration) {
        let micros = (MINUTE - since).as_micros();
        store.shared().time.written.store(u64::try_from(micros).unwrap(), Relaxed);
    }

    #[tokio::test]
    async fn it_is_written_with_a_batch_once_what_is_written_is_old() {
        let (_folder, path) = an_old_file().await;
        let store = Store::open(&path, Options::default()).unwrap();
        store.write(|_| Ok(())).await.unwrap();
        assert_eq!(elapsed(&store).await, MINUTE, "it is new");
        is_written(&store, WRITE_EVERY);
        store.write(|_| Ok(())).await.unwrap();
        let first = elapsed(&store).await;
        assert!(first > MINUTE, "{first:?}");
        store.write(|_| Ok(())).await.unwrap();
        assert_eq!(elapsed(&store).await, first, "it is new again");
        store.close().await;
        let store = Store::open(&path, Options::default()).unwrap();
        assert!(elapsed(&store).await > first, "with the last batch of a run");
        store.close().await;
    }

    #[tokio::test]
    async fn an_idle_service_can_have_it_written() {
        let (_folder, path) = an_old_file().await;
        let store = Store::open(&path, Options::default()).unwrap();
        is_written(&store, WRITE_EVERY);
        store.keep_service_time();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while elapsed(&store).await == MINUTE {
            assert!(std::time::Instant::now() < deadline, "it is not written");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        store.close().await;
    }

    #[tokio::test]
    async fn a_batch_that_sqlite_rolled_back_writes_nothing_of_it() {
        let (_folder, path) = an_old_file().await;
        let store = Store::open(&path, Options::default()).unwrap();
        is_written(&store, WRITE_EVERY);
        let rolled_back = store.write(|transaction| transaction.execute_batch("ROLLBACK")).await;
        rolled_back.unwrap_err();
        assert_eq!(elapsed(&store).await, MINUTE);
        store.close().await;
    }

    #[tokio::test]
    async fn a_wall_clock_that_goes_with_the_time_does_not_jump() {
        let folder = tempfile::tempdir().unwrap();
        let wall = Arc::new(AtomicI64::new(NOON));
        let store = open(&folder.path().join("a.db"), &wall);
        let time = &store.shared().time;
        time.looked.lock().unwrap().at -= MINUTE;
        wall.fetch_add(60, Relaxed);
        time.watch("a.db");
        assert_eq!(time.jumps(), 0);
        store.close().await;
    }
}
