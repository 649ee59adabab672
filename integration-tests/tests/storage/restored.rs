//! A coordinator's journal that comes from a backup.

use std::{fs, path::Path};

use anyhow::ensure;
use dtc_proto::dtc::{Outcome, TransactionState};
use integration_tests::{Fixture, Role, Start, eventually};
use rusqlite::Connection;

use crate::PARTICIPANTS;

/// What sqlite3's VACUUM INTO makes of a journal in use.
fn back_up(fixture: &Fixture, to: &Path) {
    let connection = Connection::open(fixture.cluster.coordinator.database()).unwrap();
    connection.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

/// The coordinator's disk is gone, and the backup takes its place.
async fn restore(fixture: &mut Fixture, from: &Path, start: Start) -> anyhow::Result<()> {
    let database = fixture.cluster.coordinator.database();
    for suffix in ["", "-wal", "-shm", ".synced", "-wal.synced"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    fs::copy(from, database)?;
    fixture.cluster.coordinator.start_with(start).await
}

/// Branches that were answered 'not mine' since the coordinator was started.
async fn answered_not_mine(fixture: &Fixture) -> anyhow::Result<u64> {
    let log = fixture.cluster.coordinator.log();
    Ok(log.lines().filter(|line| line.contains("NotMine") || line.contains("not mine")).count()
        as u64)
}

#[tokio::test]
async fn what_a_backup_does_not_know_stays_in_doubt() {
    let mut fixture = Fixture::start().await.unwrap();
    assert!(fixture.shop.place(&Fixture::purchase("a")).await.unwrap().committed);
    let begun = fixture.prepare("b").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.db");
    back_up(&fixture, &backup);

    // In the same run: one whose begin is in the backup commits, one is begun and commits.
    let later = fixture.prepare("c").await.unwrap();
    fixture.cluster.payment.kill();
    for id in [&begun, &later] {
        assert!(fixture.commit(id).await.unwrap().committed);
    }
    for role in [Role::Inventory, Role::Order] {
        eventually("the others have committed", async || {
            ensure!(fixture.branches(role)? == (0, 3, 0), "not yet");
            Ok(())
        })
        .await
        .unwrap();
    }
    fixture.cluster.coordinator.kill();
    let start = Start::new().arg("--restored").env("RUST_LOG", "debug");
    restore(&mut fixture, &backup, start).await.unwrap();
    fixture.cluster.payment.start().await.unwrap();
    eventually("payment was answered about both", async || {
        ensure!(answered_not_mine(&fixture).await? >= 2, "{}", fixture.cluster.coordinator.log());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(fixture.branches(Role::Payment).unwrap(), (2, 1, 0), "in doubt, and no more");

    // What is not known is shown as that, and the flag's effect outlives it.
    let lost = fixture.comes_to(&begun, TransactionState::Aborted).await.unwrap();
    assert_eq!(lost.outcome(), Outcome::HeuristicHazard, "{lost:?}");
    assert_eq!(lost.abort_reason.unwrap().code, "RESTORED");
    fixture.shop.transaction(&later).await.unwrap_err();
    let start = Start::new().env("RUST_LOG", "debug");
    fixture.cluster.coordinator.kill();
    fixture.cluster.coordinator.start_with(start).await.unwrap();
    fixture.cluster.payment.restart().await.unwrap();
    for participant in PARTICIPANTS {
        fixture.linked(participant.name()).await.unwrap();
    }
    assert!(fixture.shop.place(&Fixture::purchase("d")).await.unwrap().committed);
    assert_eq!(fixture.branches(Role::Payment).unwrap(), (2, 2, 0), "in doubt, and no more");
}

#[tokio::test]
async fn a_restored_coordinator_is_above_all_that_participants_have_seen_at_once() {
    let mut fixture = Fixture::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.db");
    back_up(&fixture, &backup);
    for _ in 0..3 {
        fixture.cluster.coordinator.restart().await.unwrap();
        for participant in PARTICIPANTS {
            fixture.linked(participant.name()).await.unwrap();
        }
    }
    fixture.cluster.coordinator.kill();
    restore(&mut fixture, &backup, Start::new().arg("--restored")).await.unwrap();
    for participant in PARTICIPANTS {
        fixture.linked(participant.name()).await.unwrap();
    }
    assert!(fixture.shop.place(&Fixture::purchase("a")).await.unwrap().committed);
    fixture.check_sold(1).await.unwrap();
}
