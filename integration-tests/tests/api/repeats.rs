//! A repeat gets the first outcome, whatever has changed since, over every way in.

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AcquireLocksRequest, BeginRequest, Branch, DeregisterRequest, EnlistRequest, ExecuteRequest,
    ExecuteStreamItem, ExecuteStreamRequest, Lock, Participant, Payload, RegisterRequest,
    execute_stream_result::Result as Outcome, payload::Kind,
};
use integration_tests::{Alone, FakeParticipant, Rest, Speaks, Start, eventually};
use prost_types::{Struct, Value, value::Kind as Json};
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::{Gate, at_decision, is_commit, linked, seconds};

/// How a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Unary,
    Stream,
    Http,
}

const WAYS: [Way; 3] = [Way::Unary, Way::Stream, Way::Http];

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Transaction { id: String, committed: bool, reason: Option<String> },
    KeyTaken,
    Refused(String),
}

/// Transactions over each way that are to be repeated.
struct Fixture {
    coordinator: Alone,
    rest: Rest,
    /// The participants' names or addresses.
    at: Vec<String>,
    text: String,
    locks: Vec<String>,
    first: Vec<(Way, Told)>,
}

fn told(answer: Result<dtc_proto::dtc::ExecuteResponse, Status>) -> Told {
    match answer {
        Ok(answer) => {
            let transaction = answer.transaction.unwrap();
            let reason = transaction.abort_reason.map(|reason| reason.code);
            Told::Transaction { id: transaction.id, committed: answer.committed, reason }
        }
        Err(status) if status.code() == Code::AlreadyExists => Told::KeyTaken,
        Err(status) => Told::Refused(format!("{:?}: {}", status.code(), status.message())),
    }
}

impl Fixture {
    async fn new(start: Start, at: Vec<String>) -> Self {
        let coordinator = Alone::start_with(start).await.unwrap();
        let rest = Rest::new(coordinator.process.address());
        Self { coordinator, rest, at, text: "x".into(), locks: Vec::new(), first: Vec::new() }
    }

    fn request(&self, key: &str, text: &str) -> ExecuteRequest {
        let branch = |participant: &String| {
            let value = Value { kind: Some(Json::StringValue(text.into())) };
            let object = Struct { fields: [("text".to_owned(), value)].into() };
            let payload = Some(Payload { kind: Some(Kind::Json(object)) });
            Branch { participant: participant.clone(), payload }
        };
        let lock = |key: &String| Lock { key: key.clone(), ..Lock::default() };
        at_decision(ExecuteRequest {
            request_key: key.into(),
            branches: self.at.iter().map(branch).collect(),
            locks: self.locks.iter().map(lock).collect(),
            ..ExecuteRequest::default()
        })
    }

    async fn run(&self, way: Way, key: &str, text: &str) -> Told {
        let request = self.request(key, text);
        let mut transactions =
            self.coordinator.transactions.clone().max_decoding_message_size(64 << 20);
        match way {
            Way::Unary => told(transactions.execute(request).await.map(|it| it.into_inner())),
            Way::Stream => {
                let item = ExecuteStreamItem { tag: 7, request: Some(request) };
                let items = tokio_stream::once(ExecuteStreamRequest { items: vec![item] });
                let answer = async {
                    let mut answers = transactions.execute_stream(items).await?.into_inner();
                    let answer = answers.next().await.unwrap_or_else(|| {
                        Err(Status::unknown("the stream ended without a result"))
                    })?;
                    match answer.results.into_iter().next().and_then(|it| it.result) {
                        Some(Outcome::Response(answer)) => Ok(answer),
                        Some(Outcome::Error(error)) => {
                            Err(Status::new(Code::from_i32(error.code), error.message))
                        }
                        None => Err(Status::unknown("no result")),
                    }
                };
                told(answer.await)
            }
            Way::Http => {
                let branch = |at: &String| json!({"participant": at, "payload": {"text": text}});
                let lock = |key: &String| json!({"key": key});
                let body = json!({
                    "branches": self.at.iter().map(branch).collect::<Vec<_>>(),
                    "locks": self.locks.iter().map(lock).collect::<Vec<_>>(),
                    "answer_at": "decision",
                });
                let headers = [("content-type", "application/json"), ("idempotency-key", key)];
                let path = "/transactions?wait=30";
                let answer =
                    self.rest.send("POST", path, &headers, body.to_string()).await.unwrap();
                match answer.status.as_u16() {
                    201 => Told::Transaction {
                        id: answer.text("id").into(),
                        committed: answer.text("state") == "committed",
                        reason: answer.body["reason"]["code"].as_str().map(Into::into),
                    },
                    422 => Told::KeyTaken,
                    status => Told::Refused(format!("{status}: {}", answer.body)),
                }
            }
        }
    }

