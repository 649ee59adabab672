//! A COMMIT that fails, at either side: the process stops with 74 and says
//! nothing more, and what it was about is whole again after the restart.

use std::time::Duration;

use anyhow::ensure;
use dtc_proto::dtc::{ExecuteRequest, TransactionOptions, TransactionState};
use integration_tests::{
    Fixture, Loss, Purchase,
    Role::{Coordinator, Inventory, Order, Payment},
    Start, eventually,
};

const DECIDED: &str = "SELECT count(*) FROM unfinished WHERE decision IS NOT NULL";
const FAILED: i32 = 74;
/// Long enough for an answer that should not come.
const A_MOMENT: Duration = Duration::from_millis(300);

macro_rules! faults {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn sync_error() {
                super::$name("sync-error", Loss::Process).await.unwrap();
            }

            #[tokio::test]
            async fn sync_error_and_power_lost() {
                super::$name("sync-error", Loss::Power).await.unwrap();
            }

            #[tokio::test]
            async fn disk_full() {
                super::$name("write-full", Loss::Process).await.unwrap();
            }
        }
    )*};
}

faults! {
    of_the_coordinators_decision
    of_a_participants_promise
    of_a_participants_effect
}

/// A purchase whose votes may take as long as a restart.
fn patient() -> ExecuteRequest {
    let prepare_timeout = Some(prost_types::Duration { seconds: 25, nanos: 0 });
    let options = Some(TransactionOptions { prepare_timeout, ..TransactionOptions::default() });
    let request = Fixture::purchase("a").request_with_key("key-a", Duration::from_secs(25));
    ExecuteRequest { options, ..request }
}

/// The process stops over the fault; what it wrote last is lost, or not.
async fn stops(
    fixture: &mut Fixture,
    role: integration_tests::Role,
    loss: Loss,
) -> anyhow::Result<()> {
    fixture.exits(role, FAILED).await?;
    let process = fixture.cluster.process(role);
    ensure!(process.log().contains("COMMIT failed"), "no clear message:\n{}", process.log());
    process.set_fault(None)?;
    if loss == Loss::Power {
        process.lose_power()?;
    }
    Ok(())
}

/// Records of a COMMIT that failed, at most.
fn may_be_written(fault: &str, loss: Loss) -> i64 {
    i64::from(fault == "sync-error" && loss == Loss::Process)
}

/// Has an order in the coordinator's log: the first sync of a new log is that of
/// its header, with no record behind it.
async fn write_something(fixture: &mut Fixture) -> anyhow::Result<()> {
    ensure!(fixture.shop.place(&Fixture::purchase("before")).await?.committed);
    eventually("the order's end is durable", async || {
        let unfinished = fixture.count(Coordinator, "SELECT count(*) FROM unfinished")?;
        ensure!(unfinished == 0, "not yet");
        Ok(())
    })
    .await
}

async fn of_the_coordinators_decision(fault: &str, loss: Loss) -> anyhow::Result<()> {
    let mut fixture = Fixture::start().await?;
    write_something(&mut fixture).await?;
    fixture.cluster.coordinator.set_fault(Some(fault))?;
    let answer = fixture.shop.execute(patient()).await;
    ensure!(answer.is_err(), "its client was answered {answer:?}");
    stops(&mut fixture, Coordinator, loss).await?;
    for role in [Inventory, Payment, Order] {
        let branches = fixture.branches(role)?;
        ensure!(branches == (1, 1, 0), "{role:?} was told something: {branches:?}");
    }
    // SQLite said that the COMMIT failed. Whether it did shows only now.
    let found = fixture.count(Coordinator, DECIDED)?;
    ensure!(found == may_be_written(fault, loss), "{found} decisions are in the journal");
    fixture.cluster.coordinator.start().await?;
    fixture.check_sold(1 + found).await?;
    let again = fixture.shop.execute(patient()).await?;
    ensure!(again.committed, "a repeated request was answered {again:?}");
    fixture.check_sold(2).await
}

