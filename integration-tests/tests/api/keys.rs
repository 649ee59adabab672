//! Request keys.

use std::collections::HashSet;

use dtc_proto::dtc::{
    AbortReason, Acknowledgement, GetTransactionRequest, LinkAcknowledgement, LinkResponse,
    LinkVote, Outcome, TransactionOptions, Vote, get_transaction_request::By,
};
use integration_tests::{Alone, Cluster, Heard, Purchase, Reply, agree, channel, eventually};
use prost::bytes::Bytes;
use tonic::Code;
use uuid::Uuid;

use crate::{
    Gate, is_prepare, linked, prepared_ids, raw, request_at, seconds, shapes::json_request,
    with_key,
};

#[tokio::test]
async fn the_same_key_with_the_same_body_gets_the_first_outcome_and_with_another_none() {
    let mut cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 10).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();

    let without_key = Purchase::new("n", "ada", "teapot", 1, 100).request();
    let first = shop.execute(without_key.clone()).await.unwrap().transaction.unwrap();
    let second = shop.execute(without_key).await.unwrap().transaction.unwrap();
    assert_ne!(first.id, second.id);
    assert!(!second.committed, "the order exists");

    let request = with_key("k", json_request(&Purchase::new("a", "ada", "teapot", 2, 5_000)));
    let first = shop.execute(request.clone()).await.unwrap();
    assert!(first.committed, "{first:?}");
    let id = first.transaction.unwrap().id;
    let other_amount = with_key("k", json_request(&Purchase::new("a", "ada", "teapot", 2, 5_001)));
    let other_options = dtc_proto::dtc::ExecuteRequest {
        options: Some(TransactionOptions { prepare_attempts: 3, ..Default::default() }),
        ..request.clone()
    };
    let other_answer = crate::at_decision(request.clone());
    for round in ["at once", "after a kill", "after a clean stop"] {
        for same in [request.clone(), other_answer.clone()] {
            let again = shop.execute(same).await.unwrap();
            assert!(again.committed, "{round}: {again:?}");
            assert_eq!(again.transaction.unwrap().id, id, "{round}");
        }
        let channel = channel(cluster.addresses().coordinator);
        let again = raw::execute(channel, raw::reversed(&request)).await.unwrap();
        assert_eq!(again.transaction.unwrap().id, id, "{round}: JSON in another order");
        for other in [&other_amount, &other_options] {
            let status = shop.execute(other.clone()).await.unwrap_err();
            assert_eq!(status.code(), Code::AlreadyExists, "{round}: {status}");
            assert!(status.message().contains("'k'"), "{round}: {status}");
        }
        if round == "after a kill" {
            // All is written, so that the key is known from the journal alone.
            assert!(cluster.coordinator.stop().await.unwrap().success());
        }
        cluster.coordinator.restart().await.unwrap();
    }
    assert_eq!(shop.stock("teapot").await.unwrap().on_hand, 7);
    cluster.check(&shop).await.unwrap();
}