    /// Each way's transaction, for the first time.
    async fn commit_all(&mut self) {
        for way in WAYS {
            let first = self.run(way, &format!("{way:?}"), &self.text).await;
            assert!(
                matches!(first, Told::Transaction { committed: true, .. }),
                "{way:?} {first:?}"
            );
            self.first.push((way, first));
        }
    }

    /// New work is refused with these words; what was done before is answered as then,
    /// also by another way than the first; and its key is good for no other body.
    async fn check(&self, words: &[&str]) {
        let refused = |told: &Told| match told {
            Told::Refused(why) => words.iter().any(|word| why.contains(word)),
            _ => false,
        };
        for (number, (first_way, first)) in self.first.iter().enumerate() {
            let key = format!("{first_way:?}");
            // What is large goes its own way only, for time's sake.
            for way in WAYS.into_iter().filter(|way| self.text.len() < 1000 || way == first_way) {
                let again = self.run(way, &key, &self.text).await;
                assert_eq!(again, *first, "{first_way:?}, repeated by {way:?}");
                let other = self.run(way, &key, "other").await;
                assert_eq!(other, Told::KeyTaken, "{first_way:?}, another body by {way:?}");
                let new = self.run(way, &format!("new {number} {way:?}"), &self.text).await;
                assert!(refused(&new), "{way:?}: {new:?}");
            }
        }
    }

    /// The same with other flags, and once more with those after a kill.
    async fn check_after(&mut self, flags: &[(&str, &str)], words: &[&str]) {
        for clean in [true, false] {
            if clean {
                self.coordinator.process.stop().await.unwrap();
            } else {
                self.coordinator.process.kill();
            }
            let start = flags
                .iter()
                .fold(Start::new(), |start, (flag, value)| start.arg(*flag).arg(*value));
            self.coordinator.process.start_with(start).await.unwrap();
            self.check(words).await;
        }
    }

    async fn register(&self, name: &str, address: &str, lease: Option<i64>) {
        let (name, address) = (name.into(), address.into());
        let participant = Some(Participant { name, address, ..Participant::default() });
        let request = RegisterRequest { participant, lease: lease.map(seconds) };
        self.coordinator.registry.clone().register(request).await.unwrap();
    }
}

async fn registered(lease: Option<i64>) -> (Fixture, FakeParticipant, FakeParticipant) {
    let (one, two) = (linked().await, linked().await);
    let fixture = Fixture::new(Start::new(), vec!["one".into(), "two".into()]).await;
    fixture.register("one", &one.uri(), lease).await;
    fixture.register("two", &two.uri(), None).await;
    (fixture, one, two)
}

#[tokio::test]
async fn after_the_end_of_a_lease() {
    let (mut fixture, _one, _two) = registered(Some(5)).await;
    fixture.commit_all().await;
    eventually("the lease has run out", async || {
        let key = format!("probe {:?}", std::time::Instant::now());
        let new = fixture.run(Way::Unary, &key, "x").await;
        ensure!(matches!(new, Told::Refused(_)), "{new:?}");
        Ok(())
    })
    .await
    .unwrap();
    fixture.check(&["renew"]).await;
}

#[tokio::test]
async fn after_the_participant_was_deregistered() {
    let (mut fixture, _one, _two) = registered(None).await;
    fixture.commit_all().await;
    let deregister = async || {
        let request = DeregisterRequest { name: "one".into(), drain: false };
        let answer = fixture.coordinator.registry.clone().deregister(request).await?.into_inner();
        ensure!(answer.removed, "{answer:?}");
        Ok(())
    };
    eventually("it is deregistered", deregister).await.unwrap();
    deregister().await.context("repeated").unwrap();
    fixture.check(&["'one'"]).await;
    fixture.check_after(&[], &["'one'"]).await;
}

#[tokio::test]
async fn while_the_participant_is_drained_and_the_first_is_unfinished() {
    let (mut fixture, one, _two) = registered(None).await;
    let gate = Gate::before(&one, is_commit);
    fixture.commit_all().await;
    let request = DeregisterRequest { name: "one".into(), drain: true };
    for _ in 0..2 {
        let request = request.clone();
        let answer = fixture.coordinator.registry.clone().deregister(request).await.unwrap();
        assert!(!answer.into_inner().removed);
    }
    fixture.check(&["drained"]).await;
    fixture.check_after(&[], &["drained"]).await;
    gate.open();
}

