//! Memory and sockets that a client can make a process hold.

use bytes::{BufMut, Bytes, BytesMut};
use dtc_proto::dtc::{ExecuteStreamItem, ExecuteStreamRequest, LinkRequest, LinkRollback};
use futures::{StreamExt, stream};
use http::Request;
use http_body_util::StreamBody;
use integration_tests::{FakeCoordinator, Process, channel};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tonic::{body::Body, transport::Channel};
use tower::ServiceExt;
use uuid::Uuid;

use super::*;

/// In KiB: what is held of requests that came in part, and as much again for
/// buffers on their way, and room for a build that is not optimised.
const MOST: u64 = 768 << 10;

#[track_caller]
fn is_bounded(process: &Process) {
    let memory = process.memory_kib().unwrap();
    assert!(memory < MOST, "{memory} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_very_many_items_is_run_a_part_at_a_time() {
    let coordinator = Alone::start().await.unwrap();
    const ITEMS: usize = 400_000;
    let message = ExecuteStreamRequest { items: vec![ExecuteStreamItem::default(); ITEMS] };
    let requests = tokio_stream::iter([message]);
    let mut client = coordinator.transactions.clone();
    let mut answers = client.execute_stream(requests).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        count += answer.results.len();
        is_bounded(&coordinator.process);
    }
    assert_eq!(count, ITEMS);
}

/// A request whose body begins as one of 8 MiB and stops in the middle.
pub(super) async fn half(channel: Channel, sent: Bytes) -> Result<(), ()> {
    let begun = stream::iter([Ok::<_, Status>(http_body::Frame::data(sent))]);
    let body = Body::new(StreamBody::new(begun.chain(stream::pending())));
    let path = "http://localhost/dtc.v1.TransactionService/Execute";
    let request = Request::post(path).header("content-type", "application/grpc");
    channel.oneshot(request.body(body).unwrap()).await.map(drop).map_err(|error| {
        eprintln!("a call ended without an answer: {error:?}");
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_in_part_hold_a_bounded_memory_and_stop_nobody() {
    let (mut cluster, shop) = open_shop().await;
    const LENGTH: u32 = 8 << 20;
    let mut begun = BytesMut::new();
    begun.put_u8(0);
    begun.put_u32(LENGTH);
    begun.put_bytes(0x0a, 1 << 20);
    let begun = begun.freeze();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let channel = channel(cluster.coordinator.address());
        for _ in 0..50 {
            calls.spawn(half(channel.clone(), begun.clone()));
        }
    }
    // Most are refused; those that fit wait for ever, as the client wants it.
    for _ in 0..600 {
        calls.join_next().await.unwrap().unwrap().unwrap();
        is_bounded(&cluster.coordinator);
    }
    assert!(shop.place(&purchase()).await.unwrap().committed);
    calls.abort_all();
    cluster.coordinator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_not_read_and_a_watch_that_is_not_read_hold_little() {
    let (cluster, shop) = open_shop().await;
    let id = Uuid::from_u128(7);
    let stranger = FakeCoordinator::new(cluster.inventory.address(), id, 1, id);
    let link = stranger.link().await.unwrap();
    let rollback = |number: u128| LinkRollback {
        transaction_id: Uuid::from_u128(number).as_bytes().to_vec().into(),
        decision_number: 1,
        ..LinkRollback::default()
    };
    let batch = |number: u128| {
        let some = number * 10_000..(number + 1) * 10_000;
        LinkRequest { rollbacks: some.map(rollback).collect(), ..LinkRequest::default() }
    };
    let flood = async {
        for number in 0..200 {
            link.send(batch(number)).await.unwrap();
        }
    };
    // It stops being read: that is what bounds it.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(3), flood).await;
    is_bounded(&cluster.inventory);

    let transaction_id = shop.begin(&purchase()).await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..100 {
        let request = WatchTransactionRequest { transaction_id: transaction_id.clone() };
        watches.push(shop.transactions.clone().watch(request).await.unwrap());
    }
    for number in 0..50 {
        let order = Purchase::new(&format!("order-{number}"), "ada", "teapot", 100, 1);
        shop.place(&order).await.unwrap();
    }
    is_bounded(&cluster.coordinator);
    let request = RollbackTransactionRequest { transaction_id, ..Default::default() };
    shop.transactions.clone().rollback(request).await.unwrap();
    drop((link, watches));
    shop.check().await.unwrap();
}

#[tokio::test]
async fn connections_that_never_begin_are_closed() {
    let coordinator = Alone::start().await.unwrap();
    let before = coordinator.process.open_files().unwrap();
    let mut open = Vec::new();
    for begun in [&b""[..], b"PRI * HTTP/2.0\r\n", b"P", b"GET / HTTP/1.1\r\nx"].repeat(20) {
        let mut stream = TcpStream::connect(coordinator.process.address()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        open.push(stream);
    }
    eventually("they are open", async || {
        let files = coordinator.process.open_files()?;
        ensure!(files >= before + open.len(), "{files} are open, {before} were");
        Ok(())
    })
    .await
    .unwrap();
    eventually("they are closed", async || {
        let files = coordinator.process.open_files()?;
        ensure!(files <= before + 2, "{files} are open, {before} were");
        Ok(())
    })
    .await
    .unwrap();
}
