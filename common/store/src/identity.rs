//! Who a journal is, and in which run.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::Options;

/// Raised by one whenever the format of `meta` or `starts` changes.
pub(crate) const FORMAT: i64 = 1;

/// "DTCj": marks a SQLite file as ours.
pub(crate) const APPLICATION_ID: i32 = 0x4454_436A;

const SCHEMA: &str = "
    CREATE TABLE meta (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        role TEXT NOT NULL,
        store_id BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        incarnation BLOB NOT NULL
    );
    CREATE TABLE starts (epoch INTEGER PRIMARY KEY, incarnation BLOB NOT NULL);
";

/// The identity of a journal, and the run that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A UUID, made when the file is created.
    pub id: [u8; 16],
    /// Raised durably at every open, from 1.
    pub epoch: u64,
    /// Drawn at every open.
    pub incarnation: [u8; 16],
}

pub(crate) type Starts = HashMap<u64, [u8; 16]>;

/// Makes the tables of a new file.
pub(crate) fn create(transaction: &Transaction<'_>, options: &Options) -> rusqlite::Result<()> {
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.execute_batch(SCHEMA)?;
    transaction
        .execute(
            "INSERT INTO meta VALUES (1, ?1, ?2, 0, x'')",
            params![options.role, draw(options)],
        )
        .map(drop)
}

/// The role that the file was made for.
pub(crate) fn role(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT role FROM meta", [], |row| row.get(0)).optional()
}

/// Begins a new run: the epoch is raised, an incarnation drawn.
pub(crate) fn start(
    transaction: &Transaction<'_>,
    options: &Options,
) -> rusqlite::Result<Identity> {
    let incarnation = draw(options);
    let (id, epoch) = transaction.query_row(
        "UPDATE meta SET epoch = epoch + 1, incarnation = ?1 RETURNING store_id, epoch",
        [incarnation],
        |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)),
    )?;
    transaction.execute("INSERT INTO starts VALUES (?1, ?2)", params![epoch, incarnation])?;
    Ok(Identity { id, epoch: epoch.cast_unsigned(), incarnation })
}

/// A UUIDv4.
fn draw(options: &Options) -> [u8; 16] {
    uuid::Builder::from_random_bytes((options.random)()).into_uuid().into_bytes()
}

pub(crate) fn starts(connection: &Connection) -> rusqlite::Result<Starts> {
    let mut statement = connection.prepare("SELECT epoch, incarnation FROM starts")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, [u8; 16]>(1)?))
    })?;
    rows.collect()
}

/// The epoch that the file is in, and whether that is this run.
pub(crate) fn current(
    connection: &Connection,
    identity: &Identity,
) -> rusqlite::Result<(u64, bool)> {
    connection.prepare_cached("SELECT epoch, incarnation FROM meta")?.query_row([], |row| {
        let epoch = row.get::<_, i64>(0)?.cast_unsigned();
        let incarnation: [u8; 16] = row.get(1)?;
        Ok((epoch, epoch == identity.epoch && incarnation == identity.incarnation))
    })
}
