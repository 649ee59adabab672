//! A log that nobody reads: its pipe is closed, or full.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use integration_tests::{Addresses, Binaries, DEADLINE, Role, channel, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// More lines than a pipe holds.
const CALLS: usize = 300;

/// Starts the role's process with a log that is not read, has it serve, and
/// stops it. `read_end` gets the log's pipe.
async fn serves_and_stops<T>(role: Role, read_end: impl FnOnce(std::process::ChildStderr) -> T) {
    let folder = tempfile::tempdir().unwrap();
    let address = Addresses::pick().coordinator;
    let mut child = Command::new(Binaries::test().unwrap().path(role))
        .args(["--listen", &address.to_string(), "--log", "trace", "--data"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _held = read_end(child.stderr.take().unwrap());
    let mut health = HealthClient::new(channel(address));
    let mut served = async || {
        eventually("it serves", async || {
            health.check(HealthCheckRequest::default()).await?;
            Ok(())
        })
        .await?;
        for call in 0..CALLS {
            let answer = health.check(HealthCheckRequest::default());
            let answer = tokio::time::timeout(DEADLINE, answer).await;
            answer.with_context(|| format!("call {call} was not answered"))??;
        }
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let status =
            eventually("it ends", async || child.try_wait()?.context("it still runs")).await?;
        ensure!(status.success(), "{role:?} ended with {status}");
        anyhow::Ok(())
    };
    let result = served().await;
    let _ = child.kill();
    let _ = child.wait();
    result.unwrap();
}

#[tokio::test]
async fn a_closed_log_stops_no_service_and_keeps_none_from_stopping() {
    for role in [Role::Coordinator, Role::Inventory] {
        serves_and_stops(role, drop).await;
    }
}

#[tokio::test]
async fn a_log_that_is_full_stops_no_service_and_keeps_none_from_stopping() {
    for role in [Role::Coordinator, Role::Inventory] {
        serves_and_stops(role, |pipe| pipe).await;
    }
}
