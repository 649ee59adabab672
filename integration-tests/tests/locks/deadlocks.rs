//! Who waits for whom in a circle, and who is refused.

use dtc_proto::dtc::{
    AcquireLocksRequest, CommitTransactionRequest, EnlistRequest, LockMode, Outcome,
    RollbackTransactionRequest,
};
use integration_tests::{Alone, Start};
use tonic::{Code, Status};

use crate::{LONG, Locking, linked, lock, request_at, seconds};

/// Both ways of dealing with them.
const POLICIES: [&str; 2] = ["wait-die", "detect"];

async fn start(policy: &str) -> Alone {
    Alone::start_with(Start::new().arg("--deadlocks").arg(policy)).await.unwrap()
}

async fn commit(coordinator: &Alone, id: &str) -> bool {
    let request = CommitTransactionRequest { transaction_id: id.into(), ..Default::default() };
    coordinator.transactions.clone().commit(request).await.unwrap().into_inner().committed
}

fn is_deadlock(status: &Status, with: &str, retry_of: &str) {
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let said = status.message();
    assert!(said.starts_with("deadlock: ") && said.contains("lock '"), "{said}");
    assert!(said.contains(with), "{said}");
    assert!(said.contains(&format!("retry_of = {retry_of}")), "{said}");
    let details = String::from_utf8_lossy(status.details()).into_owned();
    assert!(details.contains("DEADLOCK") && details.contains(retry_of), "{details}");
}

#[tokio::test]
async fn of_two_that_wait_for_each_other_the_younger_is_refused_and_its_retry_will_do() {
    for policy in POLICIES {
        let coordinator = start(policy).await;
        let elder = coordinator.begin("").await.unwrap();
        let younger = coordinator.begin("").await.unwrap();
        coordinator.lock(&elder, &["a"]).await.unwrap();
        coordinator.lock(&younger, &["b"]).await.unwrap();
        let closes = async {
            coordinator.waiting("b", 1).await;
            coordinator.lock(&younger, &["a"]).await
        };
        let (granted, refused) = tokio::join!(coordinator.lock(&elder, &["b"]), closes);
        is_deadlock(&refused.unwrap_err(), &elder, &younger);
        assert_eq!(granted.unwrap().locks.len(), 1, "{policy}");
        let aborted = coordinator.ended(&younger).await.unwrap();
        assert_eq!(aborted.outcome(), Outcome::Aborted);
        let reason = aborted.abort_reason.unwrap();
        assert_eq!(reason.code, "DEADLOCK");
        assert!(reason.message.contains(&elder), "{}", reason.message);

        let retry = coordinator.begin(&younger).await.unwrap();
        let ends = async {
            coordinator.waiting("a", 1).await;
            commit(&coordinator, &elder).await
        };
        let (granted, committed) = tokio::join!(coordinator.lock(&retry, &["b", "a"]), ends);
        assert!(committed && granted.unwrap().locks.len() == 2);
        assert!(commit(&coordinator, &retry).await);
        assert_eq!(coordinator.transaction(&retry).await.unwrap().retry_of, younger);
        coordinator.free("").await;
    }
}

#[tokio::test]
async fn only_wait_die_refuses_the_younger_where_there_is_no_circle() {
    for policy in POLICIES {
        let coordinator = start(policy).await;
        let elder = coordinator.begin("").await.unwrap();
        let younger = coordinator.begin("").await.unwrap();
        coordinator.lock(&elder, &["a"]).await.unwrap();
        coordinator.lock(&younger, &["b"]).await.unwrap();
        let wants = coordinator.lock(&younger, &["a"]);
        if policy == "wait-die" {
            is_deadlock(&wants.await.unwrap_err(), "is older", &younger);
            continue;
        }
        let ends = async {
            coordinator.waiting("a", 1).await;
            commit(&coordinator, &elder).await
        };
        let (granted, committed) = tokio::join!(wants, ends);
        assert!(committed && granted.is_ok());
    }
}

