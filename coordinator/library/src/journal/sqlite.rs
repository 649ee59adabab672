//! The journal in a SQLite file.

mod forgetting;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use dtc_core::{Intervention, RequestKey};
use dtc_protocol::{CoordinatorId, Incarnation, SessionId, TransactionId, fence::Run};
use dtc_runtime::{Environment, Exit};
use dtc_store::{
    CheckedRow, OpenError, Options, ReadError, Store, Urgency, WriteError, check_pages, checksum,
    in_savepoint,
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, params};

use crate::{address::Address, directory::check_name};

use super::{
    Capabilities, Durable, Entry, Forgotten, Journal, JournalError, Keep, Recalled, Registration,
    Retention, Stored, User,
};
use forgetting::{Known, Memory};

const ROLE: &str = "coordinator";
/// Bytes of a body's checksum.
const CHECKSUM: usize = 4;

/// Unfinished work has a table of its own, so that a start doesn't read history.
const SCHEMA: &str = "
    -- Bodies (begin, decision, end) are protobuf, followed by their checksum.
    CREATE TABLE IF NOT EXISTS unfinished (
        id BLOB PRIMARY KEY, request_key TEXT, begin BLOB, decision BLOB,
        -- Begun, and in a backup that was restored: what was decided is not known.
        lost INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS finished (
        id BLOB PRIMARY KEY,
        -- Service time, in microseconds.
        ended INTEGER NOT NULL,
        -- 0, or by whom: 1 for operators, 2 for participants that were never notified.
        kept INTEGER NOT NULL,
        -- Whether it is found by its end, as one that could not go in its turn.
        late INTEGER NOT NULL,
        request_key TEXT, decision BLOB, end BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS request_keys (
        request_key TEXT PRIMARY KEY, id BLOB NOT NULL, fingerprint BLOB NOT NULL
    ) WITHOUT ROWID;
    -- Locks of clients by themselves: protobuf, followed by its checksum.
    CREATE TABLE IF NOT EXISTS locks (session BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS participants (
        name TEXT PRIMARY KEY, address TEXT NOT NULL,
        supports_inquiry INTEGER NOT NULL, compensates INTEGER NOT NULL,
        -- In milliseconds; 0 for without end.
        lease INTEGER NOT NULL, draining INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// See [`Journal`].
#[derive(Debug)]
pub struct SqliteJournal {
    store: Store,
    known: Arc<Known>,
    environment: Environment,
}

impl SqliteJournal {
    /// Opens or makes the file, raises its epoch, and trusts only what is synced.
    /// `min_free` bytes of the disk are kept from new work. `restored`: the file comes
    /// from a backup (see [`Options::restored`]).
    pub fn open(
        path: &Path,
        min_free: u64,
        restored: bool,
        environment: Environment,
    ) -> Result<Self, OpenError> {
        let base = environment.storage.clone();
        let wall_clock = environment.wall_clock.clone();
        let schema = schema(restored);
        let options = Options { role: ROLE, schema, min_free, restored, wall_clock, ..base };
        let store = Store::open(path, options)?;
        let known = Arc::new(store.inspect(Known::read)?);
        Ok(Self { store, known, environment })
    }

    /// The file, for its figures.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// All tables. It lives as long as the process.
fn schema(restored: bool) -> &'static str {
    // What was begun may have been decided after the backup, either way.
    let lost = match restored {
        true => "UPDATE unfinished SET lost = 1 WHERE decision IS NULL;",
        false => "",
    };
    format!("{SCHEMA}{}{lost}", forgetting::SCHEMA).leak()
}

/// A body with its checksum, so that one that was cut off, changed or put into
/// another transaction's row is found out.
fn sealed(id: TransactionId, column: &str, body: &[u8]) -> Vec<u8> {
    let checksum = checksum(&[id.as_bytes(), column.as_bytes(), body]);
    [body, &checksum.to_le_bytes()].concat()
}

fn unsealed<'a>(id: TransactionId, column: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (body, found) = bytes.split_last_chunk::<CHECKSUM>()?;
    let expected = checksum(&[id.as_bytes(), column.as_bytes(), body]);
    (*found == expected.to_le_bytes()).then_some(body)
}

/// No statement here can fail half way: for one that might, SQLite copies every page
/// that it changes.
fn write(
    transaction: &Transaction<'_>,
    entry: &Entry,
    known: &Known,
    now: Duration,
) -> rusqlite::Result<()> {
    match entry {
        Entry::Begin { id, key, body } => {
            let name = key.as_ref().map(|(name, _)| name);
            insert_or_update(
                transaction,
                "INSERT OR IGNORE INTO unfinished (id, request_key, begin) VALUES (?1, ?2, ?3)",
                "UPDATE unfinished SET begin = ?3 WHERE id = ?1",
                params![id.as_bytes(), name, sealed(*id, "begin", body)],
            )?;
            write_key(transaction, *id, key.as_ref())
        }
        Entry::Decision { id, key, body } => {
            let name = key.as_ref().map(|(name, _)| name);
            insert_or_update(
                transaction,
                "INSERT OR IGNORE INTO unfinished (id, request_key, decision) VALUES (?1, ?2, ?3)",
                "UPDATE unfinished SET begin = NULL, decision = ?3 WHERE id = ?1",
                params![id.as_bytes(), name, sealed(*id, "decision", body)],
            )?;
            write_key(transaction, *id, key.as_ref())
        }
        Entry::End { id, keep, body } => {
            let (ended, kept) = (forgetting::micros(now), forgetting::bits(*keep));
            let late = known.is_late(*id, kept);
            let written = transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO finished
                         (id, ended, kept, late, request_key, decision, end)
                     SELECT id, ?2, ?3, ?4, request_key, decision, ?5 FROM unfinished
                     WHERE id = ?1",
                )?
                .execute(params![id.as_bytes(), ended, kept, late, sealed(*id, "end", body)])?;
            if kept != 0 && written > 0 {
                known.keeps(*keep);
            }
            let mut delete = transaction.prepare_cached("DELETE FROM unfinished WHERE id = ?1")?;
            delete.execute([id.as_bytes()]).map(drop)
        }
        Entry::Session { id, body } => {
            let row = TransactionId::from_bytes(*id.as_bytes());
            insert_or_update(
                transaction,
                "INSERT OR IGNORE INTO locks VALUES (?1, ?2)",
                "UPDATE locks SET body = ?2 WHERE session = ?1",
                params![id.as_bytes(), sealed(row, "body", body)],
            )
        }
        Entry::SessionEnd { id } => {
            let mut delete = transaction.prepare_cached("DELETE FROM locks WHERE session = ?1")?;
            delete.execute([id.as_bytes()]).map(drop)
        }
    }
}

fn write_key(
    transaction: &Transaction<'_>,
    id: TransactionId,
    key: Option<&super::Key>,
) -> rusqlite::Result<()> {
    let Some((name, fingerprint)) = key else {
        return Ok(());
    };
    insert_or_update(
        transaction,
        "INSERT OR IGNORE INTO request_keys VALUES (?1, ?2, ?3)",
        "UPDATE request_keys SET id = ?2, fingerprint = ?3 WHERE request_key = ?1",
        params![name, id.as_bytes(), fingerprint],
    )
}

fn insert_or_update(
    transaction: &Transaction<'_>,
    insert: &str,
    update: &str,
    row: &[&dyn ToSql],
) -> rusqlite::Result<()> {
    if transaction.prepare_cached(insert)?.execute(row)? == 0 {
        transaction.prepare_cached(update)?.execute(row)?;
    }
    Ok(())
}

/// A mark that nobody wrote would keep a decision from being taken up.
fn check_lost(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT id, lost FROM unfinished
               WHERE typeof(lost) <> 'integer' OR lost NOT IN (0, 1) LIMIT 1";
    let bad = |row: &Row<'_>| {
        let row = CheckedRow::new("unfinished", row, 1);
        let mark: i64 = row.get(1)?;
        Err::<(), _>(row.damaged(1, format!("it is {mark}, neither 0 nor 1")))
    };
    connection.query_row(sql, [], bad).optional().map(drop)
}

/// A row of either table, with the columns id, begin, decision, end.
fn stored(table: &'static str, row: &Row<'_>) -> rusqlite::Result<Stored> {
    let row = CheckedRow::new(table, row, 1);
    let id = transaction_id(&row, 0)?;
    let stored = Stored {
        id,
        begin: body(&row, id, 1, "begin")?,
        decision: body(&row, id, 2, "decision")?,
        end: body(&row, id, 3, "end")?,
    };
    match stored {
        Stored { begin: None, decision: None, end: None, .. } => {
            Err(row.damaged(0, "the row has neither a begin nor a decision"))
        }
        stored => Ok(stored),
    }
}

fn transaction_id(row: &CheckedRow<'_>, index: usize) -> rusqlite::Result<TransactionId> {
    let bytes: [u8; 16] = row.get(index)?;
    match uuid::Uuid::from_bytes(bytes).get_version_num() {
        7 => Ok(TransactionId::from_bytes(bytes)),
        version => Err(row.damaged(index, format!("it is a UUID of version {version}, not 7"))),
    }
}

/// A body as it was given.
fn body(
    row: &CheckedRow<'_>,
    id: TransactionId,
    index: usize,
    column: &str,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let Some(mut bytes) = row.get::<Option<Vec<u8>>>(index)? else {
        return Ok(None);
    };
    let length = unsealed(id, column, &bytes).map(<[u8]>::len);
    let length =
        length.ok_or_else(|| row.damaged(index, "its checksum is another one than was written"))?;
    bytes.truncate(length);
    Ok(Some(bytes))
}

fn session(row: &Row<'_>) -> rusqlite::Result<(SessionId, Vec<u8>)> {
    let row = CheckedRow::new("locks", row, 1);
    let id = transaction_id(&row, 0)?;
    let session = body(&row, id, 1, "body")?;
    let session = session.ok_or_else(|| row.damaged(1, "the row is empty"))?;
    Ok((SessionId::from_bytes(*id.as_bytes()), session))
}

fn list(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Stored>> {
    connection.prepare_cached(sql)?.query_map(params, |row| stored(table, row))?.collect()
}

fn find(connection: &Connection, id: TransactionId) -> rusqlite::Result<Option<Stored>> {
    let sql = "SELECT id, begin, decision, NULL FROM unfinished WHERE id = ?1";
    let mut found = list(connection, "unfinished", sql, [id.as_bytes()])?;
    if found.is_empty() {
        let sql = "SELECT id, NULL, decision, end FROM finished WHERE id = ?1";
        found = list(connection, "finished", sql, [id.as_bytes()])?;
    }
    Ok(found.pop())
}

fn registration(row: &CheckedRow<'_>) -> rusqlite::Result<Registration> {
    let (name, address): (String, String) = (row.get(0)?, row.get(1)?);
    check_name(&name).map_err(|why| row.damaged(0, why))?;
    let parsed: Address = address.parse().map_err(|why: String| row.damaged(1, why))?;
    if parsed.to_string() != address {
        return Err(row.damaged(1, "it is not in its one spelling"));
    }
    let lease: i64 = row.get(3)?;
    let lease = u64::try_from(lease).map_err(|_| row.damaged(3, "a lease is not below 0"))?;
    Ok(Registration {
        name,
        address: parsed,
        capabilities: Capabilities { supports_inquiry: row.get(2)?, compensates: row.get(5)? },
        lease: (lease > 0).then(|| Duration::from_millis(lease)),
        draining: row.get(4)?,
    })
}

impl From<ReadError> for JournalError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
            error @ ReadError::Damaged { .. } => Self::Damaged(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<WriteError> for JournalError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Closed => Self::Closed,
            error => Self::Failed(error.to_string()),
        }
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    fn coordinator(&self) -> CoordinatorId {
        CoordinatorId::from_bytes(self.store.identity().id)
    }

    fn run(&self) -> Run {
        let identity = self.store.identity();
        let incarnation = Incarnation::from_bytes(identity.incarnation);
        Run { epoch: identity.epoch, incarnation }
    }

    fn was_mine(&self, run: &Run) -> bool {
        self.store.was_mine(run.epoch, run.incarnation.as_bytes())
    }

    async fn is_replaced(&self) -> Result<bool, JournalError> {
        let own = self.run();
        let same = move |connection: &Connection| {
            connection.query_row("SELECT epoch, incarnation FROM meta", [], |row| {
                let incarnation: [u8; 16] = row.get(1)?;
                let epoch = row.get::<_, i64>(0)?.cast_unsigned();
                Ok((epoch, incarnation) == (own.epoch, *own.incarnation.as_bytes()))
            })
        };
        Ok(!self.store.read(same).await?)
    }

    fn append(&self, entries: Vec<Entry>, sync: bool, durable: Durable) {
        let urgency = if sync { Urgency::Forced } else { Urgency::Unforced };
        let weight = entries.len();
        let exit = self.environment.exit.clone();
        let (known, store) = (Arc::clone(&self.known), self.store.clone());
        let work = move |transaction: &Transaction<'_>| -> dtc_store::Completion {
            let now = store.service_time();
            let written =
                entries.iter().try_for_each(|entry| write(transaction, entry, &known, now));
            Box::new(move |committed| match (written, committed) {
                (Ok(()), Ok(())) => durable(),
                // Decided, and not written: what follows from it may not happen,
                // and nothing else can follow either.
                (Err(error), _) => stop(&*exit, &error.to_string()),
                (_, Err(error)) => stop(&*exit, &error.to_string()),
            })
        };
        self.store.submit(urgency, weight, Box::new(work));
    }

    async fn find_keys(&self, keys: Vec<RequestKey>) -> Result<Vec<Option<User>>, JournalError> {
        let find = move |connection: &Connection| {
            let mut select = connection.prepare_cached(
                "SELECT request_key, id, fingerprint FROM request_keys WHERE request_key = ?1",
            )?;
            let user = |row: &Row<'_>| {
                let row = CheckedRow::new("request_keys", row, 1);
                Ok((transaction_id(&row, 1)?, row.get(2)?))
            };
            keys.iter().map(|key| select.query_row([&**key], user).optional()).collect()
        };
        Ok(self.store.read(find).await?)
    }

    async fn find(&self, id: TransactionId) -> Result<Option<Stored>, JournalError> {
        Ok(self.store.read(move |connection| find(connection, id)).await?)
    }

    async fn recall(&self, id: TransactionId, epoch: u64) -> Result<Recalled, JournalError> {
        let is_lost = epoch < self.store.identity().restored_at;
        let recall = move |connection: &Connection| {
            Ok(match find(connection, id)? {
                Some(stored) => Recalled::Stored(Box::new(stored)),
                None if is_lost || id <= Memory::read(connection)?.watermark => Recalled::Forgotten,
                None => Recalled::Never,
            })
        };
        Ok(self.store.read(recall).await?)
    }

    fn notified(&self, id: TransactionId, branch: u32) {
        let (known, store) = (Arc::clone(&self.known), self.store.clone());
        let work = move |transaction: &Transaction<'_>| -> dtc_store::Completion {
            let now = store.service_time();
            if let Err(error) = forgetting::notified(transaction, &known, (id, branch), now) {
                tracing::warn!(%id, branch, %error, "an inquiry could not be recorded");
            }
            Box::new(drop)
        };
        self.store.submit(Urgency::Unforced, 1, Box::new(work));
    }

    async fn finished(
        &self,
        before: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let before = before.unwrap_or(TransactionId::from_bytes([0xff; 16]));
        let find = move |connection: &Connection| {
            list(
                connection,
                "finished",
                "SELECT id, NULL, decision, end FROM finished WHERE id < ?1
                 ORDER BY id DESC LIMIT ?2",
                params![before.as_bytes(), limit as i64],
            )
        };
        Ok(self.store.read(find).await?)
    }

    async fn unfinished(&self) -> Result<Vec<Stored>, JournalError> {
        let find = |connection: &Connection| {
            check_pages(connection, "unfinished")?;
            check_lost(connection)?;
            let sql = "SELECT id, begin, decision, NULL FROM unfinished WHERE lost = 0 ORDER BY id";
            list(connection, "unfinished", sql, [])
        };
        Ok(self.store.read(find).await?)
    }

    async fn lost(&self) -> Result<Vec<Stored>, JournalError> {
        let find = |connection: &Connection| {
            check_lost(connection)?;
            let sql = "SELECT id, begin, decision, NULL FROM unfinished WHERE lost <> 0";
            list(connection, "unfinished", sql, [])
        };
        Ok(self.store.read(find).await?)
    }

    async fn sessions(&self) -> Result<Vec<(SessionId, Vec<u8>)>, JournalError> {
        let find = |connection: &Connection| {
            check_pages(connection, "locks")?;
            let mut select =
                connection.prepare("SELECT session, body FROM locks ORDER BY session")?;
            select.query_map([], session)?.collect()
        };
        Ok(self.store.read(find).await?)
    }

    async fn newest(&self) -> Result<Option<TransactionId>, JournalError> {
        let find = |connection: &Connection| {
            let newest = |table: &'static str| {
                connection
                    .query_row(
                        &format!("SELECT id FROM {table} ORDER BY id DESC LIMIT 1"),
                        [],
                        |row| transaction_id(&CheckedRow::new(table, row, 1), 0),
                    )
                    .optional()
            };
            Ok(newest("finished")?.max(newest("unfinished")?))
        };
        Ok(self.store.read(find).await?)
    }

    async fn register(&self, registration: Registration) -> Result<(), JournalError> {
        let write = move |transaction: &Transaction<'_>| {
            let Registration { name, address, capabilities, lease, draining } = registration;
            let lease = lease.map_or(0, |lease| lease.as_millis() as i64);
            let sql = "INSERT OR REPLACE INTO participants
                           (name, address, supports_inquiry, compensates, lease, draining)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let Capabilities { supports_inquiry, compensates } = capabilities;
            let values =
                params![name, address.to_string(), supports_inquiry, compensates, lease, draining];
            transaction.execute(sql, values).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn deregister(&self, name: &str) -> Result<(), JournalError> {
        let name = name.to_owned();
        let write = move |transaction: &Transaction<'_>| {
            transaction.execute("DELETE FROM participants WHERE name = ?1", [name]).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn registered(&self) -> Result<Vec<Registration>, JournalError> {
        let find = |connection: &Connection| {
            check_pages(connection, "participants")?;
            let mut select = connection.prepare(
                "SELECT name, address, supports_inquiry, lease, draining, compensates FROM participants",
            )?;
            let rows = select
                .query_map([], |row| registration(&CheckedRow::new("participants", row, 1)))?;
            rows.collect()
        };
        Ok(self.store.read(find).await?)
    }

    async fn release(&self, id: TransactionId, done: Intervention) -> Result<bool, JournalError> {
        let known = Arc::clone(&self.known);
        let write = move |transaction: &Transaction<'_>| {
            forgetting::release(transaction, &known, id, &done)
        };
        Ok(self.store.write(write).await?)
    }

    async fn forget(&self, retention: Retention, limit: usize) -> Result<Forgotten, JournalError> {
        let (now, kept) = (self.store.service_time(), self.known.kept());
        let look =
            move |connection: &Connection| forgetting::has_work(connection, kept, now, retention);
        let (has_work, too_large) = self.store.read(look).await?;
        if !has_work {
            return Ok(Forgotten { too_large, ..Forgotten::default() });
        }
        let known = Arc::clone(&self.known);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let work = move |transaction: &Transaction<'_>| -> dtc_store::Completion {
            let forgotten = in_savepoint(transaction, |_| {
                forgetting::forget(transaction, &known, now, retention, limit)
            });
            Box::new(move |committed: Result<(), WriteError>| {
                let forgotten = forgotten.map_err(|error| JournalError::Failed(error.to_string()));
                let _ = answer.send(committed.map_err(JournalError::from).and(forgotten));
            })
        };
        self.store.submit(Urgency::Unforced, limit, Box::new(work));
        answered.await.unwrap_or_else(|_| Err(WriteError::Closed.into()))
    }

    fn kept(&self) -> (u64, u64) {
        self.known.kept()
    }

    fn keep_time(&self) {
        self.store.keep_service_time();
    }

    fn now(&self) -> Duration {
        (self.environment.wall_clock)()
    }

    fn has_room(&self) -> bool {
        self.store.has_room()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

/// Fail stop: a record that was asked for cannot be written.
fn stop(exit: &dyn Fn(Exit), cause: &str) {
    tracing::error!(
        cause,
        "the journal cannot take a record; stopping, as no decision may be acted on before it \
         is durable. Free disk space or repair the disk, then start again"
    );
    exit(Exit::Storage);
}

#[cfg(test)]
mod tests;
