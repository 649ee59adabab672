//! Opening a file: is it ours, is it whole, whose run is it now?

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    Damaged, OpenError, Options, check_pages,
    identity::{self, APPLICATION_ID, FORMAT, Identity, Starts},
    log, place,
    service_time::{self, Written},
};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENTS: usize = 128;
/// Of pages, in KiB. What is used is at the right edges of the trees; and at every
/// commit after a page was split, SQLite walks through all of the cache.
const CACHE: i32 = 8 << 10;

/// A file that a run begins with.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) identity: Identity,
    pub(crate) starts: Starts,
    pub(crate) service_time: Written,
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<Opened, OpenError> {
    let sqlite = |action| move |cause| refused(action, path, cause);
    check_header(path)?;
    log::check(path)?;
    place::secure_files(path)?;
    let connection = Connection::open(path).map_err(sqlite("cannot open"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite("cannot set up"))?;
    let is_new = check_mark(&connection, path, sqlite)?;
    configure(&connection).map_err(sqlite("cannot set up"))?;
    truncate_log(&connection, path).map_err(sqlite("cannot checkpoint"))??;

    let creating = "cannot create the tables of";
    let begin = |action| {
        Transaction::new_unchecked(&connection, TransactionBehavior::Immediate)
            .map_err(sqlite(action))
    };
    if is_new {
        let transaction = begin(creating)?;
        identity::create(&transaction, options).map_err(sqlite(creating))?;
        transaction.commit().map_err(sqlite(creating))?;
    }
    let starting = "cannot begin a new run in";
    let transaction = begin(starting)?;
    check_role(&transaction, path, options, sqlite)?;
    transaction.execute_batch(options.schema).map_err(sqlite(creating))?;
    for table in ["meta", "starts", "service_time"] {
        check_pages(&transaction, table).map_err(sqlite("cannot read"))?;
    }
    let identity = identity::start(&transaction, options).map_err(sqlite(starting))?;
    let starts = identity::starts(&transaction).map_err(sqlite(starting))?;
    let service_time = service_time::read(&transaction).map_err(sqlite(starting))?;
    transaction.commit().map_err(sqlite(starting))?;
    if is_new {
        // So that the file itself tells what it is, to whoever looks at it or copies it.
        truncate_log(&connection, path).map_err(sqlite("cannot checkpoint"))??;
    }
    Ok(Opened { connection, identity, starts, service_time })
}

/// In words for the one who starts the service.
fn refused(action: &'static str, path: &Path, cause: rusqlite::Error) -> OpenError {
    match cause.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            OpenError::Busy { path: path.into() }
        }
        Some(ErrorCode::NotADatabase) => {
            OpenError::NotAJournal { path: path.into(), found: cause.to_string() }
        }
        _ => match Damaged::of(&cause) {
            Some(damaged) => OpenError::Damaged { path: path.into(), damaged },
            None => OpenError::Sqlite { action, path: path.into(), cause },
        },
    }
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// A connection for checkpoints.
pub(crate) fn open_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(100))?;
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // FULL comes first: it is what makes the checkpoint sync.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let message = format!("this file system gives journal mode '{mode}', not 'wal'");
        return Err(rusqlite::Error::SqliteFailure(code, Some(message)));
    }
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

fn truncate_log(connection: &Connection, path: &Path) -> rusqlite::Result<Result<(), OpenError>> {
    let busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(if busy { Err(OpenError::Busy { path: path.into() }) } else { Ok(()) })
}

