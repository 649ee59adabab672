//! Transactions that the client drives call by call.

use dtc_proto::dtc::{
    BeginRequest, CommitTransactionRequest, EnlistRequest, Outcome, PrepareTransactionRequest,
    RollbackTransactionRequest, Transaction, TransactionOptions, TransactionState,
};

use integration_tests::{
    Alone, Cluster, FakeParticipant, Purchase, Start, branches_at, eventually,
};
use shop_proto::OrderState;
use tonic::{Code, Status};

use crate::{Gate, is_prepare, linked, millis};

/// The calls, with their requests' other fields left out.
struct Client<'a>(&'a Alone);

impl Client<'_> {
    async fn begin(&self, participants: &[&FakeParticipant]) -> String {
        let mut client = self.0.transactions.clone();
        let id = client.begin(BeginRequest::default()).await.unwrap().into_inner().transaction_id;
        for (number, participant) in (0..).zip(participants) {
            assert_eq!(self.enlist(&id, participant).await.unwrap(), number);
        }
        id
    }

    async fn enlist(&self, id: &str, participant: &FakeParticipant) -> Result<u32, Status> {
        let branch = branches_at([participant.uri().as_str()]).pop();
        let request =
            EnlistRequest { transaction_id: id.into(), branch, ..EnlistRequest::default() };
        Ok(self.0.transactions.clone().enlist(request).await?.into_inner().branch)
    }

    async fn prepare(&self, id: &str) -> Result<(bool, Transaction), Status> {
        let request = PrepareTransactionRequest { transaction_id: id.into(), ..Default::default() };
        let answer = self.0.transactions.clone().prepare(request).await?.into_inner();
        Ok((answer.prepared, answer.transaction.unwrap()))
    }

    async fn commit(&self, id: &str) -> Result<bool, Status> {
        let request = CommitTransactionRequest { transaction_id: id.into(), ..Default::default() };
        Ok(self.0.transactions.clone().commit(request).await?.into_inner().committed)
    }

    async fn rollback(&self, id: &str) -> Result<Transaction, Status> {
        let request =
            RollbackTransactionRequest { transaction_id: id.into(), ..Default::default() };
        let answer = self.0.transactions.clone().rollback(request).await?;
        Ok(answer.into_inner().transaction.unwrap())
    }
}

fn wrong_state<T: std::fmt::Debug>(result: Result<T, Status>, state: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains(state), "{status}");
}

#[tokio::test]
async fn an_order_is_begun_enlisted_prepared_and_committed() {
    let cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 5).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();
    let id = shop.begin(&Purchase::new("a", "ada", "teapot", 2, 5_000)).await.unwrap();
    let mut client = shop.transactions.clone();
    let prepare = PrepareTransactionRequest { transaction_id: id.clone(), ..Default::default() };
    for _ in 0..2 {
        let prepared = client.prepare(prepare.clone()).await.unwrap().into_inner();
        assert!(prepared.prepared, "{prepared:?}");
        assert_eq!(prepared.transaction.unwrap().state(), TransactionState::Prepared);
    }
    assert_eq!(shop.stock("teapot").await.unwrap().reserved, 2);
    assert_eq!(shop.order("a").await.unwrap().state(), OrderState::Pending);
    let commit = CommitTransactionRequest { transaction_id: id.clone(), ..Default::default() };
    for _ in 0..2 {
        assert!(client.commit(commit.clone()).await.unwrap().into_inner().committed);
    }
    cluster.check(&shop).await.unwrap();
    assert_eq!(shop.stock("teapot").await.unwrap().on_hand, 3);
}

