//! Who a journal is, and in which run.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::{
    Options,
    damage::{CheckedRow, Damaged, checksum},
    service_time,
};

/// Raised by one whenever the format of a table changes.
pub(crate) const FORMAT: i64 = 7;

/// "DTCj": marks a SQLite file as ours.
pub(crate) const APPLICATION_ID: i32 = 0x4454_436A;

const SCHEMA: &str = "
    CREATE TABLE meta (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        role TEXT NOT NULL,
        store_id BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        incarnation BLOB NOT NULL,
        -- Of all the others.
        checksum INTEGER NOT NULL
    );
    CREATE TABLE starts (
        epoch INTEGER PRIMARY KEY, incarnation BLOB NOT NULL,
        -- Whether the file came from a backup.
        restored INTEGER NOT NULL, checksum INTEGER NOT NULL
    );
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
    /// The epoch of the last run that began with a backup; 0 for none. The journal may
    /// have lost what runs before it did.
    pub restored_at: u64,
}

/// How far a run that begins with a backup raises the epoch: further than runs can
/// have gone since the backup was taken.
pub const RESTORED_EPOCHS: u64 = 1 << 18;

/// Incarnations by their epochs.
pub(crate) type Starts = HashMap<u64, [u8; 16]>;

/// Makes the tables of a new file.
pub(crate) fn create(transaction: &Transaction<'_>, options: &Options) -> rusqlite::Result<()> {
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.execute_batch(SCHEMA)?;
    service_time::create(transaction)?;
    let (role, id) = (options.role, draw(options));
    let sum = of_meta(role, &id, 0, &[]);
    let sql = "INSERT INTO meta VALUES (1, ?1, ?2, 0, x'', ?3)";
    transaction.execute(sql, params![role, id, sum]).map(drop)
}

fn of_meta(role: &str, id: &[u8], epoch: i64, incarnation: &[u8]) -> u32 {
    checksum(&[role.as_bytes(), id, &epoch.to_le_bytes(), incarnation])
}

fn of_start(epoch: i64, incarnation: &[u8], restored: bool) -> u32 {
    checksum(&[&epoch.to_le_bytes(), incarnation, &[restored.into()]])
}

/// The role that the file was made for.
pub(crate) fn role(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT only, role FROM meta";
    connection.query_row(sql, [], |row| CheckedRow::new("meta", row, 1).get(1)).optional()
}

/// Begins a new run: the epoch is raised, an incarnation drawn.
pub(crate) fn start(
    transaction: &Transaction<'_>,
    options: &Options,
) -> rusqlite::Result<Identity> {
    let incarnation = draw(options);
    let (id, last) = last(transaction)?;
    let raise = if options.restored { RESTORED_EPOCHS } else { 1 };
    let epoch = last.checked_add_unsigned(raise).filter(|epoch| *epoch < i64::MAX);
    let epoch = epoch.ok_or_else(|| {
        let why = format!("it is {last}, and cannot be raised by {raise}");
        Damaged::new("meta", "1", "epoch", why)
    })?;
    let sum = of_meta(options.role, &id, epoch, &incarnation);
    let sql = "UPDATE meta SET epoch = ?1, incarnation = ?2, checksum = ?3";
    transaction.execute(sql, params![epoch, incarnation, sum])?;
    let sum = of_start(epoch, &incarnation, options.restored);
    let row = params![epoch, incarnation, options.restored, sum];
    transaction.execute("INSERT INTO starts VALUES (?1, ?2, ?3, ?4)", row)?;
    let sql = "SELECT ifnull(max(epoch), 0) FROM starts WHERE restored <> 0";
    let restored_at: i64 = transaction.query_row(sql, [], |row| row.get(0))?;
    let (epoch, restored_at) = (epoch.cast_unsigned(), restored_at.cast_unsigned());
    Ok(Identity { id, epoch, incarnation, restored_at })
}

/// The identity, and the epoch of the run before. An epoch that went back, or
/// jumped, would fence the wrong run.
fn last(transaction: &Transaction<'_>) -> rusqlite::Result<([u8; 16], i64)> {
    let sql = "SELECT only, role, store_id, epoch, incarnation, checksum,
                      (SELECT ifnull(max(epoch), 0) FROM starts) AS last_start FROM meta";
    transaction.query_row(sql, [], |row| {
        let row = CheckedRow::new("meta", row, 1);
        let (role, incarnation): (String, Vec<u8>) = (row.get(1)?, row.get(4)?);
        let (id, epoch, started): ([u8; 16], i64, i64) = (row.get(2)?, row.get(3)?, row.get(6)?);
        if row.get::<u32>(5)? != of_meta(&role, &id, epoch, &incarnation) {
            return Err(
                row.damaged(5, "checksum mismatch: the row's contents do not match its checksum")
            );
        }
        if epoch != started || !(0..i64::MAX).contains(&epoch) {
            let why = format!("it is {epoch}, and the last row of table starts has {started}");
            return Err(row.damaged(3, why));
        }
        Ok((id, epoch))
    })
}

/// A UUIDv4.
fn draw(options: &Options) -> [u8; 16] {
    uuid::Builder::from_random_bytes((options.random)()).into_uuid().into_bytes()
}

pub(crate) fn starts(connection: &Connection) -> rusqlite::Result<Starts> {
    let mut statement =
        connection.prepare("SELECT epoch, incarnation, checksum, restored FROM starts")?;
    let rows =
        statement.query_map([], |row| {
            let row = CheckedRow::new("starts", row, 1);
            let (epoch, incarnation): (i64, [u8; 16]) = (row.get(0)?, row.get(1)?);
            match row.get::<u32>(2)? == of_start(epoch, &incarnation, row.get(3)?) {
                true => Ok((epoch.cast_unsigned(), incarnation)),
                false => Err(row
                    .damaged(2, "checksum mismatch: the row's contents do not match its checksum")),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_goes_up_to_the_last_but_one_number_and_no_further() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        let options = Options { role: "test", ..Options::default() };
        create(&transaction, &options).unwrap();
        let first = start(&transaction, &options).unwrap();
        let late = i64::MAX - 2;
        let sum = of_meta("test", &first.id, late, &first.incarnation);
        let sql = "UPDATE meta SET epoch = ?1, checksum = ?2";
        transaction.execute(sql, params![late, sum]).unwrap();
        transaction.execute("UPDATE starts SET epoch = ?1", [late]).unwrap();
        assert_eq!(start(&transaction, &options).unwrap().epoch, late.cast_unsigned() + 1);
        let error = start(&transaction, &options).unwrap_err().to_string();
        assert!(error.contains("cannot be raised by 1"), "{error}");
    }
}
