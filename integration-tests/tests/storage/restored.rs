//! A coordinator's journal that comes from a backup.

use std::{fs, path::Path};

use anyhow::ensure;
use dtc_proto::dtc::{Outcome, TransactionState};
use integration_tests::{Role, Scene, Start, eventually};
use rusqlite::Connection;

use crate::PARTICIPANTS;

/// What sqlite3's VACUUM INTO makes of a journal in use.
fn back_up(scene: &Scene, to: &Path) {
    let connection = Connection::open(scene.cluster.coordinator.database()).unwrap();
    connection.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

/// The coordinator's disk is gone, and the backup takes its place.
async fn restore(scene: &mut Scene, from: &Path, start: Start) -> anyhow::Result<()> {
    let database = scene.cluster.coordinator.database();
    for suffix in ["", "-wal", "-shm", ".synced", "-wal.synced"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    fs::copy(from, database)?;
    scene.cluster.coordinator.start_with(start).await
}

/// Branches that were answered 'not mine' since the coordinator was started.
async fn answered_not_mine(scene: &Scene) -> anyhow::Result<u64> {
    let log = scene.cluster.coordinator.log();
    Ok(log.lines().filter(|line| line.contains("NotMine") || line.contains("not mine")).count()
        as u64)
}

#[tokio::test]
async fn what_a_backup_does_not_know_stays_in_doubt() {
    let mut scene = Scene::start().await.unwrap();
    assert!(scene.shop.place(&Scene::purchase("a")).await.unwrap().committed);
    let begun = scene.prepare("b").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.db");
    back_up(&scene, &backup);

    // In the same run: one whose begin is in the backup commits, one is begun and commits.
    let later = scene.prepare("c").await.unwrap();
    scene.cluster.payment.kill();
    for id in [&begun, &later] {
        assert!(scene.commit(id).await.unwrap().committed);
    }
    for role in [Role::Inventory, Role::Order] {
        eventually("the others have committed", async || {
            ensure!(scene.branches(role)? == (0, 3, 0), "not yet");
            Ok(())
        })
        .await
        .unwrap();
    }
    scene.cluster.coordinator.kill();
    let start = Start::new().arg("--restored").env("RUST_LOG", "debug");
    restore(&mut scene, &backup, start).await.unwrap();
    scene.cluster.payment.start().await.unwrap();
    eventually("payment was answered about both", async || {
        ensure!(answered_not_mine(&scene).await? >= 2, "{}", scene.cluster.coordinator.log());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(scene.branches(Role::Payment).unwrap(), (2, 1, 0), "in doubt, and no more");

    // What is not known is shown as that, and the flag's effect outlives it.
    let lost = scene.comes_to(&begun, TransactionState::Aborted).await.unwrap();
    assert_eq!(lost.outcome(), Outcome::HeuristicHazard, "{lost:?}");
    assert_eq!(lost.abort_reason.unwrap().code, "RESTORED");
    scene.shop.transaction(&later).await.unwrap_err();
    let start = Start::new().env("RUST_LOG", "debug");
    scene.cluster.coordinator.kill();
    scene.cluster.coordinator.start_with(start).await.unwrap();
    scene.cluster.payment.restart().await.unwrap();
    for participant in PARTICIPANTS {
        scene.linked(participant.name()).await.unwrap();
    }
    assert!(scene.shop.place(&Scene::purchase("d")).await.unwrap().committed);
    assert_eq!(scene.branches(Role::Payment).unwrap(), (2, 2, 0), "in doubt, and no more");
}

#[tokio::test]
async fn a_restored_coordinator_is_above_all_that_participants_have_seen_at_once() {
    let mut scene = Scene::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.db");
    back_up(&scene, &backup);
    for _ in 0..3 {
        scene.cluster.coordinator.restart().await.unwrap();
        for participant in PARTICIPANTS {
            scene.linked(participant.name()).await.unwrap();
        }
    }
    scene.cluster.coordinator.kill();
    restore(&mut scene, &backup, Start::new().arg("--restored")).await.unwrap();
    for participant in PARTICIPANTS {
        scene.linked(participant.name()).await.unwrap();
    }
    assert!(scene.shop.place(&Scene::purchase("a")).await.unwrap().committed);
    scene.check_sold(1).await.unwrap();
}