/// Looks at the first bytes, so that a stranger's file is not even opened.
fn check_header(path: &Path) -> Result<(), OpenError> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let io = |cause| OpenError::Io { action: "cannot read", path: path.into(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let mut header = Vec::new();
    file.take(16).read_to_end(&mut header).map_err(io)?;
    if header == MAGIC {
        return Ok(());
    }
    if header.is_empty() {
        return check_log_of_nothing(path);
    }
    Err(OpenError::NotAJournal { path: path.into(), found: "it is not a SQLite database".into() })
}

/// SQLite would throw away the log of an empty file.
fn check_log_of_nothing(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(place::beside(path, "-wal")) {
        Ok(log) if log.len() > 0 => {
            let found = format!(
                "it is empty, but its write-ahead log has {} bytes: it was cut off",
                log.len()
            );
            Err(OpenError::NotAJournal { path: path.into(), found })
        }
        _ => Ok(()),
    }
}

/// True for a file in which nothing is yet.
fn check_mark<E: Fn(rusqlite::Error) -> OpenError>(
    connection: &Connection,
    path: &Path,
    sqlite: impl Fn(&'static str) -> E,
) -> Result<bool, OpenError> {
    let read = |sql: &str| {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(sqlite("cannot read"))
    };
    let mark = read("PRAGMA application_id")?;
    if mark == 0 && read("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(true);
    }
    if mark != i64::from(APPLICATION_ID) {
        let found = format!("it is a SQLite database of another program (application id {mark})");
        return Err(OpenError::NotAJournal { path: path.into(), found });
    }
    match read("PRAGMA user_version")? {
        FORMAT => Ok(false),
        found => Err(OpenError::WrongFormat { path: path.into(), found, expected: FORMAT }),
    }
}

fn check_role<E: Fn(rusqlite::Error) -> OpenError>(
    connection: &Connection,
    path: &Path,
    options: &Options,
    sqlite: impl Fn(&'static str) -> E,
) -> Result<(), OpenError> {
    match identity::role(connection).map_err(sqlite("cannot read"))? {
        Some(role) if role == options.role => Ok(()),
        Some(found) => {
            Err(OpenError::WrongRole { path: path.into(), found, expected: options.role })
        }
        None => {
            let found = "its identity is missing".into();
            Err(OpenError::NotAJournal { path: path.into(), found })
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_sqlite_refuses_is_told_from_what_is_no_journal_and_from_damage() {
        let path = Path::new("some.db");
        let error = |code| {
            let cause = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            refused("cannot open", path, cause)
        };
        assert!(matches!(error(ffi::SQLITE_BUSY), OpenError::Busy { .. }));
        assert!(matches!(error(ffi::SQLITE_LOCKED), OpenError::Busy { .. }));
        assert!(matches!(error(ffi::SQLITE_NOTADB), OpenError::NotAJournal { .. }));
        assert!(matches!(error(ffi::SQLITE_CORRUPT), OpenError::Damaged { .. }));
        assert!(matches!(error(ffi::SQLITE_IOERR), OpenError::Sqlite { .. }));
    }

    #[test]
    fn a_connection_syncs_at_every_commit_and_checkpoints_by_itself_never() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("some.db")).unwrap();
        configure(&connection).unwrap();
        let setting = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (full, memory) = (2, 2);
        assert_eq!(setting("synchronous").unwrap(), full);
        assert_eq!(setting("wal_autocheckpoint").unwrap(), 0);
        assert_eq!(setting("cache_size").unwrap(), -8192, "KiB");
        assert_eq!(setting("temp_store").unwrap(), memory);
    }

    #[test]
    fn a_log_that_another_program_reads_is_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let connection = Connection::open(&path).unwrap();
        configure(&connection).unwrap();
        connection.execute_batch("CREATE TABLE notes (note TEXT)").unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN; SELECT * FROM notes").unwrap();
        let busy = truncate_log(&connection, &path).unwrap();
        assert!(matches!(busy, Err(OpenError::Busy { .. })), "{busy:?}");
        other.execute_batch("COMMIT").unwrap();
        truncate_log(&connection, &path).unwrap().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        check_header(&path).expect("there is none");
        fs::write(&path, "").unwrap();
        check_header(&path).expect("nothing is in it");
        let below = check_header(&path.join("other.db"));
        assert!(matches!(below, Err(OpenError::Io { .. })), "{below:?}");
    }
}