#[tokio::test]
async fn every_call_in_a_wrong_state_is_refused_and_a_repeated_one_answered() {
    let coordinator = Alone::start().await.unwrap();
    let client = Client(&coordinator);
    let (one, two) = (linked().await, linked().await);

    // Without a branch there is nobody to refuse.
    let empty = client.begin(&[]).await;
    assert!(client.commit(&empty).await.unwrap());
    let empty = client.begin(&[]).await;
    assert_eq!(client.rollback(&empty).await.unwrap().outcome(), Outcome::Aborted);

    let prepared = client.begin(&[&one, &two]).await;
    assert!(client.prepare(&prepared).await.unwrap().0);
    wrong_state(client.enlist(&prepared, &one).await, "prepared");
    assert_eq!(client.rollback(&prepared).await.unwrap().outcome(), Outcome::Aborted);
    assert_eq!(client.rollback(&prepared).await.unwrap().outcome(), Outcome::Aborted);
    assert!(!client.commit(&prepared).await.unwrap());
    let (is_prepared, transaction) = client.prepare(&prepared).await.unwrap();
    assert!(!is_prepared);
    assert_eq!(transaction.abort_reason.unwrap().code, "CLIENT_ROLLBACK");
    wrong_state(client.enlist(&prepared, &one).await, "aborted");

    let committed = client.begin(&[&one, &two]).await;
    assert!(client.commit(&committed).await.unwrap());
    assert!(client.commit(&committed).await.unwrap());
    assert!(client.prepare(&committed).await.unwrap().0);
    wrong_state(client.enlist(&committed, &one).await, "committed");
    wrong_state(client.rollback(&committed).await, "commit decision is not taken back");

    let gate = Gate::before(&two, is_prepare);
    let preparing = client.begin(&[&one, &two]).await;
    let request =
        PrepareTransactionRequest { transaction_id: preparing.clone(), wait: Some(millis(1)) };
    let answer = coordinator.transactions.clone().prepare(request).await.unwrap().into_inner();
    assert!(!answer.prepared);
    wrong_state(client.enlist(&preparing, &one).await, "preparing");
    assert_eq!(client.rollback(&preparing).await.unwrap().outcome(), Outcome::Aborted);
    gate.open();

    let unknown = "01890000-0000-7000-8000-000000000000";
    assert_eq!(client.enlist(unknown, &one).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.prepare(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.commit(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.rollback(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_client_that_vanishes_is_rolled_back_after_its_idle_limit() {
    let always = Start::new().arg("--idle-timeout").arg("300ms");
    let coordinator = Alone::start_with(always).await.unwrap();
    let client = Client(&coordinator);
    let (one, two) = (linked().await, linked().await);
    let begun = client.begin(&[&one]).await;
    let prepared = client.begin(&[&one, &two]).await;
    let is_prepared = client.prepare(&prepared).await.unwrap().0;
    for id in [&begun, &prepared] {
        let transaction = coordinator.ended(id).await.unwrap();
        assert_eq!(transaction.outcome(), Outcome::Aborted);
        assert_eq!(transaction.abort_reason.unwrap().code, "IDLE_TIMEOUT");
        assert!(!client.commit(id).await.unwrap());
    }
    let rolled_back = |participant: &FakeParticipant| {
        let is = |heard: &_| matches!(heard, integration_tests::Heard::Rollback(_));
        participant.heard().iter().any(is)
    };
    assert!(is_prepared && rolled_back(&one) && rolled_back(&two));

    // A limit of its own keeps another one alive.
    let idle_timeout = Some(crate::seconds(100));
    let options = Some(TransactionOptions { idle_timeout, ..Default::default() });
    let mut transactions = coordinator.transactions.clone();
    let begun =
        transactions.begin(BeginRequest { options, ..BeginRequest::default() }).await.unwrap();
    let patient = begun.into_inner().transaction_id;
    client.enlist(&patient, &one).await.unwrap();
    let impatient = client.begin(&[&one]).await;
    coordinator.ended(&impatient).await.unwrap();
    assert!(client.commit(&patient).await.unwrap());
}

#[tokio::test]
async fn what_a_restart_of_the_coordinator_finds_undecided_is_rolled_back() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let client = Client(&coordinator);
    let begun = client.begin(&[&one]).await;
    let prepared = client.begin(&[&one, &two]).await;
    assert!(client.prepare(&prepared).await.unwrap().0);
    coordinator.process.restart().await.unwrap();

    let client = Client(&coordinator);
    for id in [&begun, &prepared] {
        assert!(!client.commit(id).await.unwrap());
        let transaction = coordinator.transaction(id).await.unwrap();
        assert_eq!(transaction.outcome(), Outcome::Aborted);
        assert_eq!(transaction.abort_reason.unwrap().code, "COORDINATOR_RESTARTED");
        assert_eq!(client.rollback(id).await.unwrap().outcome(), Outcome::Aborted);
    }
}

#[tokio::test]
async fn a_restart_frees_what_a_prepared_order_had_reserved() {
    let mut cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 5).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();
    let id = shop.begin(&Purchase::new("a", "ada", "teapot", 2, 5_000)).await.unwrap();
    let request = PrepareTransactionRequest { transaction_id: id.clone(), ..Default::default() };
    let prepared = shop.transactions.clone().prepare(request).await.unwrap().into_inner();
    assert!(prepared.prepared, "{prepared:?}");
    cluster.coordinator.restart().await.unwrap();
    eventually("nothing is reserved", async || {
        anyhow::ensure!(shop.stock("teapot").await?.reserved == 0);
        anyhow::ensure!(shop.order("a").await?.state() == OrderState::Cancelled);
        Ok(())
    })
    .await
    .unwrap();
    cluster.check(&shop).await.unwrap();
}
