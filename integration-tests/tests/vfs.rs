//! The test VFS keeps what was synced, loses the rest, and fails on demand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use integration_tests::{power, vfs};
use rusqlite::{Connection, ErrorCode, ffi};
use tempfile::TempDir;

fn folder() -> TempDir {
    vfs::install();
    tempfile::tempdir().unwrap()
}

fn open(path: &Path, synchronous: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", synchronous).unwrap();
    connection
}

fn insert(connection: &Connection, numbers: std::ops::Range<i64>) -> rusqlite::Result<()> {
    for number in numbers {
        connection.execute("INSERT INTO t VALUES (?1)", [number])?;
    }
    Ok(())
}

/// What a machine finds that loses power now: the files with their shadows,
/// copied away and put in place there. (The process goes on here.)
fn after_power_loss(path: &Path) -> (TempDir, PathBuf) {
    let elsewhere = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), elsewhere.path().join(entry.file_name())).unwrap();
    }
    let path = elsewhere.path().join(path.file_name().unwrap());
    power::lose(&path).unwrap();
    (elsewhere, path)
}

fn numbers(path: &Path) -> Vec<i64> {
    let connection = Connection::open(path).unwrap();
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn commits_survive_power_loss() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let connection = open(&path, "FULL");
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    insert(&connection, 0..5).unwrap();
    assert_eq!(numbers(&after_power_loss(&path).1), (0..5).collect::<Vec<_>>());

    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
    assert_eq!(numbers(&after_power_loss(&path).1), (0..5).collect::<Vec<_>>());

    insert(&connection, 5..8).unwrap();
    let (_elsewhere, copy) = after_power_loss(&path);
    assert_eq!(numbers(&copy), (0..8).collect::<Vec<_>>());

    // The last connection's end deletes the WAL, and its shadow.
    drop(connection);
    assert_eq!(numbers(&after_power_loss(&path).1), (0..8).collect::<Vec<_>>());
    assert!(!folder.path().join("a.db-wal.synced").exists());
}

#[test]
fn what_was_not_synced_is_lost() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let connection = open(&path, "FULL");
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    insert(&connection, 0..5).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    insert(&connection, 5..10).unwrap();
    assert_eq!(numbers(&after_power_loss(&path).1), (0..5).collect::<Vec<_>>());

    // One sync brings everything before it.
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    insert(&connection, 10..11).unwrap();
    assert_eq!(numbers(&after_power_loss(&path).1), (0..11).collect::<Vec<_>>());
}

#[test]
fn checkpoints_in_the_middle_of_writing_lose_nothing() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let connection = open(&path, "FULL");
    connection.execute_batch("PRAGMA wal_autocheckpoint = 7; CREATE TABLE t (n)").unwrap();
    for round in 0..40 {
        insert(&connection, round * 5..round * 5 + 5).unwrap();
        let (_elsewhere, copy) = after_power_loss(&path);
        assert_eq!(numbers(&copy), (0..round * 5 + 5).collect::<Vec<_>>());
    }
}

#[test]
fn a_sync_that_fails_surfaces_as_an_error_of_the_commit() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let connection = open(&path, "FULL");
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    insert(&connection, 0..1).unwrap();
    fs::write(folder.path().join("a.db.fault"), "sync-error\n").unwrap();
    let error = insert(&connection, 1..2).unwrap_err();
    let rusqlite::Error::SqliteFailure(error, _) = error else { panic!("{error}") };
    assert_eq!(error.extended_code, ffi::SQLITE_IOERR_FSYNC);
    assert_eq!(numbers(&after_power_loss(&path).1), [0]);
}

#[test]
fn a_full_disk_surfaces_as_such() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let connection = open(&path, "FULL");
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    fs::write(folder.path().join("a.db.fault"), "write-full").unwrap();
    let error = insert(&connection, 0..1).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
    fs::remove_file(folder.path().join("a.db.fault")).unwrap();
    insert(&connection, 1..2).unwrap();
    assert_eq!(numbers(&after_power_loss(&path).1), [1]);
}

#[test]
fn what_an_earlier_process_left_unsynced_stays_so_until_a_sync() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let connection = open(&path, "FULL");
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    insert(&connection, 0..2).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    insert(&connection, 2..4).unwrap();

    // The files of a process that was killed here, in another folder, so that
    // this process knows nothing of them.
    let (later, copy) = after_power_loss(&path);
    for name in ["a.db", "a.db-wal"] {
        fs::copy(folder.path().join(name), later.path().join(name)).unwrap();
    }
    let second = open(&copy, "FULL");
    let count: i64 = second.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 4);
    assert_eq!(numbers(&after_power_loss(&copy).1), [0, 1]);
    insert(&second, 4..5).unwrap();
    assert_eq!(numbers(&after_power_loss(&copy).1), [0, 1, 2, 3, 4]);
}
