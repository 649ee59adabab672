//! How fast a coordinator that was killed finishes what it had decided.
//!
//! Participants by script promise everything and acknowledge nothing, until so
//! many commits are durable. Then the coordinator is killed and started again, and
//! they acknowledge.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AnswerAt, Branch, ExecuteRequest, ExecuteStreamItem, ExecuteStreamRequest,
    ListParticipantsRequest, execute_stream_result::Result as Outcome,
    registry_service_client::RegistryServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use futures::StreamExt;
use tonic::transport::Channel;

use crate::{
    Addresses, FakeParticipant, Heard, Process, Reply, Role, Speaks, Start, agree, build, channel,
    typed,
};

/// Items in a message.
const ITEMS: usize = 256;
const LOOK: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// Transactions a second where nothing fails.
    pub normal: f64,
    /// The same for those that were decided before the crash, from the start of the
    /// process on.
    pub recovered: f64,
    /// From the start of the process until it served.
    pub start_up: Duration,
    /// New transactions that were committed meanwhile, one after the other.
    pub new: usize,
    /// The longest that one of them took.
    pub longest: Duration,
}

/// Decides `count` transactions of three branches, kills the coordinator, and
/// watches it finish them.
///
/// # Errors
///
/// When a process cannot be started, or a transaction is not committed.
pub async fn measure(count: usize) -> anyhow::Result<Recovery> {
    let binaries = build::real()?;
    let folder = tempfile::Builder::new().prefix("dtc-").tempdir()?;
    let mut participants = Vec::new();
    for _ in 0..3 {
        participants.push(FakeParticipant::start(Speaks::Link).await?);
    }
    let limits = ["--max-in-flight", "--max-per-participant"].into_iter();
    let always = limits.fold(Start::new(), |start, limit| start.arg(limit).arg("1000000"));
    let always = always.arg("--commit-attempt-timeout").arg("60s").arg("--log").arg("warn");
    let address = Addresses::pick().coordinator;
    let program = binaries.path(Role::Coordinator);
    let mut coordinator =
        Process::new("coordinator", &program, folder.path(), address).always(always);
    coordinator.start().await?;
    let client = TransactionServiceClient::new(channel(address));
    let request = |answer_at: AnswerAt| ExecuteRequest {
        branches: participants.iter().map(branch_at).collect(),
        answer_at: answer_at.into(),
        wait: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..ExecuteRequest::default()
    };

    let begun = Instant::now();
    execute(client.clone(), request(AnswerAt::Completion), count).await?;
    let normal = count as f64 / begun.elapsed().as_secs_f64();

    for participant in &participants {
        participant.set_script(|heard| match heard {
            Heard::Commit(_) => Reply::Silence,
            heard => agree(heard),
        });
    }
    execute(client.clone(), request(AnswerAt::Decision), count).await?;
    coordinator.kill();
    for participant in &participants {
        participant.set_script(agree);
    }

    let begun = Instant::now();
    coordinator.start().await?;
    let start_up = begun.elapsed();
    let (mut new, mut longest) = (0, Duration::ZERO);
    let mut calls = client.clone();
    let one_by_one = async {
        loop {
            let sent = Instant::now();
            let answer = calls.execute(request(AnswerAt::Completion)).await;
            let committed = answer.context("a new transaction failed")?.into_inner().committed;
            ensure!(committed, "a new transaction was aborted");
            (new, longest) = (new + 1, longest.max(sent.elapsed()));
        }
    };
    tokio::select! {
        biased;
        finished = finished(RegistryServiceClient::new(channel(address))) => finished?,
        failed = one_by_one => failed?,
    }
    let recovered = count as f64 / begun.elapsed().as_secs_f64();
    Ok(Recovery { normal, recovered, start_up, new, longest })
}

fn branch_at(participant: &FakeParticipant) -> Branch {
    let payload = Some(typed(&ExecuteRequest::default()));
    Branch { participant: participant.uri(), payload }
}

/// Executes the same request so often over one stream.
async fn execute(
    mut client: TransactionServiceClient<Channel>,
    request: ExecuteRequest,
    count: usize,
) -> anyhow::Result<()> {
    let messages = (0..count).step_by(ITEMS).map(move |first| {
        let tags = first..count.min(first + ITEMS);
        let item = |tag| ExecuteStreamItem { tag: tag as u64, request: Some(request.clone()) };
        ExecuteStreamRequest { items: tags.map(item).collect() }
    });
    let mut answers = client.execute_stream(futures::stream::iter(messages)).await?.into_inner();
    let mut committed = 0;
    while let Some(answer) = answers.next().await {
        for result in answer?.results {
            match result.result {
                Some(Outcome::Response(response)) if response.committed => committed += 1,
                other => anyhow::bail!("not committed: {other:?}"),
            }
        }
    }
    ensure!(committed == count, "{committed} of {count} were answered");
    Ok(())
}

/// Waits until at most one transaction is unfinished: a new one.
async fn finished(mut registry: RegistryServiceClient<Channel>) -> anyhow::Result<()> {
    loop {
        let request = ListParticipantsRequest::default();
        let listed = registry.list_participants(request).await?.into_inner().participants;
        if listed.iter().all(|participant| participant.unfinished <= 1) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
