//! `ExecuteStream`.

use std::collections::HashMap;

use dtc_proto::dtc::{
    ExecuteRequest, ExecuteStreamItem, ExecuteStreamRequest, execute_stream_result::Result as Done,
};
use integration_tests::{Alone, branches_at};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{Gate, is_prepare, linked, request_at};

#[tokio::test]
async fn many_items_are_answered_as_they_finish_and_a_bad_one_hurts_no_other() {
    const ITEMS: u64 = 400;
    const SLOW: u64 = 0;
    const BAD: [u64; 3] = [5, 200, 399];
    let coordinator = Alone::start().await.unwrap();
    let (slow, one, two) = (linked().await, linked().await, linked().await);
    let gate = Gate::before(&slow, is_prepare);
    let (requests, queued) = mpsc::channel(16);
    let mut client = coordinator.transactions.clone();
    let answers = client.execute_stream(ReceiverStream::new(queued)).await.unwrap();
    let mut answers = answers.into_inner();

    let item = |tag| {
        let request = match tag {
            SLOW => Some(request_at(&[&slow, &one])),
            5 => None,
            200 => Some(ExecuteRequest {
                branches: branches_at(["nobody"]),
                ..ExecuteRequest::default()
            }),
            399 => Some(ExecuteRequest::default()),
            _ => Some(request_at(&[&one, &two])),
        };
        ExecuteStreamItem { tag, request }
    };
    let tags: Vec<u64> = (0..ITEMS).collect();
    for some in tags.chunks(50) {
        let items = some.iter().map(|&tag| item(tag)).collect();
        requests.send(ExecuteStreamRequest { items }).await.unwrap();
    }
    drop(requests);

    let mut results = HashMap::new();
    let mut order = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        for result in answer.results {
            order.push(result.tag);
            assert!(results.insert(result.tag, result.result.unwrap()).is_none());
        }
        // The first one's turn comes when all the others are done.
        if results.len() as u64 == ITEMS - 1 {
            assert!(!results.contains_key(&SLOW));
            gate.open();
        }
    }
    assert_eq!(results.len() as u64, ITEMS);
    assert_eq!(order.last(), Some(&SLOW));
    for (tag, result) in results {
        match result {
            Done::Response(response) => {
                assert!(response.committed && !BAD.contains(&tag), "{tag}: {response:?}");
            }
            Done::Error(error) => {
                assert!(BAD.contains(&tag), "{tag}: {error:?}");
                assert_eq!(Code::from(error.code), Code::InvalidArgument);
                let field = if tag == 200 { "branches[0].participant" } else { "branches" };
                assert!(error.message.contains(field), "{tag}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_its_stream_leaves_whole_transactions() {
    let coordinator = Alone::start().await.unwrap();
    let (slow, quick) = (linked().await, linked().await);
    let gate = Gate::before(&slow, is_prepare);
    let (requests, queued) = mpsc::channel(16);
    let mut client = coordinator.transactions.clone();
    let answers = client.execute_stream(ReceiverStream::new(queued)).await.unwrap();
    let items = vec![ExecuteStreamItem { tag: 1, request: Some(request_at(&[&slow, &quick])) }];
    requests.send(ExecuteStreamRequest { items }).await.unwrap();
    let id = integration_tests::eventually("it is prepared", async || {
        anyhow::Context::context(crate::prepared_ids(&slow).pop(), "nothing came")
    })
    .await
    .unwrap();
    drop((requests, answers));
    gate.open();
    assert!(coordinator.ended(&id).await.unwrap().committed);
}
