//! Locks at the coordinator, with the real process.

mod deadlocks;
mod philosophers;
mod sessions;
mod transactions;

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AcquireLocksRequest, AcquireLocksResponse, BeginRequest, ExecuteRequest, ListLocksRequest,
    Lock, LockMode, LockStatus, ReleaseLocksRequest, TransactionOptions, lock_owner::Owner,
};
use integration_tests::{
    Alone, FakeParticipant, Gate, Heard, Speaks, branches_at, eventually, is_commit, is_prepare,
};
use tonic::Status;

/// Longer than any test.
const LONG: i64 = 600;

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn millis(millis: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }
}

fn lock(key: &str, mode: LockMode) -> Lock {
    Lock { key: key.into(), mode: mode.into() }
}

fn exclusive(keys: &[&str]) -> Vec<Lock> {
    keys.iter().map(|key| lock(key, LockMode::Exclusive)).collect()
}

async fn linked() -> FakeParticipant {
    FakeParticipant::start(Speaks::Link).await.unwrap()
}

/// A transaction at these with locks, with short attempts and a patient client.
fn request_at(participants: &[&FakeParticipant], locks: Vec<Lock>) -> ExecuteRequest {
    let uris: Vec<String> = participants.iter().map(|it| it.uri()).collect();
    let options = TransactionOptions {
        prepare_timeout: Some(seconds(LONG)),
        prepare_attempt_timeout: Some(millis(300)),
        commit_attempt_timeout: Some(millis(300)),
        lock_wait: Some(seconds(LONG)),
        ..TransactionOptions::default()
    };
    ExecuteRequest {
        branches: branches_at(uris.iter().map(String::as_str)),
        options: Some(options),
        wait: Some(seconds(LONG)),
        locks,
        ..ExecuteRequest::default()
    }
}

/// What a client does with locks, with its requests' other fields left out.
trait Locking {
    async fn begin(&self, retry_of: &str) -> Result<String, Status>;
    async fn lock(&self, id: &str, keys: &[&str]) -> Result<AcquireLocksResponse, Status>;
    async fn acquire(
        &self,
        keys: &[&str],
        lease: Option<prost_types::Duration>,
        wait: prost_types::Duration,
    ) -> Result<AcquireLocksResponse, Status>;
    async fn release(&self, session: &str) -> Result<u32, Status>;
    async fn status(&self, key: &str) -> anyhow::Result<LockStatus>;
    /// Until so many wait for the key.
    async fn waiting(&self, key: &str, count: u32) -> LockStatus;
    async fn free(&self, key: &str);
}

impl Locking for Alone {
    async fn begin(&self, retry_of: &str) -> Result<String, Status> {
        let request = BeginRequest { retry_of: retry_of.into(), ..BeginRequest::default() };
        Ok(self.transactions.clone().begin(request).await?.into_inner().transaction_id)
    }

    async fn lock(&self, id: &str, keys: &[&str]) -> Result<AcquireLocksResponse, Status> {
        let request = AcquireLocksRequest {
            locks: exclusive(keys),
            transaction_id: id.into(),
            wait: Some(seconds(LONG)),
            ..AcquireLocksRequest::default()
        };
        Ok(self.locks.clone().acquire(request).await?.into_inner())
    }

    async fn acquire(
        &self,
        keys: &[&str],
        lease: Option<prost_types::Duration>,
        wait: prost_types::Duration,
    ) -> Result<AcquireLocksResponse, Status> {
        let wait = Some(wait);
        let locks = exclusive(keys);
        let request = AcquireLocksRequest { locks, lease, wait, ..AcquireLocksRequest::default() };
        Ok(self.locks.clone().acquire(request).await?.into_inner())
    }

    async fn release(&self, session: &str) -> Result<u32, Status> {
        let request = ReleaseLocksRequest { session_id: session.into(), keys: Vec::new() };
        Ok(self.locks.clone().release(request).await?.into_inner().released)
    }

    async fn status(&self, key: &str) -> anyhow::Result<LockStatus> {
        let request = ListLocksRequest { prefix: key.into(), ..ListLocksRequest::default() };
        let all = self.locks.clone().list(request).await?.into_inner().locks;
        all.into_iter().next().with_context(|| format!("nothing about {key}"))
    }

    async fn waiting(&self, key: &str, count: u32) -> LockStatus {
        eventually("they wait", async || {
            let status = self.status(key).await?;
            ensure!(status.waiter_count == count, "{status:?}");
            Ok(status)
        })
        .await
        .unwrap()
    }

    async fn free(&self, key: &str) {
        eventually("it is free", async || {
            let request = ListLocksRequest { prefix: key.into(), ..ListLocksRequest::default() };
            let all = self.locks.clone().list(request).await?.into_inner().locks;
            ensure!(all.is_empty(), "{all:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// Who holds a key, alone, and the token.
fn holder(status: &LockStatus) -> (String, u64) {
    let [holder] = &status.holders[..] else { panic!("not one holder: {status:?}") };
    (id(holder.owner.as_ref()), holder.token)
}

fn id(owner: Option<&dtc_proto::dtc::LockOwner>) -> String {
    match owner.and_then(|owner| owner.owner.as_ref()) {
        Some(Owner::TransactionId(id) | Owner::SessionId(id)) => id.clone(),
        None => panic!("no owner"),
    }
}

/// Transactions that it was asked to prepare, without repetitions.
fn prepared(participant: &FakeParticipant) -> Vec<String> {
    let mut ids = Vec::new();
    for heard in participant.heard() {
        if let Heard::Prepare(prepare) = heard
            && !ids.contains(&prepare.transaction_id)
        {
            ids.push(prepare.transaction_id);
        }
    }
    ids
}
