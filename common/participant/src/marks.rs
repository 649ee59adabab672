//! What coordinators said about the end of their transactions, and when: from it
//! follows what has ended long enough ago to be forgotten.
//!
//! - Marks are a sixteenth of the floor apart within the floor, a sixteenth of the
//!   retention beyond it; the last is always what was said last.
//! - The mark that was the newest a retention ago stays; what is older goes.

use dtc_protocol::{CoordinatorId, TransactionId};
use dtc_store::{CheckedRow, checksum};
use rusqlite::{Connection, OptionalExtension, params};

use crate::ended::Ended;

/// How many marks there are within a retention, and within the floor.
const MARKS: i64 = 16;

pub(crate) const SCHEMA: &str = "
    -- What a coordinator said at a time about the end of its transactions. Times are
    -- service time, in milliseconds.
    CREATE TABLE IF NOT EXISTS ended (
        coordinator_id BLOB NOT NULL,
        notified_at INTEGER NOT NULL,
        ended_before BLOB NOT NULL,
        ended_except BLOB NOT NULL,
        -- Of all the others.
        checksum INTEGER NOT NULL,
        PRIMARY KEY (coordinator_id, notified_at)
    ) WITHOUT ROWID;
";

/// After how long what ended may be forgotten, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ages {
    pub(crate) retention: i64,
    /// The least, where the journal is too large; at most the retention.
    pub(crate) floor: i64,
}

impl Ages {
    /// The shorter of the two distances between marks.
    pub(crate) fn step(self) -> i64 {
        self.floor / MARKS
    }
}

