//! The journal in a SQLite file.

use std::{path::Path, time::Duration};

use common::{CoordinatorId, Incarnation, TransactionId, fence::Run};
use common_service::{Environment, Exit};
use common_store::{OpenError, Options, ReadError, Store, Urgency, WriteError};
use coordinator_core::Fingerprint;
use prost::Message;
use proto::journal;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tonic::async_trait;

use super::{Durable, Entry, Journal, JournalError, Registration, Retention, Stored};

const ROLE: &str = "coordinator";

/// Unfinished work has a table of its own, so that a start doesn't read history.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS unfinished (
        id BLOB PRIMARY KEY, request_key TEXT, begin BLOB, decision BLOB
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS finished (
        id BLOB PRIMARY KEY, ended_at INTEGER NOT NULL, kept INTEGER NOT NULL,
        request_key TEXT, decision BLOB, end BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS request_keys (
        request_key TEXT PRIMARY KEY, id BLOB NOT NULL, fingerprint BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS participants (
        name TEXT PRIMARY KEY, address TEXT NOT NULL, asks INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// See [`Journal`].
#[derive(Debug)]
pub(crate) struct SqliteJournal {
    store: Store,
    environment: Environment,
}

impl SqliteJournal {
    /// Opens or makes the file, raises its epoch, and trusts only what is synced.
    /// `min_free` bytes of the disk are kept from new work.
    pub(crate) fn open(
        path: &Path,
        min_free: u64,
        environment: Environment,
    ) -> Result<Self, OpenError> {
        let base = environment.storage.clone();
        let options = Options { role: ROLE, schema: SCHEMA, min_free, ..base };
        Ok(Self { store: Store::open(path, options)?, environment })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

fn write(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    match entry {
        Entry::Begin { id, key, body } => {
            let name = key.as_ref().map(|(name, _)| name);
            transaction
                .prepare_cached(
                    "INSERT INTO unfinished (id, request_key, begin) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET begin = excluded.begin",
                )?
                .execute(params![id.as_bytes(), name, body])?;
            write_key(transaction, *id, key.as_ref())
        }
        Entry::Decision { id, key, body } => {
            let name = key.as_ref().map(|(name, _)| name);
            transaction
                .prepare_cached(
                    "INSERT INTO unfinished (id, request_key, decision) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET begin = NULL, decision = excluded.decision",
                )?
                .execute(params![id.as_bytes(), name, body])?;
            write_key(transaction, *id, key.as_ref())
        }
        Entry::End { id, ended_at, kept, body } => {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO finished (id, ended_at, kept, request_key, decision, end)
                     SELECT id, ?2, ?3, request_key, decision, ?4 FROM unfinished WHERE id = ?1",
                )?
                .execute(params![id.as_bytes(), ended_at.cast_signed(), kept, body])?;
            let mut delete = transaction.prepare_cached("DELETE FROM unfinished WHERE id = ?1")?;
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
    transaction
        .prepare_cached("INSERT OR REPLACE INTO request_keys VALUES (?1, ?2, ?3)")?
        .execute(params![name, id.as_bytes(), fingerprint])
        .map(drop)
}

/// A row of either table, with the columns id, begin, decision, end.
fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let id: [u8; 16] = row.get(0)?;
    Ok(Stored {
        id: TransactionId::from_bytes(id),
        begin: decode::<journal::Begin>(row, 1)?,
        decision: decode::<journal::Decision>(row, 2)?,
        end: decode::<journal::End>(row, 3)?,
    })
}

fn decode<M: Message + Default>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<M>> {
    let Some(bytes) = row.get_ref(column)?.as_blob_or_null()? else {
        return Ok(None);
    };
    M::decode(bytes).map(Some).map_err(|cause| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Blob,
            Box::new(cause),
        )
    })
}

fn list(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Stored>> {
    connection.prepare_cached(sql)?.query_map(params, stored)?.collect()
}

/// The oldest finished transactions that may go, with their request keys.
fn forgettable(
    connection: &Connection,
    retention: Retention,
    limit: usize,
) -> rusqlite::Result<Vec<Forgettable>> {
    let pages = |name: &str| -> rusqlite::Result<u64> {
        let count: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        Ok(count.cast_unsigned())
    };
    let used = (pages("page_count")? - pages("freelist_count")?) * pages("page_size")?;
    let too_large = used > retention.max_bytes;
    let mut select = connection.prepare_cached(
        "SELECT id, request_key FROM finished
         WHERE kept = 0 AND (?1 OR (id < ?2 AND ended_at < ?3)) ORDER BY id LIMIT ?4",
    )?;
    let ended_before = retention.ended_before.cast_signed();
    let before = retention.before.as_bytes();
    let rows = select.query_map(params![too_large, before, ended_before, limit as i64], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

type Forgettable = ([u8; 16], Option<String>);

fn forget(transaction: &Transaction<'_>, rows: &[Forgettable]) -> rusqlite::Result<()> {
    let mut finished = transaction.prepare_cached("DELETE FROM finished WHERE id = ?1")?;
    let mut keys = transaction
        .prepare_cached("DELETE FROM request_keys WHERE request_key = ?1 AND id = ?2")?;
    for (id, key) in rows {
        finished.execute([id])?;
        if let Some(key) = key {
            keys.execute(params![key, id])?;
        }
    }
    Ok(())
}

impl From<ReadError> for JournalError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
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

    fn append(&self, entries: Vec<Entry>, forced: bool, durable: Durable) {
        let urgency = if forced { Urgency::Forced } else { Urgency::Unforced };
        let weight = entries.len();
        let exit = self.environment.exit.clone();
        let work = move |transaction: &Transaction<'_>| -> common_store::Completion {
            let written = entries.iter().try_for_each(|entry| write(transaction, entry));
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

    async fn find_key(
        &self,
        key: &str,
    ) -> Result<Option<(TransactionId, Fingerprint)>, JournalError> {
        let key = key.to_owned();
        let find = move |connection: &Connection| {
            connection
                .prepare_cached("SELECT id, fingerprint FROM request_keys WHERE request_key = ?1")?
                .query_row([key], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?)))
                .optional()
        };
        let found = self.store.read(find).await?;
        Ok(found.map(|(id, fingerprint)| (TransactionId::from_bytes(id), fingerprint)))
    }

    async fn find(&self, id: TransactionId) -> Result<Option<Stored>, JournalError> {
        let find = move |connection: &Connection| {
            let mut found = list(
                connection,
                "SELECT id, begin, decision, NULL FROM unfinished WHERE id = ?1
                 UNION ALL SELECT id, NULL, decision, end FROM finished WHERE id = ?1",
                [id.as_bytes()],
            )?;
            Ok(found.pop())
        };
        Ok(self.store.read(find).await?)
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
                "SELECT id, NULL, decision, end FROM finished WHERE id < ?1
                 ORDER BY id DESC LIMIT ?2",
                params![before.as_bytes(), limit as i64],
            )
        };
        Ok(self.store.read(find).await?)
    }

    async fn unfinished(&self) -> Result<Vec<Stored>, JournalError> {
        let find = |connection: &Connection| {
            list(connection, "SELECT id, begin, decision, NULL FROM unfinished ORDER BY id", [])
        };
        Ok(self.store.read(find).await?)
    }

    async fn newest(&self) -> Result<Option<TransactionId>, JournalError> {
        let find = |connection: &Connection| {
            connection.query_row(
                "SELECT max(ifnull((SELECT max(id) FROM finished), x''),
                            ifnull((SELECT max(id) FROM unfinished), x''))",
                [],
                |row| Ok(TransactionId::from_slice(row.get_ref(0)?.as_blob()?)),
            )
        };
        Ok(self.store.read(find).await?)
    }

    async fn register(&self, registration: Registration) -> Result<(), JournalError> {
        let write = move |transaction: &Transaction<'_>| {
            let Registration { name, address, asks } = registration;
            let sql = "INSERT OR REPLACE INTO participants VALUES (?1, ?2, ?3)";
            transaction.execute(sql, params![name, address, asks]).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn registered(&self) -> Result<Vec<Registration>, JournalError> {
        let find = |connection: &Connection| {
            let mut select = connection.prepare("SELECT name, address, asks FROM participants")?;
            let rows = select.query_map([], |row| {
                Ok(Registration { name: row.get(0)?, address: row.get(1)?, asks: row.get(2)? })
            })?;
            rows.collect()
        };
        Ok(self.store.read(find).await?)
    }

    async fn forget(&self, retention: Retention, limit: usize) -> Result<usize, JournalError> {
        let find = move |connection: &Connection| forgettable(connection, retention, limit);
        let rows = self.store.read(find).await?;
        let count = rows.len();
        if count == 0 {
            return Ok(0);
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let work = move |transaction: &Transaction<'_>| -> common_store::Completion {
            let forgotten = forget(transaction, &rows);
            Box::new(move |committed: Result<(), WriteError>| {
                let forgotten = forgotten.map_err(|error| JournalError::Failed(error.to_string()));
                let _ = answer.send(committed.map_err(JournalError::from).and(forgotten));
            })
        };
        self.store.submit(Urgency::Unforced, count, Box::new(work));
        answered.await.unwrap_or_else(|_| Err(WriteError::Closed.into()))?;
        Ok(count)
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
        "the journal cannot take a record; stopping, as what was decided must not be acted on \
         before it is durable. Free disk space or mend the disk, then start again"
    );
    exit(Exit::Storage);
}
