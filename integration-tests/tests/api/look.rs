//! `Get`, `List` and `Watch`.

use std::{collections::BTreeSet, time::SystemTime};

use dtc_proto::dtc::{
    BeginRequest, GetTransactionRequest, ListTransactionsRequest, Outcome, TrailKind, Transaction,
    TransactionState, WatchTransactionRequest, get_transaction_request::By,
};
use integration_tests::{Alone, Reply, agree, eventually};
use tonic::{Code, Status};

use crate::{Gate, at_decision, is_commit, is_prepare, linked, request_at, with_key};

fn kinds(transaction: &Transaction) -> Vec<TrailKind> {
    transaction.trail.iter().map(|event| event.kind()).collect()
}

fn count(transaction: &Transaction, kind: TrailKind) -> usize {
    kinds(transaction).iter().filter(|it| **it == kind).count()
}

#[tokio::test]
async fn get_tells_the_story_in_order_from_memory_and_from_the_journal() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    // The first one waits for the links, which is on its trail.
    coordinator.execute(request_at(&[&one, &two])).await.unwrap();
    let committed = coordinator.execute(with_key("k", request_at(&[&one, &two]))).await.unwrap();
    let answered = committed.transaction.unwrap();
    let committed = answered.id;
    two.set_script(|heard| match is_prepare(heard) {
        true => Reply::Refuse("OUT_OF_LUCK".into()),
        false => agree(heard),
    });
    let aborted = coordinator.execute(request_at(&[&one, &two])).await.unwrap();
    let aborted = aborted.transaction.unwrap().id;

    for round in ["in this run", "after a restart"] {
        let story = coordinator.ended(&committed).await.unwrap();
        let by = Some(By::RequestKey("k".into()));
        let answer = coordinator.transactions.get(GetTransactionRequest { by }).await.unwrap();
        let answer = answer.into_inner();
        assert!(answer.committed);
        assert_eq!(answer.transaction.unwrap().trail, story.trail, "{round}");
        let told = kinds(&story);
        assert_eq!(told.first(), Some(&TrailKind::Begun), "{round}: {told:?}");
        assert_eq!(told.last(), Some(&TrailKind::Ended), "{round}: {told:?}");
        assert_eq!(count(&story, TrailKind::VotedCommit), 2, "{round}: {told:?}");
        assert_eq!(count(&story, TrailKind::DecidedCommit), 1, "{round}: {told:?}");
        assert_eq!(count(&story, TrailKind::CommitAcknowledged), 2, "{round}: {told:?}");
        let position = |kind| told.iter().position(|it| *it == kind).unwrap();
        let last_vote = told.iter().rposition(|it| *it == TrailKind::VotedCommit).unwrap();
        assert!(position(TrailKind::PrepareSent) < position(TrailKind::VotedCommit));
        assert!(last_vote < position(TrailKind::DecidedCommit), "{round}: {told:?}");
        assert!(position(TrailKind::DecidedCommit) < position(TrailKind::CommitAcknowledged));
        let times = story.trail.iter().map(|event| event.at.unwrap());
        let times: Vec<SystemTime> = times.map(|at| at.try_into().unwrap()).collect();
        assert!(times.is_sorted(), "{round}: {times:?}");
        assert!(story.begun_at.is_some() && story.decided_at.is_some());
        assert_eq!(story.branches, answered.branches, "{round}: as Execute answered");
        assert_eq!(story.branches.len(), 2);
        assert_eq!(story.branches[0].participant, one.uri());

        let story = coordinator.ended(&aborted).await.unwrap();
        let refused = |event: &&dtc_proto::dtc::TrailEvent| event.kind() == TrailKind::VotedAbort;
        let refusal = story.trail.iter().find(refused).unwrap();
        assert_eq!(refusal.branch, Some(1));
        assert_eq!(refusal.participant, two.uri());
        assert!(refusal.detail.contains("OUT_OF_LUCK"), "{round}: {refusal:?}");
        assert_eq!(count(&story, TrailKind::DecidedAbort), 1);
        assert_eq!(story.abort_reason.as_ref().unwrap().participant, two.uri());
        assert!(!story.committed);
        // Not killed: an abort nobody has to be told of is not written at once.
        coordinator.process.stop().await.unwrap();
        coordinator.process.start().await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_transaction_is_not_found_and_never_called_aborted() {
    let mut coordinator = Alone::start().await.unwrap();
    let id = "01890000-0000-7000-8000-000000000000";
    for by in [By::TransactionId(id.into()), By::RequestKey("nobody's".into())] {
        let request = GetTransactionRequest { by: Some(by) };
        let status = coordinator.transactions.get(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
    }
    let request = WatchTransactionRequest { transaction_id: id.into() };
    let status = coordinator.transactions.watch(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

/// All ids that a request lists, page by page.
async fn list(
    coordinator: &Alone,
    mut request: ListTransactionsRequest,
) -> Result<Vec<Transaction>, Status> {
    let mut all = Vec::new();
    loop {
        let answer = coordinator.transactions.clone().list(request.clone()).await?.into_inner();
        if request.page_size > 0 {
            assert!(answer.transactions.len() <= request.page_size as usize);
        }
        all.extend(answer.transactions);
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}

#[tokio::test]
async fn list_filters_and_pages_over_what_is_in_memory_and_what_has_ended() {
    let coordinator = Alone::start().await.unwrap();
    let (one, two, three) = (linked().await, linked().await, linked().await);
    let mut committed = Vec::new();
    for _ in 0..15 {
        let answer = coordinator.execute(request_at(&[&one, &two])).await.unwrap();
        committed.push(answer.transaction.unwrap().id);
    }
    let gate = Gate::before(&three, is_commit);
    let mut open = Vec::new();
    for _ in 0..5 {
        let request = at_decision(request_at(&[&one, &three]));
        open.push(coordinator.execute(request).await.unwrap().transaction.unwrap().id);
    }
    three.set_script(|_| Reply::Refuse("NO".into()));
    let mut aborted = Vec::new();
    for _ in 0..5 {
        let answer = coordinator.execute(request_at(&[&two, &three])).await.unwrap();
        aborted.push(answer.transaction.unwrap().id);
    }
    for id in committed.iter().chain(&aborted) {
        coordinator.ended(id).await.unwrap();
    }
    let ids = async |request: ListTransactionsRequest| -> Vec<String> {
        let found = list(&coordinator, request).await.unwrap();
        assert!(found.iter().all(|it| it.trail.is_empty()));
        found.into_iter().map(|it| it.id).collect()
    };
    let all: Vec<String> = committed.iter().chain(&open).chain(&aborted).rev().cloned().collect();
    for page_size in [0, 1, 3, 7, 25, 1000] {
        let request = ListTransactionsRequest { page_size, ..Default::default() };
        assert_eq!(ids(request).await, all, "newest first, pages of {page_size}");
    }
    let newest = |ids: &[String]| ids.iter().rev().cloned().collect::<Vec<_>>();
    let page_size = 2;
    let states = |state: TransactionState| ListTransactionsRequest {
        states: vec![state.into()],
        page_size,
        ..Default::default()
    };
    assert_eq!(ids(states(TransactionState::Committed)).await, newest(&committed));
    assert_eq!(ids(states(TransactionState::Committing)).await, newest(&open));
    assert_eq!(ids(states(TransactionState::Aborted)).await, newest(&aborted));
    assert!(ids(states(TransactionState::Active)).await.is_empty());
    let outcomes = |outcome: Outcome| ListTransactionsRequest {
        outcomes: vec![outcome.into()],
        page_size,
        ..Default::default()
    };
    assert_eq!(ids(outcomes(Outcome::Aborted)).await, newest(&aborted));
    assert_eq!(ids(outcomes(Outcome::Committed)).await.len(), committed.len() + open.len());
    let participant = three.uri();
    let at_three = ListTransactionsRequest { participant, page_size, ..Default::default() };
    assert_eq!(ids(at_three).await.len(), open.len() + aborted.len());

    let middle = coordinator.transaction(&committed[10]).await.unwrap().begun_at;
    let after = ListTransactionsRequest { begun_after: middle, page_size, ..Default::default() };
    let before = ListTransactionsRequest { begun_before: middle, page_size, ..Default::default() };
    let (after, before) = (ids(after).await, ids(before).await);
    assert!(after.contains(&committed[10]) && !before.contains(&committed[10]));
    let both: BTreeSet<_> = after.iter().chain(&before).collect();
    assert_eq!((both.len(), after.len() + before.len()), (all.len(), all.len()));

    for (request, field) in [
        (ListTransactionsRequest { page_size: 1001, ..Default::default() }, "page_size"),
        (ListTransactionsRequest { page_token: "x".into(), ..Default::default() }, "page_token"),
    ] {
        let status = list(&coordinator, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field), "{status}");
    }
    three.set_script(agree);
    gate.open();
}

#[tokio::test]
async fn more_in_memory_than_are_looked_at_in_one_turn_are_all_listed_once() {
    let coordinator = Alone::start().await.unwrap();
    let mut begun = Vec::new();
    for _ in 0..600 {
        let begin = BeginRequest::default();
        let answer = coordinator.transactions.clone().begin(begin).await.unwrap();
        begun.push(answer.into_inner().transaction_id);
    }
    begun.reverse();
    for page_size in [250, 256, 1000] {
        let request = ListTransactionsRequest { page_size, ..ListTransactionsRequest::default() };
        let found = list(&coordinator, request).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|transaction| transaction.id).collect();
        assert_eq!(found, begun, "newest first, in pages of {page_size}");
    }
}

#[tokio::test]
async fn a_commit_that_is_retried_for_long_is_listed_as_stalled() {
    let start = integration_tests::Start::new();
    let start = start.arg("--stalled-after").arg("2").arg("--backoff-cap").arg("100ms");
    let coordinator = Alone::start_with(start).await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&two, is_commit);
    let answer = coordinator.execute(at_decision(request_at(&[&one, &two]))).await.unwrap();
    let id = answer.transaction.unwrap().id;
    let stalled = ListTransactionsRequest { stalled: true, ..Default::default() };
    eventually("it is called stalled", async || {
        let found = list(&coordinator, stalled.clone()).await?;
        anyhow::ensure!(found.len() == 1 && found[0].id == id, "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
    let transaction = coordinator.transaction(&id).await.unwrap();
    assert!(transaction.committed, "nothing else changes");
    assert_eq!(count(&transaction, TrailKind::Stalled), 1);
    gate.open();
    assert!(!coordinator.ended(&id).await.unwrap().stalled);
    assert!(list(&coordinator, stalled).await.unwrap().is_empty());
}

#[tokio::test]
async fn watch_shows_the_transaction_now_and_after_each_event_until_it_has_ended() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&two, is_commit);
    let answer = coordinator.execute(at_decision(request_at(&[&one, &two]))).await.unwrap();
    let id = answer.transaction.unwrap().id;
    let request = WatchTransactionRequest { transaction_id: id.clone() };
    let watch = coordinator.transactions.watch(request.clone()).await.unwrap();
    let mut watch = watch.into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert!(first.event.is_none());
    let now = first.transaction.unwrap();
    assert_eq!(now.state(), TransactionState::Committing);
    assert!(!now.trail.is_empty());
    gate.open();
    let mut last = None;
    let mut seen = Vec::new();
    while let Some(next) = watch.message().await.unwrap() {
        seen.extend(next.event.map(|event| event.kind()));
        last = next.transaction;
    }
    assert_eq!(last.unwrap().state(), TransactionState::Committed);
    assert!(seen.contains(&TrailKind::CommitAcknowledged), "{seen:?}");

    let mut ended = coordinator.transactions.watch(request).await.unwrap().into_inner();
    let only = ended.message().await.unwrap().unwrap().transaction.unwrap();
    assert_eq!((only.id.as_str(), only.state()), (id.as_str(), TransactionState::Committed));
    assert!(ended.message().await.unwrap().is_none());
}
