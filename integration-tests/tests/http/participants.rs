//! The contract with participants that speak HTTP. Lost, late and repeated messages
//! are in the tests of faults, which they share with the others.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::any,
};
use dtc_proto::dtc::{Payload, payload::Kind};
use integration_tests::{FakeParticipant, Heard, Reply, Speaks, agree, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::{coordinator, http, states, urls};

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Value)>>>;

/// One that says yes to all and keeps what it was sent, byte by byte.
async fn witness() -> (String, Seen) {
    async fn note(State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
        let path = uri.path().to_owned();
        let output = if path.ends_with("/prepare") { "{\"seat\":  7.10}" } else { "" };
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        seen.lock().unwrap().push((path, headers, body));
        (StatusCode::OK, output).into_response()
    }
    let seen = Seen::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(any(note)).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/a/b/prepare"), seen)
}

#[tokio::test]
async fn bodies_and_headers_say_who_calls_and_about_what() {
    let (_coordinator, rest) = coordinator().await;
    let (url, seen) = witness().await;
    let other = http().await;
    let body = json!({"branches": [
        {"participant": other.uri()},
        {"participant": url, "payload": {"row": 3, "name": "Ada", "exact": 9007199254740991_u64}},
    ]});
    let committed = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    assert_eq!(committed.text("state"), "committed", "{committed:?}");
    let seen = seen.lock().unwrap().clone();
    let paths: Vec<_> = seen.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["/a/b/prepare", "/a/b/commit"]);
    for (_, headers, sent) in &seen {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(sent["transaction_id"], committed.text("id"));
        assert_eq!(header("dtc-transaction-id"), committed.text("id"));
        assert_eq!((&sent["branch"], header("dtc-branch")), (&json!(1), "1".into()));
        assert_eq!((&sent["epoch"], header("dtc-epoch")), (&json!(1), "1".into()));
        assert_eq!(header("dtc-coordinator-id"), sent["coordinator_id"].as_str().unwrap());
        assert_eq!(header("dtc-incarnation"), sent["incarnation"].as_str().unwrap());
        assert_eq!(header("content-type"), "application/json");
        let trace = committed.text("id").replace('-', "");
        let traceparent = header("traceparent");
        let parts: Vec<_> = traceparent.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[2].len(), parts[3]), ("00", &*trace, 16, "01"));
    }
    let (prepare, commit) = (&seen[0].2, &seen[1].2);
    assert_eq!(prepare["payload"], body["branches"][1]["payload"]);
    assert_eq!((&commit["output"], &commit["decision_number"]), (&json!({"seat": 7.1}), &json!(1)));
    let Some(Heard::Prepare(none)) = other.heard().into_iter().next() else { panic!("no prepare") };
    assert_eq!(none.payload, None, "a URL alone has no payload");
}

#[tokio::test]
async fn the_clients_trace_goes_on() {
    let (_coordinator, rest) = coordinator().await;
    let (url, seen) = witness().await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers =
        [("content-type", "application/json"), ("traceparent", parent), ("tracestate", "a=b")];
    let sent = rest.send("POST", "/transactions?wait=30", &headers, json!([url]).to_string());
    assert_eq!(sent.await.unwrap().text("state"), "committed");
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    for (path, headers, _) in &seen {
        let own = headers["traceparent"].to_str().unwrap();
        assert!(own.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{path}: {own}");
        assert!(!own.contains("00f067aa0ba902b7"), "{path}: each call is a span of its own");
        assert_eq!(headers["tracestate"], "a=b", "{path}");
    }
}

#[tokio::test]
async fn answers_that_say_nothing_are_asked_again_and_then_abort() {
    let (_coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    let request = |timeout: u64| {
        json!({"branches": [{"participant": one.uri()}, {"participant": two.uri()}],
               "options": {"prepare_timeout_ms": timeout, "prepare_attempt_timeout_ms": 200,
                           "commit_attempt_timeout_ms": 200}})
    };
    // Not now, then nonsense, then silence: a yes at last counts, and so does a done.
    let mut tries = [0; 3];
    one.set_script(move |heard| {
        let kind = match heard {
            Heard::Prepare(_) => 0,
            Heard::Commit(_) => 1,
            _ => 2,
        };
        tries[kind] += 1;
        match (tries[kind], heard) {
            (1, _) => Reply::Failed("not now".into()),
            (2, Heard::Prepare(_)) => Reply::Promise(Some(Payload {
                kind: Some(Kind::Typed("{no json".to_owned().into())),
            })),
            (2 | 3, _) => Reply::Silence,
            (_, heard) => agree(heard),
        }
    });
    let committed = rest.json("POST", "/transactions?wait=60", &request(60_000)).await.unwrap();
    assert_eq!(committed.text("state"), "committed", "{committed:?}");

    one.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Failed("never".into()),
        heard => agree(heard),
    });
    let aborted = rest.json("POST", "/transactions?wait=60", &request(700)).await.unwrap();
    assert_eq!(aborted.text("state"), "rolledback", "{aborted:?}");
    assert_eq!(aborted.body["reason"]["code"], "PREPARE_TIMEOUT");
    assert_eq!(states(&aborted.body), ["rolledback"; 2], "both were told: they can't ask");
    let all = rest.get("/participants").await.unwrap();
    let known = all.body["participants"].as_array().unwrap();
    let known = known.iter().find(|it| it["name"] == one.uri()).unwrap();
    assert!(
        known["last_error"]
            .as_str()
            .unwrap()
            .contains("500 Internal Server Error (200 means yes, 409 no): never")
    );
}

