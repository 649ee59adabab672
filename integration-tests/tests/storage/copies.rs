//! Journals that are lost, shared or copied.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::ensure;
use dtc_proto::dtc::{
    BeginRequest, Branch, BranchState, EnlistRequest, ListParticipantsRequest, Outcome,
    PrepareTransactionRequest, TransactionState, registry_service_client::RegistryServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use integration_tests::{
    Cluster, FakeParticipant, Fixture, Loss, Process, Reply, Role, Shop, Speaks, Start, channel,
    eventually, typed, vfs,
};
use shop_proto::ReserveStock;
use uuid::Uuid;

use crate::PARTICIPANTS;

const HELD: i32 = 75;
const FENCED: i32 = 77;

#[tokio::test]
async fn a_participant_that_lost_its_journal_makes_the_outcome_a_hazard() {
    let mut fixture = Fixture::start().await.unwrap();
    let id = fixture.prepare("a").await.unwrap();
    fixture.cluster.payment.kill();
    assert!(fixture.commit(&id).await.unwrap().committed);
    for suffix in ["", "-wal", "-shm", ".synced", "-wal.synced"] {
        let _ =
            fs::remove_file(format!("{}{suffix}", fixture.cluster.payment.database().display()));
    }
    fixture.cluster.payment.start().await.unwrap();
    let ended = fixture.comes_to(&id, TransactionState::Committed).await.unwrap();
    assert_eq!(ended.outcome(), Outcome::HeuristicHazard, "{ended:?}");
    let states: Vec<_> = ended.branches.iter().map(|branch| branch.state()).collect();
    assert_eq!(states, [BranchState::Committed, BranchState::Hazard, BranchState::Committed]);

    fixture.cluster.coordinator.restart().await.unwrap();
    let kept = fixture.comes_to(&id, TransactionState::Committed).await.unwrap();
    assert_eq!(kept.outcome(), Outcome::HeuristicHazard, "{kept:?}");
}

/// What comes of a transaction whose participant is not what it was when it voted.
async fn outcome_after(change: impl FnOnce(&FakeParticipant)) -> Outcome {
    let fixture = Fixture::start().await.unwrap();
    let courier = FakeParticipant::start(Speaks::Calls).await.unwrap();
    let mut client = fixture.shop.transactions.clone();
    let begun = client.begin(BeginRequest::default()).await.unwrap().into_inner();
    let payload = Some(typed(&ReserveStock::default()));
    let branch = Branch { participant: courier.uri(), payload };
    for branch in [branch.clone(), branch] {
        let (transaction_id, branch) = (begun.transaction_id.clone(), Some(branch));
        client
            .enlist(EnlistRequest { transaction_id, branch, ..EnlistRequest::default() })
            .await
            .unwrap();
    }
    let transaction_id = begun.transaction_id.clone();
    let request = PrepareTransactionRequest { transaction_id, wait: None };
    assert!(client.prepare(request).await.unwrap().into_inner().prepared);
    change(&courier);
    assert!(fixture.commit(&begun.transaction_id).await.unwrap().committed);
    let state = TransactionState::Committed;
    fixture.comes_to(&begun.transaction_id, state).await.unwrap().outcome()
}

#[tokio::test]
async fn only_the_journal_that_voted_may_acknowledge() {
    let other = |courier: &FakeParticipant| courier.set_journal_id(Uuid::from_u128(7));
    assert_eq!(outcome_after(other).await, Outcome::HeuristicHazard);
    assert_eq!(outcome_after(|_| ()).await, Outcome::Committed);
}

#[tokio::test]
async fn a_branch_that_its_participant_does_not_know_is_a_hazard() {
    let forgetful = |courier: &FakeParticipant| courier.set_script(|_| Reply::Unknown);
    assert_eq!(outcome_after(forgetful).await, Outcome::HeuristicHazard);
}

/// Another process for a role, with files in `folder`.
fn another(cluster: &mut Cluster, role: Role, name: &str, folder: &Path) -> Process {
    let address = SocketAddr::new(cluster.addresses().coordinator.ip(), 7_199);
    let participants = PARTICIPANTS
        .iter()
        .map(|&role| format!("{}=http://{}", role.name(), cluster.process(role).address()));
    let mut start = Start::new().env(vfs::VARIABLE, "1");
    if role == Role::Coordinator {
        start = start.env("DTC_PARTICIPANT", participants.collect::<Vec<_>>().join(","));
    }
    let program = cluster.binaries().path(role);
    Process::new(name, &program, folder, address).always(start)
}

#[tokio::test]
async fn a_second_process_on_a_journal_is_refused_and_the_first_goes_on() {
    let mut fixture = Fixture::start().await.unwrap();
    for role in Role::ALL {
        let folder = fixture.cluster.folder().to_owned();
        let mut second =
            another(&mut fixture.cluster, role, &format!("second-{}", role.name()), &folder);
        second.spawn(Start::new()).unwrap();
        assert_eq!(second.wait_exit().await.unwrap().code(), Some(HELD), "{}", second.log());
        let holder = format!("process {}", fixture.cluster.process(role).id().unwrap());
        assert!(second.log().contains(&holder), "{}", second.log());
        assert!(second.log().contains("data folder of its own"), "{}", second.log());
    }
    assert!(fixture.shop.place(&Fixture::purchase("a")).await.unwrap().committed);
    fixture.check_sold(1).await.unwrap();
}

#[tokio::test]
async fn a_run_whose_journal_was_taken_over_writes_nothing_more() {
    let mut fixture = Fixture::start().await.unwrap();
    fs::remove_file(fixture.cluster.folder().join("inventory.db.lock")).unwrap();
    let folder = fixture.cluster.folder().to_owned();
    let mut second = another(&mut fixture.cluster, Role::Inventory, "second", &folder);
    second.start().await.unwrap();
    fixture.shop.stock_up("kettle", 1).await.unwrap_err();
    fixture.exits(Role::Inventory, FENCED).await.unwrap();
    let log = fixture.cluster.inventory.log();
    assert!(log.contains("another process has taken it over"), "{log}");
}

/// A copy of the coordinator's data folder, as a person makes one.
fn copied(fixture: &mut Fixture) -> (tempfile::TempDir, Process) {
    let folder = tempfile::tempdir().unwrap();
    let database = fixture.cluster.coordinator.database();
    for name in ["coordinator.db", "coordinator.db-wal"] {
        let from = database.with_file_name(name);
        if from.exists() {
            fs::copy(from, folder.path().join(name)).unwrap();
        }
    }
    let copy = another(&mut fixture.cluster, Role::Coordinator, "coordinator", folder.path());
    (folder, copy)
}

/// The same customer, of another coordinator.
fn at(shop: &Shop, coordinator: &Process) -> Shop {
    let mut shop = shop.clone();
    shop.transactions = TransactionServiceClient::new(channel(coordinator.address()));
    shop.registry = RegistryServiceClient::new(channel(coordinator.address()));
    shop
}

/// All participants of a coordinator say that they know a newer run of it.
async fn is_quarantined(shop: &Shop) -> anyhow::Result<()> {
    eventually("all links are quarantined", async || {
        let mut registry = shop.registry.clone();
        let known = registry.list_participants(ListParticipantsRequest {}).await?.into_inner();
        ensure!(known.participants.iter().all(|it| it.newer_epoch.is_some()), "{known:?}");
        Ok(())
    })
    .await
}

async fn a_copy_replaces_the_older_run(loss: Loss) -> anyhow::Result<()> {
    let mut fixture = Fixture::start().await?;
    let id = fixture.prepare("a").await?;
    let (_folder, mut copy) = copied(&mut fixture);
    fixture.cluster.coordinator.pause()?;
    copy.start().await?;
    let shop = at(&fixture.shop, &copy);
    ensure!(shop.place(&Fixture::purchase("b")).await?.committed);
    fixture.cluster.coordinator.resume()?;
    // It may decide in its own journal, but nobody listens to it any more.
    let _ = fixture.commit(&id).await;
    is_quarantined(&fixture.shop).await?;
    let refused = fixture.shop.place(&Fixture::purchase("c")).await;
    ensure!(refused.is_err(), "the older run goes on: {refused:?}");
    fixture.cluster.coordinator.kill();
    if loss == Loss::Power {
        copy.lose_power()?;
        copy.start().await?;
    }
    let aborted = shop.transaction(&id).await?;
    ensure!(aborted.outcome() == Outcome::Aborted, "{aborted:?}");
    // What is checked is the copy's: the older journal is out of use.
    fixture.check_sold(1).await
}

#[tokio::test]
async fn a_copied_data_folder_that_is_started_replaces_the_older_run() {
    a_copy_replaces_the_older_run(Loss::Process).await.unwrap();
}

#[tokio::test]
async fn a_copied_data_folder_goes_on_after_a_loss_of_power() {
    a_copy_replaces_the_older_run(Loss::Power).await.unwrap();
}

#[tokio::test]
async fn of_two_copies_with_one_epoch_only_the_first_is_heard() {
    let mut fixture = Fixture::start().await.unwrap();
    assert!(fixture.cluster.coordinator.stop().await.unwrap().success());
    let (_folder, mut copy) = copied(&mut fixture);
    fixture.cluster.coordinator.start().await.unwrap();
    for participant in PARTICIPANTS {
        fixture.linked(participant.name()).await.unwrap();
    }
    copy.start().await.unwrap();
    let shop = at(&fixture.shop, &copy);
    is_quarantined(&shop).await.unwrap();
    shop.place(&Fixture::purchase("b")).await.unwrap_err();
    assert!(fixture.shop.place(&Fixture::purchase("a")).await.unwrap().committed);
    fixture.check_sold(1).await.unwrap();
}
