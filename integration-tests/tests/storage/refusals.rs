//! Starts that cannot be: each ends with its code and says what would be right.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use integration_tests::{Addresses, Binaries, Process, Role, Start};
use rusqlite::Connection;
use tempfile::TempDir;

const CONFIGURATION: i32 = 2;
const NOT_A_JOURNAL: i32 = 65;
const PORT_IN_USE: i32 = 69;

fn process(role: Role, folder: &Path, address: SocketAddr) -> Process {
    Process::new(role.name(), &Binaries::test().unwrap().path(role), folder, address)
}

/// Starts it; it ends with the code and has said all of `words`.
async fn refuses(mut process: Process, start: Start, code: i32, words: &[&str]) {
    process.spawn(start).unwrap();
    let status = process.wait_exit().await.unwrap();
    assert_eq!(status.code(), Some(code), "{}", process.log());
    for word in words {
        assert!(process.log().contains(word), "'{word}' is missing in:\n{}", process.log());
    }
}

async fn refuses_the_file(role: Role, folder: &TempDir, words: &[&str]) {
    let address = Addresses::pick().coordinator;
    let database = folder.path().join(format!("{}.db", role.name()));
    let before = fs::read(&database).unwrap();
    let process = process(role, folder.path(), address);
    refuses(process, Start::new(), NOT_A_JOURNAL, words).await;
    assert_eq!(fs::read(&database).unwrap(), before, "the file was touched");
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_refused_and_left_alone() {
    for role in Role::ALL {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{}.db", role.name()));
        fs::write(&file, "Dear diary, today I was not a database.").unwrap();
        refuses_the_file(
            role,
            &folder,
            &["is no journal of this software", "not a SQLite database"],
        )
        .await;
        fs::remove_file(&file).unwrap();
        Connection::open(&file).unwrap().execute_batch("CREATE TABLE diary (day TEXT)").unwrap();
        refuses_the_file(role, &folder, &["is no journal of this software", "another program"])
            .await;
    }
}

#[tokio::test]
async fn another_services_journal_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut inventory = process(Role::Inventory, folder.path(), Addresses::pick().inventory);
    inventory.start().await.unwrap();
    assert!(inventory.stop().await.unwrap().success());
    let journal = folder.path().join("coordinator.db");
    fs::copy(inventory.database(), journal).unwrap();
    let words = ["is the journal of 'inventory'", "this is 'coordinator'"];
    refuses_the_file(Role::Coordinator, &folder, &words).await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    for role in Role::ALL {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let port = format!("port {}", address.port());
        let process = process(role, folder.path(), address);
        refuses(process, Start::new(), PORT_IN_USE, &[&port, "in use", "--listen"]).await;
    }
}

#[tokio::test]
async fn a_bad_flag_or_variable_is_refused_with_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let address = Addresses::pick().coordinator;
    for role in Role::ALL {
        for (start, words) in [
            (Start::new().arg("--colour"), ["--colour", "--help"]),
            (Start::new().arg("--retention").arg("soon"), ["'soon'", "500ms"]),
            (Start::new().env("DTC_DRAIN_TIMEOUT", "later"), ["'later'", "500ms"]),
            (Start::new().arg("--log").arg("info,x=loud"), ["loud", "info,coordinator=debug"]),
        ] {
            let process = process(role, folder.path(), address);
            refuses(process, start, CONFIGURATION, &words).await;
        }
    }
    let participant = Start::new().arg("--participant").arg("inventory=127.0.0.1:7101");
    let coordinator = process(Role::Coordinator, folder.path(), address);
    refuses(coordinator, participant, CONFIGURATION, &["127.0.0.1:7101", "http://"]).await;
    let coordinator = Start::new().arg("--coordinator").arg("nowhere");
    let payment = process(Role::Payment, folder.path(), address);
    refuses(payment, coordinator, CONFIGURATION, &["nowhere", "http://host:port"]).await;
}