#[tokio::test]
async fn a_rollback_never_overtakes_a_prepare() {
    let (_coordinator, rest) = coordinator().await;
    let (slow, no) = (http().await, http().await);
    // The server notes when each call begins and when it ends or is closed.
    let running = Arc::new(Mutex::new((false, Vec::new())));
    let (url, log) = {
        let log = Arc::clone(&running);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(any(move |uri: Uri| {
            let log = Arc::clone(&log);
            async move {
                struct Ended(Arc<Mutex<(bool, Vec<String>)>>);
                impl Drop for Ended {
                    fn drop(&mut self) {
                        self.0.lock().unwrap().0 = false;
                    }
                }
                let path = uri.path().to_owned();
                let overtakes = {
                    let mut log = log.lock().unwrap();
                    log.1.push(path.clone());
                    log.0
                };
                if path == "/prepare" {
                    log.lock().unwrap().0 = true;
                    let _ended = Ended(log);
                    std::future::pending::<()>().await;
                }
                if overtakes { StatusCode::IM_A_TEAPOT } else { StatusCode::OK }
            }
        }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (format!("http://{address}/prepare"), running)
    };
    no.set_script(|heard| match heard {
        Heard::Prepare(_) => {
            Reply::After(Duration::from_millis(100), Box::new(Reply::Refuse("NO".into())))
        }
        heard => agree(heard),
    });
    let body = json!({"branches": [{"participant": url}, {"participant": no.uri()}, {"participant": slow.uri()}],
                      "options": {"prepare_timeout_ms": 60_000, "prepare_attempt_timeout_ms": 60_000}});
    let aborted = rest.json("POST", "/transactions?wait=60", &body).await.unwrap();
    assert_eq!(aborted.text("state"), "rolledback", "{aborted:?}");
    assert_eq!(aborted.body["branches"][0]["state"], "rolledback", "{aborted:?}");
    assert_eq!(log.lock().unwrap().1.first().map(String::as_str), Some("/prepare"));
    assert!(log.lock().unwrap().1.contains(&"/rollback".to_owned()));
}

#[tokio::test]
async fn one_that_lost_its_database_is_found_out_by_its_journal() {
    let (_coordinator, rest) = coordinator().await;
    let (one, two) = (Arc::new(http().await), http().await);
    let lossy = Arc::clone(&one);
    one.set_script(move |heard| {
        if matches!(heard, Heard::Commit(_)) {
            let lossy = Arc::clone(&lossy);
            std::thread::spawn(move || lossy.set_journal_id(Uuid::from_u128(7)));
            return Reply::After(Duration::from_millis(100), Box::new(Reply::Committed));
        }
        agree(heard)
    });
    let hazard = rest.json("POST", "/transactions?wait=30", &urls(&[&one, &two])).await.unwrap();
    assert_eq!(hazard.text("state"), "heuristic_hazard", "{hazard:?}");
    assert_eq!(states(&hazard.body), ["hazard", "committed"]);
}

#[tokio::test]
async fn a_precondition_that_failed_is_no_newer_run_without_the_mark() {
    let (_coordinator, rest) = coordinator().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prepare", listener.local_addr().unwrap());
    let router = Router::new()
        .fallback(any(|| async { (StatusCode::PRECONDITION_FAILED, [("dtc-epoch", "99")]) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let body = json!({
        "branches": [{"participant": url}], "options": {"prepare_timeout_ms": 700}
    });
    let aborted = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    assert_eq!(aborted.body["reason"]["code"], "PREPARE_TIMEOUT", "{aborted:?}");
    let heard = aborted.body["reason"]["message"].as_str().unwrap_or_default();
    assert!(heard.contains("412 Precondition Failed"), "{aborted:?}");
    let known = rest.get("/participants").await.unwrap();
    assert_eq!(known.body["participants"][0]["link"], "http", "{known:?}");
}

#[tokio::test]
async fn all_three_ways_in_one_transaction() {
    let (_coordinator, rest) = coordinator().await;
    let mut all = Vec::new();
    for speaks in Speaks::ALL {
        all.push(FakeParticipant::start(speaks).await.unwrap());
    }
    let branches: Vec<Value> =
        all.iter().map(|it| json!({"participant": it.uri(), "payload": {"seat": 1}})).collect();
    let body = json!({ "branches": branches });
    let committed = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    assert_eq!(states(&committed.body), ["committed"; 3], "{committed:?}");
    all[1].set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Refuse("NO".into()),
        heard => agree(heard),
    });
    let aborted = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    assert_eq!(aborted.body["reason"]["code"], "NO");
    eventually("all have heard", async || {
        let told = |it: &FakeParticipant| {
            it.heard().iter().any(|heard| {
                matches!(heard, Heard::Rollback(it) if it.transaction_id == aborted.text("id"))
            })
        };
        anyhow::ensure!(told(&all[0]) && told(&all[2]));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    let (_coordinator, rest) = coordinator().await;
    let connections = Arc::new(Mutex::new((0, 0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prepare", listener.local_addr().unwrap());
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut line, mut length, mut first) = (String::new(), 0, true);
                // Line by line, until the empty one; then the body.
                while stream.read_line(&mut line).await? > 0 {
                    let text = std::mem::take(&mut line).to_ascii_lowercase();
                    if let Some(value) = text.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    if text == "\r\n" {
                        stream.read_exact(&mut vec![0; length]).await?;
                        {
                            let mut counted = counted.lock().unwrap();
                            counted.0 += usize::from(std::mem::take(&mut first));
                            counted.1 += 1;
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    for _ in 0..20 {
        let done = rest.json("POST", "/transactions?wait=30", &json!([url])).await.unwrap();
        assert_eq!(done.text("state"), "committed", "{done:?}");
    }
    let (connections, requests) = *connections.lock().unwrap();
    assert_eq!(requests, 40);
    assert!(connections < 10, "{connections} connections for {requests} requests");
}