#[tokio::test]
async fn after_the_participant_speaks_another_language() {
    let (mut fixture, _one, _two) = registered(None).await;
    fixture.commit_all().await;
    let typed = |key: &str| {
        let mut request = fixture.request(key, "x");
        for branch in &mut request.branches {
            branch.payload = Some(Payload { kind: Some(Kind::Typed(vec![7; 3].into())) });
        }
        request
    };
    let first = told(fixture.coordinator.execute(typed("typed")).await);
    assert!(matches!(first, Told::Transaction { committed: true, .. }), "{first:?}");
    let http = FakeParticipant::start(Speaks::Http).await.unwrap();
    fixture.register("one", &http.uri(), None).await;
    assert_eq!(told(fixture.coordinator.execute(typed("typed")).await), first);
    let new = told(fixture.coordinator.execute(typed("new")).await);
    assert!(matches!(&new, Told::Refused(why) if why.contains("speaks HTTP")), "{new:?}");
}

#[tokio::test]
async fn under_smaller_limits_and_with_a_full_disk() {
    let (one, two) = (linked().await, linked().await);
    let mut fixture = Fixture::new(Start::new(), vec![one.uri(), two.uri()]).await;
    fixture.locks = vec!["a".into(), "b".into()];
    fixture.commit_all().await;
    // One that holds up all that is bounded.
    let gate = Gate::before(&one, is_commit);
    for (flags, words) in [
        (&[("--allow-participant", "10.0.0.0/8")][..], "--allow-participant"),
        (&[("--max-branches", "1")], "--max-branches"),
        (&[("--max-lock-keys", "1")], "--max-lock-keys"),
        (&[("--max-locks", "1")], "--max-locks"),
        (&[("--max-in-flight-bytes", "1")], "--max-in-flight-bytes"),
        (&[("--min-free", "18446744073709551615")], "--min-free"),
    ] {
        fixture.check_after(flags, &[words]).await;
    }
    for flag in ["--max-in-flight", "--max-per-participant"] {
        fixture.coordinator.process.stop().await.unwrap();
        fixture.coordinator.process.start_with(Start::new().arg(flag).arg("1")).await.unwrap();
        fixture.locks.clear();
        let full = fixture.run(Way::Unary, &format!("fills {flag}"), "x").await;
        assert!(matches!(full, Told::Transaction { committed: true, .. }), "{full:?}");
        fixture.locks = vec!["a".into(), "b".into()];
        fixture.check(&[flag]).await;
    }
    gate.open();
}

