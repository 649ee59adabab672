//! A restart with very much to take up.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::ensure;
use dtc_proto::dtc::{
    AnswerAt, Branch, ExecuteRequest, ExecuteStreamItem, ExecuteStreamRequest, Transaction,
    TransactionOptions, TransactionState, execute_stream_result::Result as Outcome,
};
use integration_tests::{
    FakeParticipant, Fixture, Heard, Reply, Role::Coordinator, Speaks, agree, eventually, typed,
};
use shop_proto::ReserveStock;

const COUNT: u64 = 10_000;
const ITEMS: u64 = 500;

/// Two branches at one participant, answered when the decision is durable.
fn request(participant: &str) -> ExecuteRequest {
    let payload = Some(typed(&ReserveStock::default()));
    let branch = Branch { participant: participant.into(), payload };
    let patience = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let options = Some(TransactionOptions {
        prepare_timeout: patience(60),
        prepare_attempt_timeout: patience(30),
        commit_attempt_timeout: patience(60),
        ..TransactionOptions::default()
    });
    let answer_at = AnswerAt::Decision.into();
    let branches = vec![branch.clone(), branch];
    ExecuteRequest { branches, options, answer_at, ..ExecuteRequest::default() }
}

/// Runs them all and returns them as they were answered.
async fn run_all(fixture: &Fixture, participant: &str) -> anyhow::Result<Vec<Transaction>> {
    let request = request(participant);
    let messages = (0..COUNT / ITEMS).map(move |message| {
        let tags = message * ITEMS..(message + 1) * ITEMS;
        let item = |tag| ExecuteStreamItem { tag, request: Some(request.clone()) };
        ExecuteStreamRequest { items: tags.map(item).collect() }
    });
    let mut client = fixture.shop.transactions.clone();
    let mut answers =
        client.execute_stream(tokio_stream::iter(messages.collect::<Vec<_>>())).await?.into_inner();
    let mut transactions = Vec::new();
    while let Some(answer) = answers.message().await? {
        for result in answer.results {
            let Some(Outcome::Response(response)) = result.result else {
                anyhow::bail!("{result:?}");
            };
            ensure!(response.committed, "{response:?}");
            transactions.extend(response.transaction);
        }
    }
    Ok(transactions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_unfinished_transactions_are_finished_after_a_restart() {
    let mut fixture = Fixture::start().await.unwrap();
    let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
    let acknowledges = Arc::new(AtomicBool::new(false));
    participant.set_script({
        let acknowledges = Arc::clone(&acknowledges);
        move |heard| match heard {
            Heard::Commit(_) if !acknowledges.load(Relaxed) => Reply::Silence,
            heard => agree(heard),
        }
    });
    let transactions = run_all(&fixture, &participant.uri()).await.unwrap();
    assert_eq!(transactions.len() as u64, COUNT);
    fixture.cluster.coordinator.kill();
    let unfinished = "SELECT count(*) FROM unfinished";
    assert_eq!(fixture.count(Coordinator, unfinished).unwrap() as u64, COUNT);

    acknowledges.store(true, Relaxed);
    let before = participant.heard().len();
    fixture.cluster.coordinator.start().await.unwrap();
    let log = fixture.cluster.coordinator.log();
    assert!(log.contains(&format!("unfinished={COUNT}")), "{log}");
    eventually("all have ended", async || {
        let left = fixture.count(Coordinator, unfinished)?;
        ensure!(left == 0, "{left} have not");
        Ok(())
    })
    .await
    .unwrap();
    let told = participant.heard().into_iter().skip(before).filter_map(|heard| match heard {
        Heard::Commit(commit) => Some((commit.transaction_id, commit.branch)),
        _ => None,
    });
    assert_eq!(told.collect::<HashSet<_>>().len() as u64, 2 * COUNT);
    for transaction in [&transactions[0], &transactions[transactions.len() - 1]] {
        let ended = fixture.shop.transaction(&transaction.id).await.unwrap();
        assert_eq!(ended.state(), TransactionState::Committed);
    }
}
