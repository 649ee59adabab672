//! Files that hold what nobody wrote: a start either refuses, with file, table
//! and row, or loses nothing.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AcquireLocksRequest, Lock, TransactionState, lock_service_client::LockServiceClient,
};
use integration_tests::{
    Fixture,
    Role::{self, Coordinator, Inventory},
    Start, channel, eventually,
};
use rusqlite::{Connection, params_from_iter, types::Value};

const DAMAGED: i32 = 65;

/// A shop with a committed order whose inventory has not been told, and one that
/// is prepared, and a client that holds a lock; the coordinator and inventory are stopped by SIGKILL.
async fn unfinished() -> (Fixture, String) {
    let mut fixture = Fixture::start().await.unwrap();
    fixture.cluster.inventory.pause().unwrap();
    fixture.cluster.inventory.resume().unwrap();
    let decided = fixture.prepare("decided").await.unwrap();
    let prepared = fixture.prepare("prepared").await.unwrap();
    let locks = vec![Lock { key: "a".into(), ..Lock::default() }];
    let request = AcquireLocksRequest { locks, ..AcquireLocksRequest::default() };
    let coordinator = channel(fixture.cluster.coordinator.address());
    LockServiceClient::new(coordinator).acquire(request).await.unwrap();
    fixture.cluster.inventory.kill();
    assert!(fixture.commit(&decided).await.unwrap().committed);
    fixture.cluster.coordinator.kill();
    assert_ne!(decided, prepared);
    (fixture, decided)
}

/// What is done to a column.
fn damage(value: &Value) -> Vec<Value> {
    let mut all = vec![Value::Text("not what it was".into()), Value::Blob(vec![0xff; 7])];
    match value {
        Value::Blob(bytes) => {
            let mut flipped = bytes.clone();
            if let Some(byte) = flipped.last_mut() {
                *byte ^= 0x40;
                all.push(Value::Blob(flipped));
                all.push(Value::Blob(bytes[..bytes.len() / 2].to_vec()));
            }
            all.push(Value::Blob(Vec::new()));
        }
        Value::Integer(number) => {
            all.extend([Value::Integer(!number), Value::Integer(number ^ 1 << 40)]);
        }
        _ => {}
    }
    all
}

/// The first row of a table: its columns' names and values.
fn first_row(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, Value)>> {
    let mut select = connection.prepare(&format!("SELECT * FROM {table} LIMIT 1"))?;
    let names: Vec<String> = select.column_names().map(Into::into).collect();
    select.query_row([], |row| {
        names.iter().enumerate().map(|(index, name)| Ok((name.clone(), row.get(index)?))).collect()
    })
}

/// Copies a stopped process's database, its log included.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for suffix in ["", "-wal"] {
        let with = |path: &Path| format!("{}{suffix}", path.display());
        match fs::metadata(with(from)) {
            Ok(_) => drop(fs::copy(with(from), with(to))?),
            Err(_) => drop(fs::remove_file(with(to))),
        }
    }
    Ok(())
}

/// Starts a process that refuses its file, and returns what it said last.
async fn refusal(fixture: &mut Fixture, role: Role) -> anyhow::Result<String> {
    let process = fixture.cluster.process(role);
    let before = process.log().len();
    process.spawn(Start::new())?;
    let status = process.wait_exit().await?;
    let said = process.log()[before..].to_owned();
    ensure!(status.code() == Some(DAMAGED), "{role:?} ended with {status}:\n{said}");
    ensure!(!said.contains("panicked"), "{said}");
    let last = said.lines().last().context("it said nothing")?;
    Ok(last.into())
}

/// Columns that are no part of what was promised or decided: for people, or
/// checked elsewhere.
const HARMLESS: [&str; 2] = ["prepared_at", "request_key"];

/// Damages each column of a table's first row in each way, and tries to start.
async fn refuses_each_column(fixture: &mut Fixture, role: Role, table: &str) {
    let database = fixture.cluster.process(role).database();
    let good = database.with_extension("good");
    // The log is checkpointed when the only connection closes.
    let columns = first_row(&Connection::open(&database).unwrap(), table).unwrap();
    copy(&database, &good).unwrap();
    for (column, value) in &columns {
        if *value == Value::Null || HARMLESS.contains(&column.as_str()) {
            continue;
        }
        for bad in damage(value) {
            if bad == *value {
                continue;
            }
            copy(&good, &database).unwrap();
            {
                let connection = Connection::open(&database).unwrap();
                connection.pragma_update(None, "ignore_check_constraints", true).unwrap();
                let key = &columns[0];
                let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {} = ?2", key.0);
                let changed = connection.execute(&sql, params_from_iter([&bad, &key.1]));
                // A column of integers takes nothing else, as a key.
                if changed.is_err() {
                    continue;
                }
            }
            let said = refusal(fixture, role).await;
            let said = said.unwrap_or_else(|error| panic!("{table}.{column} = {bad:?}: {error}"));
            let file = database.file_name().unwrap().to_str().unwrap();
            let is_row = said.contains(&format!("table {table}")) && said.contains("row ");
            let is_table = said.contains("constraint") || said.contains("is the journal of 'not");
            let is_named = said.contains(file) && (is_row || is_table);
            assert!(is_named, "{table}.{column} = {bad:?}: {said}");
        }
    }
    copy(&good, &database).unwrap();
}

