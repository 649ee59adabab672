use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{place::beside, *};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS notes (note TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS parents (id INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS children (
        parent INTEGER NOT NULL REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED
    );
";

fn options() -> Options {
    Options { role: "test", schema: SCHEMA, ..Options::default() }
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").join("test.db");
    (folder, path)
}

fn add(note: &'static str) -> impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<usize> {
    move |transaction| transaction.execute("INSERT INTO notes VALUES (?1)", [note])
}

fn notes(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT note FROM notes ORDER BY rowid")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// Submits a note, and tells `done` when it is durable.
fn submit(store: &Store, urgency: Urgency, note: &'static str, done: &mpsc::Sender<&'static str>) {
    let done = done.clone();
    let work: Work = Box::new(move |transaction| {
        add(note)(transaction).unwrap();
        Box::new(move |durable| {
            durable.unwrap();
            let _ = done.send(note);
        })
    });
    store.submit(urgency, 1, work);
}

/// Options that note the failure instead of ending the process.
fn noting() -> (Options, Arc<Mutex<Vec<String>>>) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&failures);
    let on_failure =
        FailStop::new(move |failure| noted.lock().unwrap().push(format!("{failure:?}")));
    (Options { on_failure, ..options() }, failures)
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test]
async fn the_identity_stays_and_the_epoch_rises() {
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    let first = store.identity().clone();
    assert_eq!(first.epoch, 1);
    store.write(add("kept")).await.unwrap();
    store.close().await;

    let store = Store::open(&path, options()).unwrap();
    let second = store.identity().clone();
    assert_eq!((second.id, second.epoch), (first.id, 2));
    assert_ne!(second.incarnation, first.incarnation);
    assert!(store.was_mine(1, &first.incarnation) && store.was_mine(2, &second.incarnation));
    assert!(!store.was_mine(1, &second.incarnation) && !store.was_mine(3, &first.incarnation));
    assert_eq!(store.read(notes).await.unwrap(), ["kept"]);
    store.close().await;
}

#[tokio::test]
async fn a_file_from_a_backup_begins_above_all_runs_since_and_says_so_for_good() {
    let (_folder, path) = place();
    Store::open(&path, options()).unwrap().close().await;
    let restored = Options { restored: true, ..options() };
    let store = Store::open(&path, restored).unwrap();
    let epoch = 1 + RESTORED_EPOCHS;
    assert_eq!((store.identity().epoch, store.identity().restored_at), (epoch, epoch));
    store.close().await;
    let store = Store::open(&path, options()).unwrap();
    assert_eq!((store.identity().epoch, store.identity().restored_at), (epoch + 1, epoch));
    assert!(!store.was_mine(epoch, &store.identity().incarnation));
    store.close().await;
}

#[tokio::test]
async fn one_process_holds_a_file_and_the_next_is_told_which() {
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    let error = Store::open(&path, options()).unwrap_err();
    assert!(matches!(error, OpenError::Held { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    store.close().await;
    Store::open(&path, options()).unwrap().close().await;
}

#[test]
fn a_strangers_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "shopping list").unwrap();
    let error = Store::open(&text, options()).unwrap_err();
    assert!(matches!(error, OpenError::NotAJournal { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "shopping list");

    let other = folder.path().join("other.db");
    let connection = Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    drop(connection);
    let before = std::fs::read(&other).unwrap();
    let error = Store::open(&other, options()).unwrap_err();
    assert!(matches!(error, OpenError::NotAJournal { .. }), "{error}");
    assert_eq!(std::fs::read(&other).unwrap(), before);
}

#[tokio::test]
async fn a_log_that_is_damaged_in_the_middle_is_refused() {
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    for _ in 0..5 {
        store.write(add("promised")).await.unwrap();
    }
    // As a crash would leave it.
    let copy = path.with_file_name("copy.db");
    let log_of = |path: &PathBuf| PathBuf::from(format!("{}-wal", path.display()));
    std::fs::copy(&path, &copy).unwrap();
    let mut log = std::fs::read(log_of(&path)).unwrap();
    log[100] ^= 1;
    std::fs::write(log_of(&copy), log).unwrap();
    let error = Store::open(&copy, options()).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains("copy.db-wal is damaged: frame 1"), "{error}");
    store.close().await;
}

#[tokio::test]
async fn another_services_journal_is_refused() {
    let (_folder, path) = place();
    Store::open(&path, options()).unwrap().close().await;
    let error = Store::open(&path, Options { role: "other", ..options() }).unwrap_err();
    assert!(error.to_string().contains("journal of 'test', this is 'other'"), "{error}");
}

#[tokio::test]
async fn work_that_fails_is_undone_alone() {
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    let failing = store.write(|transaction| {
        add("undone")(transaction)?;
        transaction.execute("INSERT INTO nowhere VALUES (1)", [])
    });
    let (failed, kept) = tokio::join!(failing, store.write(add("kept")));
    assert!(matches!(failed, Err(WriteError::Work(_))), "{failed:?}");
    kept.unwrap();
    assert_eq!(store.read(notes).await.unwrap(), ["kept"]);
    store.close().await;
}

#[tokio::test]
async fn unforced_work_rides_along_or_goes_after_its_time() {
    let (_folder, path) = place();
    let linger = Duration::from_millis(300);
    let store = Store::open(&path, Options { linger, ..options() }).unwrap();
    let (done, told) = mpsc::channel();

    let before = Instant::now();
    submit(&store, Urgency::Unforced, "first", &done);
    submit(&store, Urgency::Forced, "second", &done);
    let both = [told.recv().unwrap(), told.recv().unwrap()];
    assert_eq!(both, ["first", "second"]);
    assert!(before.elapsed() < linger);

    let before = Instant::now();
    submit(&store, Urgency::Unforced, "third", &done);
    assert_eq!(told.recv().unwrap(), "third");
    assert!(before.elapsed() >= linger);

    submit(&store, Urgency::Unforced, "fourth", &done);
    store.close().await;
    assert_eq!(told.recv().unwrap(), "fourth");
}

#[tokio::test]
async fn a_batch_holds_what_is_queued_up_to_its_bound() {
    let (_folder, path) = place();
    let linger = Duration::from_secs(30);
    let store = Store::open(&path, Options { linger, max_batch: 10, ..options() }).unwrap();
    let (done, told) = mpsc::channel();
    for _ in 0..30 {
        submit(&store, Urgency::Unforced, "x", &done);
    }
    for _ in 0..30 {
        told.recv().unwrap();
    }
    let statistics = store.statistics();
    assert_eq!((statistics.syncs, statistics.jobs, statistics.largest_batch), (3, 30, 10));
    assert_eq!(statistics.batches[4], 3);
    store.close().await;
}

#[tokio::test]
async fn nothing_is_said_after_a_commit_that_failed() {
    let (_folder, path) = place();
    let (options, failures) = noting();
    let store = Store::open(&path, options).unwrap();
    // A deferred constraint makes COMMIT itself fail.
    let writing =
        store.write(|transaction| transaction.execute("INSERT INTO children VALUES (7)", []));
    let silent = tokio::time::timeout(Duration::from_millis(200), writing).await;
    assert!(silent.is_err(), "{silent:?}");
    let silent = tokio::time::timeout(Duration::from_millis(200), store.write(add("later"))).await;
    assert!(silent.is_err(), "{silent:?}");
    let silent = tokio::time::timeout(Duration::from_millis(200), store.read(notes)).await;
    assert!(silent.is_err(), "{silent:?}");
    let failures = failures.lock().unwrap();
    assert!(failures[0].starts_with("Commit"), "{failures:?}");
}

#[tokio::test]
async fn a_batch_that_sqlite_rolled_back_was_never_promised() {
    let (_folder, path) = place();
    let linger = Duration::from_secs(30);
    let store = Store::open(&path, Options { linger, ..options() }).unwrap();
    let (told, results) = mpsc::channel();
    let first = told.clone();
    let note: Work = Box::new(move |transaction| {
        add("neighbour")(transaction).unwrap();
        Box::new(move |durable| first.send(("neighbour", durable.is_ok())).unwrap())
    });
    store.submit(Urgency::Unforced, 1, note);
    // What SQLite does when the disk is full.
    let full: Work = Box::new(move |transaction| {
        transaction.execute_batch("ROLLBACK").unwrap();
        Box::new(move |durable| told.send(("full", durable.is_ok())).unwrap())
    });
    store.submit(Urgency::Forced, 1, full);
    assert_eq!(results.recv().unwrap(), ("neighbour", false));
    assert_eq!(results.recv().unwrap(), ("full", false));
    store.write(add("later")).await.unwrap();
    assert_eq!(store.read(notes).await.unwrap(), ["later"]);
    assert_eq!(store.statistics().rolled_back, 1);
    store.close().await;
}

#[tokio::test]
async fn a_run_that_was_replaced_commits_nothing_more() {
    let (_folder, path) = place();
    let (options, failures) = noting();
    let store = Store::open(&path, options).unwrap();
    store.write(add("before")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE meta SET epoch = epoch + 1", []).unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(200), store.write(add("after"))).await;
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(notes(&other).unwrap(), ["before"]);
    let failures = failures.lock().unwrap();
    assert!(failures[0].starts_with("Fenced"), "{failures:?}");
}

#[tokio::test]
async fn work_that_panics_stops_the_store() {
    let (_folder, path) = place();
    let (options, failures) = noting();
    let store = Store::open(&path, options).unwrap();
    store.submit(Urgency::Forced, 1, Box::new(|_| panic!("a bug")));
    wait_for("the failure", || !failures.lock().unwrap().is_empty());
    assert!(failures.lock().unwrap()[0].contains("a bug"));
}

#[tokio::test]
async fn the_log_stays_within_its_limit() {
    let (_folder, path) = place();
    let limit = 8 << 20;
    let store = Store::open(&path, Options { wal_limit: limit, ..options() }).unwrap();
    let mut longest = 0;
    for _ in 0..40 {
        let big = "x".repeat(1 << 20);
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            transaction.execute("INSERT INTO notes VALUES (?1)", [big])
        };
        store.write(work).await.unwrap();
        longest = longest.max(store.statistics().wal_bytes);
    }
    assert!(longest < limit + (2 << 20), "{longest}");
    assert!(store.statistics().checkpoints > 0);
    store.close().await;
    let log = PathBuf::from(format!("{}-wal", path.display()));
    assert!(std::fs::metadata(log).map_or(0, |log| log.len()) == 0);
}

#[tokio::test]
async fn under_constant_work_the_log_begins_anew_in_its_place() {
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let mut longest = 0;
    for _ in 0..400 {
        let note = "x".repeat(100 << 10);
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            transaction.execute("INSERT INTO notes VALUES (?1)", [note])
        };
        store.write(work).await.unwrap();
        longest = longest.max(store.statistics().wal_bytes);
    }
    assert!(longest < 14 << 20, "{longest}");
    assert!(std::fs::metadata(&log).unwrap().len() >= longest, "it was cut");
    store.close().await;
}

#[tokio::test]
async fn a_disk_that_is_too_full_is_told() {
    let (_folder, path) = place();
    let store = Store::open(&path, Options { min_free: u64::MAX, ..options() }).unwrap();
    assert!(!store.has_room());
    store.close().await;
    let store = Store::open(&path, Options { min_free: 0, ..options() }).unwrap();
    assert!(store.has_room());
    store.close().await;
    assert!(matches!(store.write(add("late")).await, Err(WriteError::Closed)));
}

/// What is committed into a file that is gone is not reported, though SQLite says
/// that all is well, and however soon after the loss.
#[tokio::test]
async fn nothing_is_durable_in_a_file_that_is_not_at_its_path() {
    let gone = |suffix: &'static str| move |path: &Path| std::fs::remove_file(beside(path, suffix));
    let replaced = |path: &Path| {
        std::fs::rename(path, beside(path, ".moved"))?;
        std::fs::copy(beside(path, ".moved"), path).map(drop)
    };
    let folder_moved = |path: &Path| {
        let folder = path.parent().unwrap();
        std::fs::rename(folder, folder.with_file_name("moved"))
    };
    type Lose = Box<dyn Fn(&Path) -> std::io::Result<()>>;
    let losses: [(&str, Lose); 5] = [
        ("the database", Box::new(gone(""))),
        ("the log", Box::new(gone("-wal"))),
        ("a copy in the database's place", Box::new(replaced)),
        ("the folder, moved", Box::new(folder_moved)),
        (
            "the folder, deleted",
            Box::new(|path: &Path| std::fs::remove_dir_all(path.parent().unwrap())),
        ),
    ];
    for (name, lose) in losses {
        let (_folder, path) = place();
        let (options, failures) = noting();
        let store = Store::open(&path, options).unwrap();
        store.write(add("kept")).await.unwrap();
        lose(&path).unwrap();
        let write = tokio::time::timeout(Duration::from_millis(200), store.write(add("lost")));
        assert!(write.await.is_err(), "{name}: reported durable");
        wait_for("the failure", || !failures.lock().unwrap().is_empty());
        let failure = failures.lock().unwrap()[0].clone();
        assert!(failure.starts_with("Displaced"), "{name}: {failure}");
    }
}

/// Nobody has to write for it.
#[tokio::test]
async fn a_lost_file_is_noticed_by_a_store_that_is_idle() {
    for suffix in ["", "-wal", "-shm"] {
        let (_folder, path) = place();
        let (options, failures) = noting();
        let store = Store::open(&path, options).unwrap();
        std::fs::remove_file(beside(&path, suffix)).unwrap();
        wait_for("the failure", || !failures.lock().unwrap().is_empty());
        let failure = failures.lock().unwrap()[0].clone();
        assert!(failure.starts_with("Displaced"), "{suffix}: {failure}");
        drop(store);
    }
}

/// With nobody who writes, and without the lock file that would have kept it out.
#[tokio::test]
async fn a_run_that_was_replaced_stops_though_it_is_idle() {
    let (_folder, path) = place();
    let (options, failures) = noting();
    let first = Store::open(&path, options).unwrap();
    std::fs::remove_file(beside(&path, ".lock")).unwrap();
    let second = Store::open(&path, self::options()).unwrap();
    wait_for("the failure", || !failures.lock().unwrap().is_empty());
    let failure = failures.lock().unwrap()[0].clone();
    assert!(failure.starts_with("Fenced"), "{failure}");
    drop((first, second));
}

#[tokio::test]
async fn files_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    store.close().await;
}

#[tokio::test]
async fn an_identity_that_nobody_wrote_is_damage() {
    for (change, place) in [
        ("UPDATE meta SET store_id = zeroblob(16)", "table meta, row 1, column checksum"),
        ("UPDATE starts SET incarnation = zeroblob(16)", "table starts, row 1, column checksum"),
        ("UPDATE starts SET restored = 1", "table starts, row 1, column checksum"),
        ("DELETE FROM starts", "table meta, row 1, column epoch"),
    ] {
        let (_folder, path) = place_of_a_store().await;
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let error = Store::open(&path, options()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{change}: {error}");
        assert!(error.to_string().contains(place), "{change}: {error}");
    }
}

/// Of a store that was opened once.
async fn place_of_a_store() -> (TempDir, PathBuf) {
    let (folder, path) = place();
    Store::open(&path, options()).unwrap().close().await;
    (folder, path)
}

#[test]
fn what_only_looks_like_a_database_is_not_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let bytes = [&b"SQLite format 3\0"[..], &[255; 4096]].concat();
    std::fs::write(&path, &bytes).unwrap();
    let error = Store::open(&path, options()).unwrap_err();
    assert!(matches!(error, OpenError::NotAJournal { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn who_holds_a_file_may_be_unknown() {
    let (_folder, path) = place();
    let store = Store::open(&path, options()).unwrap();
    std::fs::write(crate::place::beside(&path, ".lock"), "").unwrap();
    let error = Store::open(&path, options()).unwrap_err().to_string();
    assert!(error.contains("which one is unknown"), "{error}");
    store.close().await;
}

#[tokio::test]
async fn an_empty_file_beside_a_log_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let log = crate::place::beside(&path, "-wal");
    std::fs::write(&path, "").unwrap();
    std::fs::write(&log, "something").unwrap();
    let error = Store::open(&path, options()).unwrap_err();
    assert!(matches!(error, OpenError::NotAJournal { .. }), "{error}");
    assert!(error.to_string().contains("it was cut off"), "{error}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "something");
    std::fs::write(&log, "").unwrap();
    Store::open(&path, options()).unwrap().close().await;
}
