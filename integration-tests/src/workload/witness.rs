//! What happened to the rows of the journals, kept by triggers in the same files: it
//! is there after a crash exactly where they are, and stays when they are forgotten.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::books::{decoded, open};

const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

const COORDINATOR: &str = "
    CREATE TABLE witness_finished (
        id BLOB, request_key TEXT, decision BLOB, ended_at INTEGER, removed_at INTEGER
    );
    CREATE INDEX witness_finished_id ON witness_finished (id);
    CREATE TRIGGER witness_ended AFTER INSERT ON finished BEGIN
        INSERT INTO witness_finished VALUES (new.id, new.request_key, new.decision, NOW, NULL);
    END;
    CREATE TRIGGER witness_removed AFTER DELETE ON finished BEGIN
        UPDATE witness_finished SET removed_at = NOW WHERE id = old.id AND removed_at IS NULL;
    END;
    CREATE TABLE witness_redecided (id BLOB, decision BLOB, at INTEGER);
    CREATE TRIGGER witness_decided_again AFTER UPDATE OF decision ON unfinished
        WHEN old.decision IS NOT NULL AND new.decision IS NOT NULL BEGIN
        INSERT INTO witness_redecided VALUES (new.id, new.decision, NOW);
    END;
    CREATE TABLE witness_keys (request_key TEXT, id BLOB, at INTEGER, removed_at INTEGER);
    CREATE INDEX witness_keys_key ON witness_keys (request_key);
    CREATE TRIGGER witness_key AFTER INSERT ON request_keys BEGIN
        INSERT INTO witness_keys VALUES (new.request_key, new.id, NOW, NULL);
    END;
    CREATE TRIGGER witness_key_changed AFTER UPDATE ON request_keys WHEN new.id <> old.id BEGIN
        UPDATE witness_keys SET removed_at = NOW
            WHERE request_key = old.request_key AND removed_at IS NULL;
        INSERT INTO witness_keys VALUES (new.request_key, new.id, NOW, NULL);
    END;
    CREATE TRIGGER witness_key_removed AFTER DELETE ON request_keys BEGIN
        UPDATE witness_keys SET removed_at = NOW
            WHERE request_key = old.request_key AND removed_at IS NULL;
    END;
";

const PARTICIPANT: &str = "
    CREATE TABLE witness_decided (
        transaction_id BLOB, branch INTEGER, coordinator_id BLOB, committed INTEGER,
        at INTEGER, removed_at INTEGER
    );
    CREATE INDEX witness_decided_id ON witness_decided (transaction_id);
    CREATE TRIGGER witness_decided_new AFTER INSERT ON decided BEGIN
        INSERT INTO witness_decided VALUES
            (new.transaction_id, new.branch, new.coordinator_id, new.committed, NOW, NULL);
    END;
    CREATE TRIGGER witness_decided_changed AFTER UPDATE ON decided BEGIN
        UPDATE witness_decided SET committed = new.committed
            WHERE transaction_id = new.transaction_id AND branch = new.branch
              AND coordinator_id = new.coordinator_id AND removed_at IS NULL;
    END;
    CREATE TRIGGER witness_decided_removed AFTER DELETE ON decided BEGIN
        UPDATE witness_decided SET removed_at = NOW
            WHERE transaction_id = old.transaction_id AND branch = old.branch
              AND coordinator_id = old.coordinator_id AND removed_at IS NULL;
    END;
";

/// Lets a file of a service that does not run take down what happens to it.
pub(crate) fn install(file: &Path, is_coordinator: bool) -> rusqlite::Result<()> {
    let sql = if is_coordinator { COORDINATOR } else { PARTICIPANT };
    Connection::open(file)?.execute_batch(&sql.replace("NOW", NOW))
}

/// How long finished work has to be remembered, at the least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remembered {
    pub(crate) coordinator: Duration,
    pub(crate) participants: Duration,
    /// How long a record may be on its way to the disk: what was noted when it arrived
    /// there happened so much earlier at most.
    pub(crate) on_its_way: Duration,
}

/// A key's use for a transaction, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUse {
    pub(crate) id: Uuid,
    pub(crate) at: i64,
    pub(crate) removed_at: Option<i64>,
}

/// What the coordinator's file went through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness {
    /// When transactions ended, and were removed.
    pub(crate) ended: BTreeMap<Uuid, (i64, Option<i64>)>,
    /// When those ended for their clients that had participants still to notify.
    pub(crate) closed: BTreeMap<Uuid, i64>,
    pub(crate) keys: BTreeMap<String, Vec<KeyUse>>,
    /// Decisions as the journal has them, sealed, of what ended.
    pub(crate) decisions: Vec<(Uuid, Vec<u8>)>,
    /// What was forgotten before its time.
    pub(crate) too_early: Vec<String>,
}