#[tokio::test]
async fn a_coordinators_damaged_row_is_named_and_not_acted_on() {
    let (mut fixture, decided) = unfinished().await;
    for table in ["unfinished", "locks", "meta", "starts"] {
        refuses_each_column(&mut fixture, Coordinator, table).await;
    }
    // As it was, all is as it was.
    fixture.cluster.start_all().await.unwrap();
    fixture.comes_to(&decided, TransactionState::Committed).await.unwrap();
    eventually("the other one is rolled back", async || fixture.check_sold(1).await).await.unwrap();
}

#[tokio::test]
async fn a_participants_damaged_row_is_named_and_not_acted_on() {
    let (mut fixture, decided) = unfinished().await;
    for table in ["undecided", "coordinators", "meta", "starts"] {
        refuses_each_column(&mut fixture, Inventory, table).await;
    }
    fixture.cluster.start_all().await.unwrap();
    fixture.comes_to(&decided, TransactionState::Committed).await.unwrap();
    eventually("the other one is rolled back", async || fixture.check_sold(1).await).await.unwrap();
}

#[tokio::test]
async fn damaged_pages_are_found_before_anything_is_said() {
    let (mut fixture, decided) = unfinished().await;
    for (role, table) in [(Coordinator, "unfinished"), (Inventory, "undecided")] {
        let database = fixture.cluster.process(role).database();
        let good = database.with_extension("good");
        let root: i64 = {
            let connection = Connection::open(&database).unwrap();
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            connection.query_row(sql, [table], |row| row.get(0)).unwrap()
        };
        copy(&database, &good).unwrap();
        let bytes = fs::read(&database).unwrap();
        let page = 4096 * usize::try_from(root - 1).unwrap();
        let noise = |at: usize, length: usize| {
            let mut bytes = bytes.clone();
            bytes[at..at + length].fill(0xa5);
            bytes
        };
        let cases = [
            ("the table's page is noise", noise(page, 4096)),
            ("its header is noise", noise(page, 8)),
            ("its rows are noise", noise(page + 3000, 1096)),
            ("the schema is noise", noise(100, 3996)),
            ("it is cut off", bytes[..page].to_vec()),
            ("half of it is cut off", bytes[..bytes.len() / 2].to_vec()),
        ];
        for (case, damaged) in cases {
            copy(&good, &database).unwrap();
            fs::write(&database, damaged).unwrap();
            let said = refusal(&mut fixture, role).await;
            let said = said.unwrap_or_else(|error| panic!("{role:?}, {case}: {error}"));
            assert!(said.contains(".db"), "{case}: {said}");
        }
        copy(&good, &database).unwrap();
        // An empty file whose log still holds everything.
        let log = database.with_extension("db-wal");
        fs::write(&log, &bytes).unwrap();
        fs::write(&database, b"").unwrap();
        let said = refusal(&mut fixture, role).await.unwrap();
        assert!(said.contains("write-ahead log"), "{said}");
        fs::remove_file(&log).unwrap();
        copy(&good, &database).unwrap();
    }
    fixture.cluster.start_all().await.unwrap();
    fixture.comes_to(&decided, TransactionState::Committed).await.unwrap();
    eventually("the other one is rolled back", async || fixture.check_sold(1).await).await.unwrap();
}

/// Met while it serves: only who names the key hears of it.
#[tokio::test]
async fn a_damaged_request_key_stops_only_those_that_name_it() {
    let mut fixture = Fixture::start().await.unwrap();
    let wait = Duration::from_secs(20);
    let request = |name: &str| Fixture::purchase(name).request_with_key(name, wait);
    for name in ["good", "bad"] {
        assert!(fixture.shop.execute(request(name)).await.unwrap().committed);
    }
    fixture.cluster.coordinator.stop().await.unwrap();
    {
        let connection = Connection::open(fixture.cluster.coordinator.database()).unwrap();
        let sql = "UPDATE request_keys SET id = x'0102' WHERE request_key = 'bad'";
        assert_eq!(connection.execute(sql, []).unwrap(), 1);
    }
    fixture.cluster.coordinator.start().await.unwrap();
    // At once, so that they are looked for together.
    let (bad, good, new) = tokio::join!(
        fixture.shop.execute(request("bad")),
        fixture.shop.execute(request("good")),
        fixture.shop.execute(request("new")),
    );
    let status = bad.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DataLoss, "{status}");
    for word in ["table request_keys", "row 'bad'", "restore the file from a backup"] {
        assert!(status.message().contains(word), "no '{word}' in: {status}");
    }
    assert!(good.unwrap().committed && new.unwrap().committed);
    fixture.shop.execute(request("bad")).await.unwrap_err();
    assert!(fixture.cluster.coordinator.is_running().unwrap());
    fixture.check_sold(3).await.unwrap();
}
