//! What piles up: outputs, lines of the log, labels, and messages that never end.

use bytes::{BufMut, BytesMut};
use dtc_proto::dtc::{LinkState, ListParticipantsRequest, Transaction, TransactionState};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use integration_tests::{
    Fixture, Process, Rest,
    Role::{Coordinator, Payment},
    channel,
};

/// A payload that makes an output of so many bytes.
fn bytes(size: usize) -> Payload {
    Payload { kind: Some(Kind::Typed(vec![7; size].into())) }
}

/// As a person would ask for it.
async fn health(process: &Process, service: &str) -> anyhow::Result<ServingStatus> {
    let mut client = HealthClient::new(channel(process.address()));
    let request = HealthCheckRequest { service: service.into() };
    Ok(client.check(request).await?.into_inner().status())
}

async fn metrics(process: &Process) -> anyhow::Result<String> {
    // No JSON: the error has the text.
    let answer = Rest::new(process.address()).get("/metrics").await;
    Ok(answer.map_or_else(|error| error.to_string(), |answer| answer.body.to_string()))
}

#[tokio::test]
async fn outputs_of_what_is_not_acknowledged_are_bounded() {
    let start = Start::new().arg("--max-in-flight-bytes").arg((1 << 20).to_string());
    let coordinator = Alone::start_with(start.arg("--max-output").arg("400000")).await.unwrap();
    let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
    participant.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Promise(Some(bytes(300_000))),
        Heard::Commit(_) => Reply::Silence,
        heard => agree(heard),
    });
    let uri = participant.uri();
    let request = || ExecuteRequest {
        branches: branches_at([uri.as_str(), &uri]),
        answer_at: dtc_proto::dtc::AnswerAt::Decision.into(),
        ..ExecuteRequest::default()
    };
    // Two branches each: the second transaction finds room for one output only.
    assert!(coordinator.execute(request()).await.unwrap().committed);
    let second = coordinator.execute(request()).await.unwrap();
    let reason = second.transaction.unwrap().abort_reason.unwrap();
    assert_eq!(reason.code, "TOO_MANY_OUTPUTS", "{reason:?}");

    participant.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Promise(Some(bytes(400_001))),
        heard => agree(heard),
    });
    let large = coordinator.execute(request()).await.unwrap().transaction.unwrap();
    assert_eq!(large.abort_reason.unwrap().code, "OUTPUT_TOO_LARGE");
    // One answer too large is no reason to lose the link.
    let list = coordinator.registry.clone().list_participants(ListParticipantsRequest {}).await;
    let list = list.unwrap().into_inner().participants;
    assert!(list.iter().all(|it| it.link() == LinkState::Stream), "{list:?}");
}

/// Half a message, for ever.
async fn endless(address: std::net::SocketAddr, pieces: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let mut begun = BytesMut::new();
    begun.put_u8(0);
    begun.put_u32(8 << 20);
    begun.put_bytes(0x0a, 1 << 20);
    let begun = begun.freeze();
    let connection = channel(address);
    let half = |_| {
        let half = super::memory::half(connection.clone(), begun.clone());
        tokio::spawn(async move { half.await.unwrap_or_default() })
    };
    (0..pieces).map(half).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_never_end_shut_out_nobody() {
    let (mut cluster, shop) = open_shop().await;
    // More than all may hold, and more than a connection's share on each.
    for _ in 0..9 {
        endless(cluster.coordinator.address(), 33).await;
    }
    // One of a megabyte, which comes in many pieces, on a connection of its own.
    let large = with_branch(0, |it| it.payload = Some(bytes((1 << 20) - 64)));
    eventually("a large message finds room", async || {
        let answer = shop.execute(large.clone()).await?;
        let reason = answer.transaction.and_then(|it: Transaction| it.abort_reason);
        ensure!(reason.is_some_and(|reason| reason.code == "BAD_PAYLOAD"));
        Ok(())
    })
    .await
    .unwrap();
    assert!(shop.place(&purchase()).await.unwrap().committed);
    cluster.coordinator.stop().await.unwrap();
}

#[tokio::test]
async fn a_backlog_of_stalled_transactions_writes_few_lines() {
    let start = Start::new().arg("--stalled-after").arg("2").arg("--backoff-cap").arg("100ms");
    let coordinator = Alone::start_with(start).await.unwrap();
    let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
    participant.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Failed("not now".into()),
        heard => agree(heard),
    });
    let uri = participant.uri();
    for _ in 0..200 {
        let request = ExecuteRequest {
            branches: branches_at([uri.as_str(), &uri]),
            answer_at: dtc_proto::dtc::AnswerAt::Decision.into(),
            ..ExecuteRequest::default()
        };
        assert!(coordinator.execute(request).await.unwrap().committed);
    }
    let retried = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("dtc_retries_total "));
        line.and_then(|count| count.parse::<f64>().ok()).unwrap_or(0.0)
    };
    eventually("much is sent again", async || {
        ensure!(retried(&metrics(&coordinator.process).await?) > 3000.0);
        Ok(())
    })
    .await
    .unwrap();
    let lines = coordinator.process.log().lines().filter(|it| it.contains("sent again")).count();
    assert!(lines < 300, "{lines} lines");
}

