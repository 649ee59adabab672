//! Files that are deleted, moved or replaced under a running process.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use integration_tests::{
    Addresses, Binaries, Fixture, Process,
    Role::{self, Coordinator, Order, Payment},
    Start,
};

const FAILED: i32 = 74;

/// The process ends by itself and says what is gone. Of what its clients ask for
/// meanwhile nothing is reported as committed.
async fn stops(role: Role, said: &str, lose: impl FnOnce(&Path) -> std::io::Result<()>) {
    let mut fixture = Fixture::start().await.unwrap();
    lose(&fixture.cluster.process(role).database()).unwrap();
    if role == Coordinator {
        let request = Fixture::purchase("a").request_with_key("key-a", std::time::Duration::ZERO);
        let answer = fixture.shop.execute(request).await;
        assert!(!answer.as_ref().is_ok_and(|answer| answer.committed), "{answer:?}");
    }
    fixture.exits(role, FAILED).await.unwrap();
    let log = fixture.cluster.process(role).log();
    assert!(log.contains(said), "no clear message:\n{log}");
}

fn beside(database: &Path, suffix: &str) -> std::path::PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[tokio::test]
async fn a_coordinators_database_is_deleted() {
    stops(Coordinator, "coordinator.db was deleted", |path| fs::remove_file(path)).await;
}

#[tokio::test]
async fn a_coordinators_log_is_deleted() {
    stops(Coordinator, "-wal was deleted", |path| fs::remove_file(beside(path, "-wal"))).await;
}

#[tokio::test]
async fn a_coordinators_database_is_replaced_by_a_copy() {
    let replace = |path: &Path| {
        fs::copy(path, beside(path, ".copy"))?;
        fs::rename(beside(path, ".copy"), path)
    };
    stops(Coordinator, "coordinator.db was replaced", replace).await;
}

#[tokio::test]
async fn a_participants_shared_memory_is_deleted() {
    stops(Payment, "-shm was deleted", |path| fs::remove_file(beside(path, "-shm"))).await;
}

#[tokio::test]
async fn a_participants_database_is_moved() {
    stops(Order, "order.db was deleted or moved", |path| fs::rename(path, beside(path, ".moved")))
        .await;
}

/// With nobody who calls it, and files that others could read before.
#[tokio::test]
async fn an_idle_coordinators_folder_is_renamed_and_its_files_are_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let program = Binaries::test().unwrap().path(Coordinator);
    let address = Addresses::pick().coordinator;
    let mut process = Process::new("coordinator", &program, folder.path(), address).data(&data);
    process.start().await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let database = process.database();
    assert!(process.stop().await.unwrap().success());
    fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).unwrap();
    process.start_with(Start::new()).await.unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&database, suffix)), 0o600, "{suffix}");
    }
    assert!(process.log().contains("its mode is 600 now"), "{}", process.log());

    fs::rename(&data, folder.path().join("moved")).unwrap();
    let status = process.wait_exit().await.unwrap();
    assert_eq!(status.code(), Some(FAILED), "{}", process.log());
    assert!(process.log().contains("data was deleted or moved"), "{}", process.log());
}