/// The client is told nothing while the sync hangs, and nothing was done if the
/// power goes then.
async fn nothing_is_told_while_a_sync_hangs(purchase: Purchase) {
    let mut fixture = Fixture::start().await.unwrap();
    write_something(&mut fixture).await.unwrap();
    fixture.cluster.coordinator.set_fault(Some("sync-hang")).unwrap();
    let request_key = "key-a".into();
    let request = ExecuteRequest { request_key, ..purchase.request_at_decision() };
    let shop = fixture.shop.clone();
    let mut placing = tokio::spawn(async move { shop.execute(request).await });
    eventually("votes make a decision", async || {
        let refused = fixture.cluster.coordinator.log().contains("voted to abort");
        for role in [Inventory, Payment, Order] {
            ensure!(refused || fixture.branches(role)?.0 == 1, "{role:?} has not voted");
        }
        Ok(())
    })
    .await
    .unwrap();
    let answer = tokio::time::timeout(A_MOMENT, &mut placing).await;
    assert!(answer.is_err(), "its client was answered {answer:?}");
    for role in [Inventory, Payment, Order] {
        assert_eq!(fixture.branches(role).unwrap().1, 1, "{role:?} has committed");
    }
    fixture.cluster.coordinator.lose_power().unwrap();
    fixture.cluster.coordinator.set_fault(None).unwrap();
    fixture.cluster.coordinator.start().await.unwrap();
    assert!(placing.await.unwrap().is_err());
    fixture.check_sold(1).await.unwrap();
}

/// Were its client told of an abort that is not durable, the same request could
/// commit later.
#[tokio::test]
async fn an_abort_with_a_request_key_is_told_when_it_is_durable() {
    let too_many = Purchase::new("a", "ada", "teapot", Fixture::STOCK, Fixture::PRICE);
    nothing_is_told_while_a_sync_hangs(too_many).await;
}

#[tokio::test]
async fn a_commit_is_told_when_it_is_durable() {
    nothing_is_told_while_a_sync_hangs(Fixture::purchase("a")).await;
}

#[tokio::test]
async fn a_decision_that_recovery_finds_unsynced_is_synced_before_anyone_is_told() {
    let mut fixture = Fixture::start().await.unwrap();
    write_something(&mut fixture).await.unwrap();
    fixture.cluster.coordinator.set_fault(Some("sync-error")).unwrap();
    fixture.shop.execute(patient()).await.unwrap_err();
    stops(&mut fixture, Coordinator, Loss::Process).await.unwrap();

    let told = Start::new().crash_at("coordinator-first-acknowledged");
    fixture.cluster.coordinator.spawn(told).unwrap();
    fixture.killed_itself(Coordinator).await.unwrap();
    fixture.cluster.coordinator.lose_power().unwrap();
    assert_eq!(fixture.count(Coordinator, DECIDED).unwrap(), 1);
    fixture.cluster.coordinator.start().await.unwrap();
    fixture.check_sold(2).await.unwrap();
}

async fn of_a_participants_promise(fault: &str, loss: Loss) -> anyhow::Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture.cluster.payment.set_fault(Some(fault))?;
    let shop = fixture.shop.clone();
    let placing = tokio::spawn(async move { shop.execute(patient()).await });
    stops(&mut fixture, Payment, loss).await?;
    // None either if the fault hit another record before.
    let promised = fixture.branches(Payment)?.0;
    ensure!(promised <= may_be_written(fault, loss), "{promised} are promised");
    fixture.cluster.payment.start().await?;
    // Had it said anything, it would have been a vote to abort.
    let answer = placing.await??;
    ensure!(answer.committed, "{answer:?}");
    fixture.check_sold(1).await
}

async fn of_a_participants_effect(fault: &str, loss: Loss) -> anyhow::Result<()> {
    let mut fixture = Fixture::start().await?;
    let id = fixture.prepare("a").await?;
    fixture.cluster.payment.set_fault(Some(fault))?;
    ensure!(fixture.commit(&id).await?.committed);
    stops(&mut fixture, Payment, loss).await?;
    let (undecided, committed, _) = fixture.branches(Payment)?;
    ensure!(undecided + committed == 1, "{undecided} undecided, {committed} committed");
    ensure!(committed <= may_be_written(fault, loss), "{committed} are committed");
    let transaction = fixture.shop.transaction(&id).await?;
    ensure!(transaction.state() == TransactionState::Committing, "acknowledged: {transaction:?}");
    fixture.cluster.payment.start().await?;
    fixture.comes_to(&id, TransactionState::Committed).await?;
    fixture.check_sold(1).await
}