#[tokio::test]
async fn a_retry_is_as_old_as_its_first() {
    let coordinator = start("wait-die").await;
    let first = coordinator.begin("").await.unwrap();
    let other = coordinator.begin("").await.unwrap();
    let retry = coordinator.begin(&first).await.unwrap();
    coordinator.lock(&other, &["a"]).await.unwrap();
    coordinator.lock(&retry, &["b"]).await.unwrap();
    // Begun before it, and younger.
    let closes = async {
        coordinator.waiting("a", 1).await;
        coordinator.lock(&other, &["b"]).await
    };
    let (granted, refused) = tokio::join!(coordinator.lock(&retry, &["a"]), closes);
    is_deadlock(&refused.unwrap_err(), &retry, &other);
    assert!(granted.is_ok());
}

#[tokio::test]
async fn of_two_upgrades_of_one_key_one_is_refused() {
    for policy in POLICIES {
        let coordinator = start(policy).await;
        let elder = coordinator.begin("").await.unwrap();
        let younger = coordinator.begin("").await.unwrap();
        let acquire = async |id: &str, mode| {
            let request = AcquireLocksRequest {
                locks: vec![lock("a", mode)],
                transaction_id: id.into(),
                wait: Some(seconds(LONG)),
                ..Default::default()
            };
            coordinator.locks.clone().acquire(request).await.map(|it| it.into_inner().locks)
        };
        let shared = acquire(&elder, LockMode::Shared).await.unwrap();
        acquire(&younger, LockMode::Shared).await.unwrap();
        let closes = async {
            coordinator.waiting("a", 1).await;
            acquire(&younger, LockMode::Exclusive).await
        };
        let (granted, refused) = tokio::join!(acquire(&elder, LockMode::Exclusive), closes);
        is_deadlock(&refused.unwrap_err(), &elder, &younger);
        assert!(granted.unwrap()[0].token > shared[0].token);
    }
}

#[tokio::test]
async fn calls_at_the_wrong_moment_are_refused() {
    let coordinator = start("wait-die").await;
    let one = linked().await;
    let id = coordinator.begin("").await.unwrap();
    let holder = coordinator.begin("").await.unwrap();
    coordinator.lock(&holder, &["a"]).await.unwrap();
    let meanwhile = async {
        coordinator.waiting("a", 1).await;
        let again = coordinator.lock(&id, &["b"]).await.unwrap_err();
        assert_eq!(again.code(), Code::FailedPrecondition);
        assert!(again.message().contains("waits for locks"), "{again}");
        let request = CommitTransactionRequest { transaction_id: id.clone(), ..Default::default() };
        let commit = coordinator.transactions.clone().commit(request).await.unwrap_err();
        assert_eq!(commit.code(), Code::FailedPrecondition);
        let branch = request_at(&[&one], Vec::new()).branches.pop();
        let enlist =
            EnlistRequest { transaction_id: id.clone(), branch, ..EnlistRequest::default() };
        coordinator.transactions.clone().enlist(enlist).await.unwrap();
        let request =
            RollbackTransactionRequest { transaction_id: id.clone(), ..Default::default() };
        coordinator.transactions.clone().rollback(request).await.unwrap();
    };
    let (ended, ()) = tokio::join!(coordinator.lock(&id, &["a"]), meanwhile);
    assert_eq!(ended.unwrap_err().code(), Code::FailedPrecondition);
    let late = coordinator.lock(&id, &["b"]).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(late.message().contains("aborted"), "{late}");
    let unknown = "01890000-0000-7000-8000-000000000000";
    assert_eq!(coordinator.lock(unknown, &["b"]).await.unwrap_err().code(), Code::NotFound);
    let lease = AcquireLocksRequest {
        locks: vec![lock("b", LockMode::Shared)],
        transaction_id: holder,
        lease: Some(seconds(5)),
        ..Default::default()
    };
    let lease = coordinator.locks.clone().acquire(lease).await.unwrap_err();
    assert!(lease.message().contains("lease: is for a session"), "{lease}");
}