#[tokio::test]
async fn with_payloads_that_would_be_too_large_now() {
    let (one, two, three) = (linked().await, linked().await, linked().await);
    let at = vec![one.uri(), two.uri(), three.uri()];
    let mut fixture = Fixture::new(Start::new(), at).await;
    fixture.text = "x".repeat((3 << 20) - 100);
    let large = Start::new().arg("--max-payload").arg((3 << 20).to_string());
    fixture.coordinator.process.stop().await.unwrap();
    fixture.coordinator.process.start_with(large).await.unwrap();
    fixture.commit_all().await;
    fixture.check_after(&[("--max-payload", "1000")], &["--max-payload"]).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_transaction_is_begun_a_branch_enlisted_and_a_session_begun_once() {
    let (one, two) = (linked().await, linked().await);
    let mut fixture = Fixture::new(Start::new(), vec![one.uri(), two.uri()]).await;
    let key = || "k".to_owned();
    let begin = BeginRequest { request_key: key(), ..BeginRequest::default() };
    let mut ids = Vec::new();
    for way in ["grpc", "http"] {
        for _ in 0..2 {
            ids.push(match way {
                "grpc" => {
                    let mut transactions = fixture.coordinator.transactions.clone();
                    transactions.begin(begin.clone()).await.unwrap().into_inner().transaction_id
                }
                _ => {
                    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
                    let body = json!({"interactive": true}).to_string();
                    let sent = fixture.rest.send("POST", "/transactions", &headers, body);
                    let answer = sent.await.unwrap();
                    assert_eq!(answer.status, 201, "{answer:?}");
                    answer.text("id").into()
                }
            });
        }
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let id = ids[0].clone();
    let taken = fixture.run(Way::Unary, "k", "x").await;
    assert_eq!(taken, Told::KeyTaken, "the key of one that was begun");

    let branch = fixture.request("", "x").branches.remove(0);
    let enlist = |key: &str, branch: &Branch| EnlistRequest {
        transaction_id: id.clone(),
        branch: Some(branch.clone()),
        request_key: key.into(),
    };
    let over_grpc = async |fixture: &Fixture, request: EnlistRequest| {
        let mut transactions = fixture.coordinator.transactions.clone();
        transactions.enlist(request).await.map(|answer| answer.into_inner().branch)
    };
    let path = format!("/transactions/{id}/branches");
    let over_http = async |fixture: &Fixture, key: &str, text: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let body = json!({"participant": one.uri(), "payload": {"text": text}}).to_string();
        let answer = fixture.rest.send("POST", &path, &headers, body).await.unwrap();
        (answer.status.as_u16(), answer.body["branch"].as_u64())
    };
    for _ in 0..2 {
        assert_eq!(over_grpc(&fixture, enlist("a", &branch)).await.unwrap(), 0);
        assert_eq!(over_http(&fixture, "a", "x").await, (201, Some(0)));
        assert_eq!(over_http(&fixture, "b", "y").await, (201, Some(1)));
    }
    let other = Branch { participant: two.uri(), ..branch.clone() };
    let taken = over_grpc(&fixture, enlist("a", &other)).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert_eq!(over_http(&fixture, "a", "z").await.0, 422);

    let commit = dtc_proto::dtc::CommitTransactionRequest {
        transaction_id: id.clone(),
        ..Default::default()
    };
    for _ in 0..2 {
        let mut transactions = fixture.coordinator.transactions.clone();
        let answer = transactions.commit(commit.clone()).await.unwrap().into_inner();
        assert!(answer.committed, "{answer:?}");
        assert_eq!(answer.transaction.unwrap().branches.len(), 2);
    }
    for round in ["after its end", "after a restart"] {
        assert_eq!(over_grpc(&fixture, enlist("a", &branch)).await.unwrap(), 0, "{round}");
        assert_eq!(over_http(&fixture, "b", "y").await, (201, Some(1)), "{round}");
        let late = over_grpc(&fixture, enlist("late", &branch)).await.unwrap_err();
        assert_eq!(late.code(), Code::FailedPrecondition, "{round}");
        let again = fixture.coordinator.transactions.clone().begin(begin.clone()).await.unwrap();
        assert_eq!(again.into_inner().transaction_id, id, "{round}");
        let full = Start::new().arg("--min-free").arg(u64::MAX.to_string());
        fixture.coordinator.process.stop().await.unwrap();
        fixture.coordinator.process.start_with(full).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_about_locks_is_the_answer_of_the_repeat() {
    let mut fixture = Fixture::new(Start::new(), Vec::new()).await;
    let acquire = |key: &str, lock: &str| AcquireLocksRequest {
        locks: vec![Lock { key: lock.into(), ..Lock::default() }],
        wait: Some(seconds(0)),
        request_key: key.into(),
        ..AcquireLocksRequest::default()
    };
    let first = fixture.coordinator.locks.clone().acquire(acquire("k", "a")).await.unwrap();
    let first = first.into_inner();
    for flags in [&[][..], &["--min-free", "18446744073709551615"], &["--max-locks", "1"]] {
        if !flags.is_empty() {
            fixture.coordinator.process.kill();
            let start = flags.iter().fold(Start::new(), |start, flag| start.arg(*flag));
            fixture.coordinator.process.start_with(start).await.unwrap();
        }
        let mut locks = fixture.coordinator.locks.clone();
        let again = locks.acquire(acquire("k", "a")).await.unwrap().into_inner();
        assert_eq!(again, first, "{flags:?}");
        let taken = locks.acquire(acquire("k", "b")).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists, "{flags:?}");
        let held = locks.acquire(acquire("new", "a")).await.unwrap_err();
        assert_ne!(held.code(), Code::AlreadyExists, "{flags:?}");
    }
    let release = dtc_proto::dtc::ReleaseLocksRequest {
        session_id: first.session_id.clone(),
        ..Default::default()
    };
    let mut locks = fixture.coordinator.locks.clone();
    for _ in 0..2 {
        assert_eq!(locks.release(release.clone()).await.unwrap().into_inner().released, 1);
    }
    let late = locks.acquire(acquire("k", "a")).await.unwrap_err();
    assert_eq!(late.code(), Code::NotFound, "{late}");
    assert!(late.message().contains(&first.session_id), "{late}");
}