/// SIGTERM while clients wait for what does not end: they hear that it is decided.
#[tokio::test]
async fn a_stop_answers_those_who_wait() {
    let drain = Start::new().arg("--drain-timeout").arg("4s");
    let mut coordinator = Alone::start_with(drain).await.unwrap();
    let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
    participant.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Silence,
        heard => agree(heard),
    });
    let stubborn = FakeParticipant::start(Speaks::Http).await.unwrap();
    stubborn.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Silence,
        heard => agree(heard),
    });
    let uri = participant.uri();
    let request = ExecuteRequest {
        branches: branches_at([uri.as_str(), &uri]),
        wait: seconds(3600),
        ..ExecuteRequest::default()
    };
    let execute = tokio::spawn({
        let (mut client, request) = (coordinator.transactions.clone(), request.clone());
        async move { client.execute(request).await.unwrap().into_inner() }
    });
    let streamed = tokio::spawn({
        let (mut client, request) = (coordinator.transactions.clone(), request.clone());
        let item = dtc_proto::dtc::ExecuteStreamItem { tag: 7, request: Some(request) };
        let items = dtc_proto::dtc::ExecuteStreamRequest { items: vec![item] };
        async move {
            let requests = futures::StreamExt::chain(
                futures::stream::iter([items]),
                futures::stream::pending(),
            );
            let mut answers = client.execute_stream(requests).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap()
        }
    });
    let rest = Rest::new(coordinator.process.address());
    let over_http = tokio::spawn({
        let body = serde_json::json!([stubborn.uri(), stubborn.uri()]);
        async move { rest.json("POST", "/transactions?wait=3600", &body).await.unwrap() }
    });
    eventually("all are decided", async || {
        let request = ListTransactionsRequest::default();
        let list = coordinator.transactions.clone().list(request).await?.into_inner().transactions;
        let decided = list.iter().filter(|it| it.state() == TransactionState::Committing).count();
        ensure!(decided == 3, "{list:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(coordinator.process.stop().await.unwrap().success());
    let answer = execute.await.unwrap();
    assert!(answer.committed, "{answer:?}");
    assert_eq!(answer.transaction.unwrap().state(), TransactionState::Committing);
    let streamed = streamed.await.unwrap();
    let result = streamed.results[0].result.clone();
    let committed = matches!(
        result,
        Some(dtc_proto::dtc::execute_stream_result::Result::Response(ref response)) if response.committed
    );
    assert!(committed, "{result:?}");
    let answer = over_http.await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
}

#[tokio::test]
async fn health_and_a_metric_show_that_new_work_is_refused_for_want_of_disk() {
    let mut fixture = Fixture::start().await.unwrap();
    for role in [Coordinator, Payment] {
        let process = fixture.cluster.process(role);
        let good = health(process, "").await.unwrap();
        assert_eq!(good, ServingStatus::Serving);
        assert!(metrics(process).await.unwrap().contains("dtc_accepting_new_work 1"));
        process.stop().await.unwrap();
        let full = Start::new().arg("--min-free").arg(u64::MAX.to_string());
        process.start_with(full).await.unwrap();
        for (service, status) in
            [("", ServingStatus::NotServing), ("liveness", ServingStatus::Serving)]
        {
            assert_eq!(health(process, service).await.unwrap(), status, "{role:?} {service}");
        }
        assert!(metrics(process).await.unwrap().contains("dtc_accepting_new_work 0"));
        assert!(process.log().contains("new work is refused"), "{}", process.log());
        process.stop().await.unwrap();
        process.start().await.unwrap();
        assert_eq!(health(process, "").await.unwrap(), ServingStatus::Serving);
    }
}