/// Notes what was said. The last mark moves on until it is a step away from the one
/// before.
pub(crate) fn note(
    connection: &Connection,
    coordinator: &CoordinatorId,
    ended: &Ended,
    now: i64,
    ages: Ages,
) -> rusqlite::Result<()> {
    let id = coordinator.as_bytes();
    let (before, except) = (ended.before(), ended.except_bytes());
    let marks = connection
        .prepare_cached(
            "SELECT notified_at, ended_before, ended_except FROM ended
             WHERE coordinator_id = ?1 ORDER BY notified_at DESC LIMIT 2",
        )?
        .query_map([id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    if let Some((last, last_before, last_except)) = marks.first() {
        if last_before == before.as_bytes() && *last_except == except {
            return Ok(());
        }
        if marks.get(1).is_some_and(|(previous, ..)| last - previous < ages.step()) {
            connection
                .prepare_cached("DELETE FROM ended WHERE coordinator_id = ?1 AND notified_at = ?2")?
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
    thin_out(connection, coordinator, now, ages)
}

/// Removes what is too old, and what is too near to its successor beyond the floor.
fn thin_out(
    connection: &Connection,
    coordinator: &CoordinatorId,
    now: i64,
    ages: Ages,
) -> rusqlite::Result<()> {
    let id = coordinator.as_bytes();
    connection
        .prepare_cached(
            "DELETE FROM ended WHERE coordinator_id = ?1 AND notified_at <
                (SELECT max(notified_at) FROM ended WHERE coordinator_id = ?1 AND notified_at <= ?2)",
        )?
        .execute(params![id, now.saturating_sub(ages.retention)])?;
    connection
        .prepare_cached(
            "DELETE FROM ended WHERE coordinator_id = ?1 AND notified_at <= ?2 AND EXISTS (
                SELECT 1 FROM ended AS next
                WHERE next.coordinator_id = ?1 AND next.notified_at <= ?2
                  AND next.notified_at > ended.notified_at
                  AND next.notified_at / ?3 = ended.notified_at / ?3)",
        )?
        .execute(params![id, now.saturating_sub(ages.floor), (ages.retention / MARKS).max(1)])
        .map(drop)
}

/// What a coordinator had said by `until`, and when.
pub(crate) fn said_by(
    connection: &Connection,
    coordinator: &CoordinatorId,
    until: i64,
) -> rusqlite::Result<Option<(Ended, i64)>> {
    connection
        .prepare_cached(
            "SELECT coordinator_id, notified_at, ended_before, ended_except, checksum FROM ended
             WHERE coordinator_id = ?1 AND notified_at <= ?2 ORDER BY notified_at DESC LIMIT 1",
        )?
        .query_row(params![coordinator.as_bytes(), until], |row| {
            let row = CheckedRow::new("ended", row, 2);
            let (said_at, except): (i64, Vec<u8>) = (row.get(1)?, row.get(3)?);
            let before = TransactionId::from_bytes(row.get(2)?);
            if row.get::<u32>(4)? != of_mark(coordinator, said_at, &before, &except) {
                return Err(row.damaged(
                    4,
                    "checksum mismatch: the row's contents do not match its checksum",
                ));
            }
            Ok((Ended::from_bytes(before, &except), said_at))
        })
        .optional()
}

fn of_mark(
    coordinator: &CoordinatorId,
    said_at: i64,
    before: &TransactionId,
    except: &[u8],
) -> u32 {
    checksum(&[coordinator.as_bytes(), &said_at.to_le_bytes(), before.as_bytes(), except])
}

/// Those that have said something.
pub(crate) fn coordinators(connection: &Connection) -> rusqlite::Result<Vec<CoordinatorId>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT coordinator_id FROM ended")?;
    let rows = statement.query_map([], |row| row.get(0).map(CoordinatorId::from_bytes))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COORDINATOR: CoordinatorId = CoordinatorId::from_bytes([1; 16]);
    const MINUTE: i64 = 60_000;
    const DAY: Ages = Ages { retention: 24 * 60 * MINUTE, floor: 10 * MINUTE };

    fn journal() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection
    }

    /// Something else is said each time.
    fn say(connection: &Connection, at: i64) {
        let mut before = [0; 16];
        before[8..].copy_from_slice(&at.to_be_bytes());
        let ended = Ended::new(TransactionId::from_bytes(before), Vec::new());
        note(connection, &COORDINATOR, &ended, at, DAY).unwrap();
    }

    fn said_at(connection: &Connection, until: i64) -> i64 {
        said_by(connection, &COORDINATOR, until).unwrap().unwrap().1
    }

    #[test]
    fn there_is_a_mark_near_the_floor_and_near_the_retention_and_few_others() {
        let connection = journal();
        let end = 3 * DAY.retention;
        for second in (0..end / 1000).step_by(10) {
            say(&connection, second * 1000);
        }
        let now = end - 10_000;
        let late = now - DAY.floor - said_at(&connection, now - DAY.floor);
        assert!(late <= 2 * DAY.step(), "{late} ms after the floor");
        let late = now - DAY.retention - said_at(&connection, now - DAY.retention);
        assert!(late <= DAY.retention / MARKS, "{late} ms after the retention");
        let count: i64 =
            connection.query_row("SELECT count(*) FROM ended", [], |row| row.get(0)).unwrap();
        assert!(count <= 2 * MARKS + 4, "{count} marks");
        assert_eq!(said_at(&connection, now), now, "the last is what was said last");
    }

    #[test]
    fn the_same_said_again_makes_no_mark() {
        let connection = journal();
        say(&connection, 1000);
        let ended = said_by(&connection, &COORDINATOR, 1000).unwrap().unwrap().0;
        note(&connection, &COORDINATOR, &ended, 50 * MINUTE, DAY).unwrap();
        assert_eq!(said_at(&connection, i64::MAX), 1000);
    }

    #[test]
    fn a_mark_that_is_a_step_away_from_the_one_before_stays() {
        let connection = journal();
        for number in 0..3 {
            say(&connection, number * DAY.step());
        }
        for number in 0..3 {
            assert_eq!(said_at(&connection, number * DAY.step()), number * DAY.step());
        }
    }

    #[test]
    fn what_nobody_said_is_damage() {
        let connection = journal();
        say(&connection, 1000);
        connection.execute("UPDATE ended SET ended_before = zeroblob(16)", []).unwrap();
        let error = said_by(&connection, &COORDINATOR, 1000).unwrap_err().to_string();
        assert!(error.contains("table ended, row "), "{error}");
    }
}