#[tokio::test]
async fn duplicates_that_come_together_join_one_run() {
    let coordinator = Alone::start().await.unwrap();
    let (slow, quick) = (linked().await, linked().await);
    let gate = Gate::before(&slow, is_prepare);
    let request = with_key("k", request_at(&[&slow, &quick]));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, request) = (coordinator.transactions.clone(), request.clone());
            tokio::spawn(async move { client.execute(request).await.unwrap().into_inner() })
        })
        .collect();
    eventually("it is prepared", async || {
        anyhow::ensure!(!prepared_ids(&slow).is_empty());
        Ok(())
    })
    .await
    .unwrap();
    let mut other = request.clone();
    other.branches.pop();
    let status = coordinator.execute(other).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "while the first one runs");
    gate.open();
    let mut ids = HashSet::new();
    for call in calls {
        let answer = call.await.unwrap();
        assert!(answer.committed, "{answer:?}");
        ids.insert(answer.transaction.unwrap().id);
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(prepared_ids(&slow), ids.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_key_whose_run_aborted_stays_aborted() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    one.set_script(|heard| match is_prepare(heard) {
        true => Reply::Refuse("NOT_TODAY".into()),
        false => agree(heard),
    });
    let request = with_key("k", request_at(&[&one, &two]));
    let first = coordinator.execute(request.clone()).await.unwrap().transaction.unwrap();
    assert_eq!(first.outcome(), Outcome::Aborted);
    one.set_script(agree);
    for _ in 0..2 {
        let again = coordinator.execute(request.clone()).await.unwrap();
        assert!(!again.committed, "{again:?}");
        let again = again.transaction.unwrap();
        assert_eq!((&again.id, again.outcome()), (&first.id, Outcome::Aborted));
        assert_eq!(again.abort_reason.unwrap().code, "NOT_TODAY");
        coordinator.process.restart().await.unwrap();
    }
    let by = Some(By::RequestKey("k".into()));
    let found = coordinator.transactions.get(GetTransactionRequest { by }).await.unwrap();
    assert_eq!(found.into_inner().transaction.unwrap().id, first.id);
}

#[tokio::test]
async fn a_late_aborted_answer_about_an_earlier_run_of_a_key_does_not_touch_the_later_run() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    // With their links up, nothing is written before the decision: the first run
    // is forgotten by the kill.
    assert!(coordinator.execute(request_at(&[&one, &two])).await.unwrap().committed);
    let warm_up = prepared_ids(&one).len();

    Gate::before(&two, is_prepare);
    let mut request = with_key("k", request_at(&[&one, &two]));
    // One attempt that doesn't end: what is said of it comes from this test.
    if let Some(options) = &mut request.options {
        options.prepare_attempt_timeout = Some(seconds(100));
    }
    let run = |request: &dtc_proto::dtc::ExecuteRequest| {
        let (mut client, request) = (coordinator.transactions.clone(), request.clone());
        tokio::spawn(async move { client.execute(request).await })
    };
    let first_run = run(&request);
    let prepared = async |count: usize| {
        eventually("a run is prepared", async || {
            let (ids, others) = (prepared_ids(&one), prepared_ids(&two));
            anyhow::ensure!(ids.len() == count && others.len() == count, "{ids:?} {others:?}");
            Ok(ids[count - 1].clone())
        })
        .await
        .unwrap()
    };
    let first = prepared(warm_up + 1).await;
    coordinator.process.kill();
    assert!(first_run.await.unwrap().is_err());
    coordinator.process.start().await.unwrap();

    let second_run = run(&request);
    let second = prepared(warm_up + 2).await;
    assert_ne!(first, second, "a run has an id of its own");
    let bytes = |id: &str| Bytes::copy_from_slice(Uuid::parse_str(id).unwrap().as_bytes());
    let refused = LinkVote {
        transaction_id: bytes(&first),
        branch: 1,
        vote: Vote::Abort.into(),
        abort_reason: Some(AbortReason { code: "LATE".into(), ..AbortReason::default() }),
        ..LinkVote::default()
    };
    let rolled_back = LinkAcknowledgement {
        transaction_id: bytes(&first),
        branch: 1,
        acknowledgement: Acknowledgement::RolledBack.into(),
        decision_number: 1,
        ..LinkAcknowledgement::default()
    };
    let late = LinkResponse {
        votes: vec![refused],
        acknowledgements: vec![rolled_back],
        ..LinkResponse::default()
    };
    let promise = LinkVote {
        transaction_id: bytes(&second),
        branch: 1,
        vote: Vote::Commit.into(),
        ..LinkVote::default()
    };
    for participant in [&one, &two] {
        assert!(participant.say(late.clone()).await);
    }
    assert!(two.say(LinkResponse { votes: vec![promise], ..LinkResponse::default() }).await);
    let answer = second_run.await.unwrap().unwrap().into_inner();
    assert!(answer.committed, "{answer:?}");
    assert_eq!(answer.transaction.unwrap().id, second);
    let rollback_of = |heard: &Heard| match heard {
        Heard::Rollback(it) => it.transaction_id == second,
        _ => false,
    };
    assert!(!one.heard().iter().chain(&two.heard()).any(rollback_of));
    let again = coordinator.execute(request).await.unwrap();
    assert_eq!((again.committed, again.transaction.unwrap().id), (true, second));
}
