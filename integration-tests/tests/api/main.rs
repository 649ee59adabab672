//! Everything that a client can ask of the coordinator.

mod execute;
mod interactive;
mod keys;
mod look;
mod raw;
mod registry;
mod repeats;
mod services;
mod shapes;
mod stream;

use dtc_proto::dtc::{AnswerAt, ExecuteRequest, TransactionOptions};
use integration_tests::{FakeParticipant, Gate, Heard, Speaks, branches_at, is_commit, is_prepare};

/// A participant by script, with a link.
async fn linked() -> FakeParticipant {
    FakeParticipant::start(Speaks::Link).await.unwrap()
}

/// A transaction at these, with short attempts.
fn request_at(participants: &[&FakeParticipant]) -> ExecuteRequest {
    let uris: Vec<String> = participants.iter().map(|it| it.uri()).collect();
    ExecuteRequest {
        branches: branches_at(uris.iter().map(String::as_str)),
        options: Some(patient()),
        ..ExecuteRequest::default()
    }
}

/// Short attempts, and a deadline that no test reaches.
fn patient() -> TransactionOptions {
    TransactionOptions {
        prepare_timeout: Some(seconds(120)),
        prepare_attempt_timeout: Some(millis(300)),
        commit_attempt_timeout: Some(millis(300)),
        ..TransactionOptions::default()
    }
}

fn with_key(key: &str, request: ExecuteRequest) -> ExecuteRequest {
    ExecuteRequest { request_key: key.into(), ..request }
}

fn at_decision(request: ExecuteRequest) -> ExecuteRequest {
    ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..request }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn millis(millis: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }
}

/// Ids of the transactions that it was asked to prepare.
fn prepared_ids(participant: &FakeParticipant) -> Vec<String> {
    let heard = participant.heard();
    let ids = heard.iter().filter_map(|heard| match heard {
        Heard::Prepare(prepare) => Some(prepare.transaction_id.clone()),
        _ => None,
    });
    let mut ids: Vec<String> = ids.collect();
    ids.dedup();
    ids
}
