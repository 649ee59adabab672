//! The coordinator against participants that are silent, late, dead, forgetful
//! or faithless, and a network that loses answers.

mod answers;
mod faithless;
mod network;
mod plain;
mod silent;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    Acknowledgement, AnswerAt, BranchState, ExecuteRequest, ExecuteResponse, GetOutcomeRequest,
    LinkAcknowledgement, LinkResponse, LinkState, LinkVote, ListParticipantsRequest,
    ListTransactionsRequest, Outcome, Participant, ParticipantStatus, RegisterRequest, TrailKind,
    Transaction, TransactionOptions, TransactionState, Vote,
    recovery_service_client::RecoveryServiceClient,
};
use integration_tests::{
    Alone, Cluster, Direction, FakeCoordinator, FakeParticipant, Heard, Proxy, Purchase, Reply,
    Speaks, Start, agree, branches_at, eventually, is_commit, is_prepare,
};
use prost::bytes::Bytes;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use uuid::Uuid;

/// A transaction at these addresses.
fn request_at(uris: &[String]) -> ExecuteRequest {
    let branches = branches_at(uris.iter().map(String::as_str));
    ExecuteRequest { branches, ..ExecuteRequest::default() }
}

/// Attempts of a quarter of a second, and this deadline of prepare.
fn within(deadline: Duration, request: ExecuteRequest) -> ExecuteRequest {
    let attempt = Duration::from_millis(250).try_into().ok();
    let options = TransactionOptions {
        prepare_timeout: deadline.try_into().ok(),
        prepare_attempt_timeout: attempt,
        commit_attempt_timeout: attempt,
        ..TransactionOptions::default()
    };
    ExecuteRequest { options: Some(options), ..request }
}

const SHORT: Duration = Duration::from_millis(700);
/// A deadline that no test reaches.
const LONG: Duration = Duration::from_secs(100);

type Running = JoinHandle<Result<ExecuteResponse, Status>>;

fn spawn(coordinator: &Alone, request: ExecuteRequest) -> Running {
    let mut client = coordinator.transactions.clone();
    tokio::spawn(async move { Ok(client.execute(request).await?.into_inner()) })
}

async fn run(coordinator: &Alone, request: ExecuteRequest) -> Transaction {
    let answer = coordinator.execute(request).await.unwrap();
    let transaction = answer.transaction.unwrap();
    assert_eq!(answer.committed, transaction.committed);
    transaction
}

fn is_rollback(heard: &Heard) -> bool {
    matches!(heard, Heard::Rollback(_))
}

fn id_of(heard: &Heard) -> &str {
    match heard {
        Heard::Prepare(it) => &it.transaction_id,
        Heard::Commit(it) => &it.transaction_id,
        Heard::Rollback(it) => &it.transaction_id,
        Heard::Hello(_) | Heard::Outcome(_) => "",
    }
}

/// The first message of a kind, once it has come: about the transaction, or any.
async fn heard(participant: &FakeParticipant, id: Option<&str>, is: fn(&Heard) -> bool) -> Heard {
    eventually("the participant hears of it", async || {
        let all = participant.heard();
        let mut wanted = all.iter().filter(|it| is(it) && id.is_none_or(|id| id_of(it) == id));
        wanted.next().cloned().with_context(|| format!("{all:?}"))
    })
    .await
    .unwrap()
}

fn silent_to(participant: &FakeParticipant, is: fn(&Heard) -> bool) {
    participant.set_script(move |heard| if is(heard) { Reply::Silence } else { agree(heard) });
}

fn states(transaction: &Transaction) -> Vec<BranchState> {
    transaction.branches.iter().map(|branch| branch.state()).collect()
}

fn count(transaction: &Transaction, kind: TrailKind) -> usize {
    transaction.trail.iter().filter(|event| event.kind() == kind).count()
}

fn bytes(id: &str) -> Bytes {
    Bytes::copy_from_slice(Uuid::parse_str(id).unwrap().as_bytes())
}

/// A participant behind a proxy, and its address there.
async fn behind_proxy(speaks: Speaks) -> (FakeParticipant, Proxy, String) {
    let participant = FakeParticipant::start(speaks).await.unwrap();
    let proxy = Proxy::start(participant.address()).await.unwrap();
    let uri = participant.uri_at(proxy.address());
    (participant, proxy, uri)
}