/// A decided branch: the transaction, whether committed, when, and when it was removed.
type Decided = (Uuid, bool, i64, Option<i64>);

impl Witness {
    /// None of a file that took nothing down.
    pub(crate) fn read(coordinator: &Path) -> anyhow::Result<Option<Self>> {
        let connection = open(coordinator)?;
        if !has_table(&connection, "witness_finished")? {
            return Ok(None);
        }
        let mut witness = Self::default();
        let sql = "SELECT id, decision, ended_at, removed_at FROM witness_finished";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = Uuid::from_bytes(row.get(0)?);
            if let Some(decision) = row.get(1)? {
                witness.decisions.push((id, decision));
            }
            witness.ended.insert(id, (row.get(2)?, row.get(3)?));
        }
        let sql = "SELECT id, decision, at FROM witness_redecided ORDER BY rowid";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let sealed: Vec<u8> = row.get(1)?;
            let id = Uuid::from_bytes(row.get(0)?);
            if decoded(id, &sealed)?.ended_at.is_some() {
                witness.closed.entry(id).or_insert(row.get(2)?);
            }
        }
        let sql = "SELECT request_key, id, at, removed_at FROM witness_keys ORDER BY rowid";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = Uuid::from_bytes(row.get(1)?);
            let usage = KeyUse { id, at: row.get(2)?, removed_at: row.get(3)? };
            witness.keys.entry(row.get(0)?).or_default().push(usage);
        }
        Ok(Some(witness))
    }

    /// Looks for what was forgotten too early at the coordinator.
    pub(crate) fn check_coordinator(&mut self, remembered: Remembered) {
        let (remembered, on_its_way) = (remembered.coordinator, remembered.on_its_way);
        let least = milliseconds(remembered) - milliseconds(on_its_way);
        for (id, (ended, removed)) in &self.ended {
            if let Some(removed) = removed.filter(|removed| removed - ended < least) {
                self.too_early.push(format!(
                    "transaction {id} was forgotten {} ms after its end, to be remembered for {remembered:?}",
                    removed - ended
                ));
            }
        }
    }

    /// The same at a participant. A branch may go only when its transaction has ended
    /// and so much time has passed since; one that the coordinator knows nothing of,
    /// when so much has passed since it was decided.
    pub(crate) fn check_participant(
        &mut self,
        name: &str,
        decided: &[Decided],
        unfinished: &[Uuid],
        remembered: Remembered,
    ) {
        let (remembered, on_its_way) = (remembered.participants, remembered.on_its_way);
        let least = milliseconds(remembered) - milliseconds(on_its_way);
        for (id, _, at, removed) in decided {
            let Some(removed) = removed else { continue };
            let ended = self.ended.get(id).map(|(ended, _)| *ended);
            let since = match self.closed.get(id).copied().or(ended) {
                Some(ended) => ended,
                None if unfinished.contains(id) => i64::MAX / 2,
                None => *at,
            };
            if removed - since < least {
                let when = match since == i64::MAX / 2 {
                    true => "which has not ended".into(),
                    false => format!("{} ms after its end", removed - since),
                };
                self.too_early.push(format!(
                    "a branch of transaction {id} was forgotten at {name}, {when}, to be remembered for {remembered:?}"
                ));
            }
        }
    }

    /// Whether a transaction was removed.
    pub(crate) fn is_forgotten(&self, id: Uuid) -> bool {
        self.ended.get(&id).is_some_and(|(_, removed)| removed.is_some())
    }

    /// Whether a key's use was on the disk for all of a time, from `at` on.
    pub(crate) fn has_key(&self, key: &str, at: i64) -> Option<KeyUse> {
        let uses = self.keys.get(key)?;
        uses.iter().copied().find(|it| it.at < at && it.removed_at.is_none())
    }
}

/// Every branch that was ever decided at a participant.
pub(crate) fn decided(file: &Path) -> anyhow::Result<Vec<Decided>> {
    let connection = open(file)?;
    let sql = match has_table(&connection, "witness_decided")? {
        true => "SELECT transaction_id, committed, at, removed_at FROM witness_decided",
        false => "SELECT transaction_id, committed, 0, NULL FROM decided",
    };
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = ?1";
    Ok(connection.query_row(sql, [name], |_| Ok(())).optional()?.is_some())
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
