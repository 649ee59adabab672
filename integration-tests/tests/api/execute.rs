//! `Execute`: when it is answered.

use dtc_proto::dtc::{BranchState, ExecuteRequest, Outcome, TransactionState};

use integration_tests::{Alone, Cluster, Purchase, eventually};
use shop_proto::OrderState;

use crate::{Gate, at_decision, is_commit, is_prepare, linked, millis, request_at};

#[tokio::test]
async fn the_answer_comes_at_the_decision_or_at_completion() {
    let coordinator = Alone::start().await.unwrap();
    let (slow, quick) = (linked().await, linked().await);
    let gate = Gate::before(&slow, is_commit);

    let answer = coordinator.execute(at_decision(request_at(&[&slow, &quick]))).await.unwrap();
    let transaction = answer.transaction.unwrap();
    assert!(answer.committed && transaction.committed);
    assert_eq!(transaction.state(), TransactionState::Committing);
    assert_eq!(transaction.outcome(), Outcome::Committed);
    assert!(transaction.trail.is_empty(), "only Get and Watch show it");

    let told = eventually("the other is told", async || {
        let told = coordinator.transaction(&transaction.id).await?;
        anyhow::ensure!(told.branches[1].state() == BranchState::Committed, "{told:?}");
        Ok(told)
    })
    .await
    .unwrap();
    assert_eq!(told.branches[0].state(), BranchState::Committing, "neither waits for the other");

    let completion = tokio::spawn({
        let client = coordinator.transactions.clone();
        let request = request_at(&[&slow, &quick]);
        async move { client.clone().execute(request).await.unwrap().into_inner() }
    });
    eventually("the commit is sent", async || {
        anyhow::ensure!(slow.heard().iter().filter(|heard| is_commit(heard)).count() >= 2);
        Ok(())
    })
    .await
    .unwrap();
    assert!(!completion.is_finished());
    gate.open();
    let transaction = completion.await.unwrap().transaction.unwrap();
    assert_eq!(transaction.state(), TransactionState::Committed);
    let states: Vec<_> = transaction.branches.iter().map(|branch| branch.state()).collect();
    assert_eq!(states, [BranchState::Committed; 2]);
}

#[tokio::test]
async fn when_the_wait_ends_the_transaction_is_answered_as_it_is_and_goes_on() {
    let coordinator = Alone::start().await.unwrap();
    let (slow, quick) = (linked().await, linked().await);
    let short = |request| ExecuteRequest { wait: Some(millis(50)), ..request };

    let gate = Gate::before(&slow, is_prepare);
    let answer = coordinator.execute(short(request_at(&[&slow, &quick]))).await.unwrap();
    let undecided = answer.transaction.unwrap();
    assert!(!answer.committed);
    assert_eq!(undecided.state(), TransactionState::Preparing);
    assert_eq!(undecided.outcome(), Outcome::Pending);
    gate.open();
    assert!(coordinator.ended(&undecided.id).await.unwrap().committed);

    let gate = Gate::before(&slow, is_commit);
    let decided = ExecuteRequest { wait: Some(millis(500)), ..request_at(&[&slow, &quick]) };
    let answer = coordinator.execute(decided).await.unwrap();
    let pending = answer.transaction.unwrap();
    if pending.decided_at.is_some() {
        assert!(answer.committed, "{pending:?}");
        assert_eq!(pending.state(), TransactionState::Committing);
    }
    gate.open();
    assert!(coordinator.ended(&pending.id).await.unwrap().committed);
}

#[tokio::test]
async fn a_paused_participant_is_waited_for_only_as_long_as_was_asked() {
    let cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 5).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();
    cluster.payment.pause().unwrap();
    let purchase = Purchase::new("a", "ada", "teapot", 1, 100);
    let request = ExecuteRequest {
        wait: Some(millis(200)),
        options: Some(crate::patient()),
        ..purchase.request()
    };
    let answer = shop.execute(request).await.unwrap();
    assert!(!answer.committed);
    let id = answer.transaction.unwrap().id;
    assert_eq!(shop.transaction(&id).await.unwrap().outcome(), Outcome::Pending);
    cluster.payment.resume().unwrap();
    eventually("the order is confirmed", async || {
        anyhow::ensure!(shop.order("a").await?.state() == OrderState::Confirmed);
        Ok(())
    })
    .await
    .unwrap();
    cluster.check(&shop).await.unwrap();
}
