//! Locks of clients by themselves.

use std::sync::Arc;

use dtc_proto::dtc::{
    ListLocksRequest, LockOwner, ReleaseLocksRequest, RenewLocksRequest, lock_owner::Owner,
};
use integration_tests::Alone;
use tonic::{Code, Status};

use crate::{LONG, Locking, holder, seconds};

async fn renew(
    coordinator: &Alone,
    session: &str,
) -> Result<Vec<dtc_proto::dtc::HeldLock>, Status> {
    let request = RenewLocksRequest { session_id: session.into() };
    let renewed = coordinator.locks.clone().renew(request).await?.into_inner();
    assert!(renewed.lease.is_some());
    Ok(renewed.locks)
}

#[tokio::test]
async fn a_session_holds_its_locks_until_it_releases_them() {
    let coordinator = Alone::start().await.unwrap();
    let first = coordinator.acquire(&["a", "b", "c"], None, seconds(0)).await.unwrap();
    assert_eq!(first.lease, Some(seconds(30)));
    assert_eq!(holder(&coordinator.status("a").await.unwrap()).0, first.session_id);
    let refused = coordinator.acquire(&["b", "d"], None, seconds(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    let by = format!("lock 'b' is held by session {}", first.session_id);
    assert!(refused.message().contains(&by), "{refused}");
    coordinator.free("d").await;

    let some = ReleaseLocksRequest {
        session_id: first.session_id.clone(),
        keys: vec!["b".into(), "unknown".into()],
    };
    let released = coordinator.locks.clone().release(some).await.unwrap().into_inner();
    assert_eq!(released.released, 1);
    let second = coordinator.acquire(&["b"], None, seconds(0)).await.unwrap();
    assert!(second.locks[0].token > first.locks[1].token);
    assert_eq!(renew(&coordinator, &first.session_id).await.unwrap().len(), 2);
    for _ in 0..2 {
        assert_eq!(coordinator.release(&first.session_id).await.unwrap(), 2, "repeated, too");
    }
    let refused = renew(&coordinator, &first.session_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let bad = renew(&coordinator, "session-1").await.unwrap_err();
    assert!(bad.message().contains("session_id: 'session-1' is not a UUID"), "{bad}");
    let short = coordinator.acquire(&["a"], Some(crate::millis(10)), seconds(0)).await;
    assert!(short.unwrap_err().message().contains("lease: 10ms is out of range; from 1s to 24h"));
    assert!(coordinator.acquire(&[], None, seconds(0)).await.is_err());
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends_and_the_next_has_the_lock() {
    let coordinator = Alone::start().await.unwrap();
    let first = coordinator.acquire(&["a"], Some(seconds(1)), seconds(0)).await.unwrap();
    let second = coordinator.acquire(&["a"], None, seconds(LONG)).await.unwrap();
    assert!(second.locks[0].token > first.locks[0].token);
    assert_eq!(renew(&coordinator, &first.session_id).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn sessions_are_held_again_after_a_restart_and_tokens_grow() {
    let mut coordinator = Alone::start().await.unwrap();
    let first = coordinator.acquire(&["a"], Some(seconds(LONG)), seconds(0)).await.unwrap();
    let mut newest = first.locks[0].token;
    for other in ["b", "c", "d"] {
        let other = coordinator.acquire(&[other], None, seconds(0)).await.unwrap();
        assert!(other.locks[0].token > newest);
        newest = other.locks[0].token;
        assert_eq!(coordinator.release(&other.session_id).await.unwrap(), 1);
        coordinator.process.restart().await.unwrap();
        assert_eq!(renew(&coordinator, &first.session_id).await.unwrap(), first.locks);
        let refused = coordinator.acquire(&["a"], None, seconds(0)).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded);
    }
    assert_eq!(coordinator.release(&first.session_id).await.unwrap(), 1);
    coordinator.process.stop().await.unwrap();
    coordinator.process.start().await.unwrap();
    assert!(coordinator.acquire(&["a"], None, seconds(0)).await.is_ok());
}

#[tokio::test]
async fn a_client_that_no_longer_waits_leaves_the_queue() {
    let coordinator = Arc::new(Alone::start().await.unwrap());
    let first = coordinator.acquire(&["a"], None, seconds(0)).await.unwrap();
    let id = coordinator.begin("").await.unwrap();
    let (session, transaction) = (Arc::clone(&coordinator), Arc::clone(&coordinator));
    let waiting = [
        tokio::spawn(async move { session.acquire(&["a"], None, seconds(LONG)).await.map(drop) }),
        tokio::spawn(async move { transaction.lock(&id, &["a"]).await.map(drop) }),
    ];
    coordinator.waiting("a", 2).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    coordinator.waiting("a", 0).await;
    assert_eq!(holder(&coordinator.status("a").await.unwrap()).0, first.session_id);
}

#[tokio::test]
async fn locks_are_listed_by_prefix_and_owner_a_page_at_a_time() {
    let coordinator = Alone::start().await.unwrap();
    let one = coordinator.acquire(&["x/1", "x/2", "y/1"], None, seconds(0)).await.unwrap();
    coordinator.acquire(&["x/3"], None, seconds(0)).await.unwrap();
    let list = async |request: ListLocksRequest| {
        let answer = coordinator.locks.clone().list(request).await.unwrap().into_inner();
        let keys: Vec<String> = answer.locks.into_iter().map(|it| it.key).collect();
        (keys, answer.next_page_token)
    };
    let x = ListLocksRequest { prefix: "x/".into(), page_size: 2, ..Default::default() };
    let (keys, page_token) = list(x.clone()).await;
    assert_eq!(keys, ["x/1", "x/2"]);
    assert_eq!(list(ListLocksRequest { page_token, ..x }).await, (vec!["x/3".into()], "".into()));
    let owner = Some(LockOwner { owner: Some(Owner::SessionId(one.session_id)) });
    let of_one = ListLocksRequest { owner, prefix: "x/".into(), ..Default::default() };
    assert_eq!(list(of_one).await.0, ["x/1", "x/2"]);
    let large = ListLocksRequest { page_size: 1001, ..Default::default() };
    assert!(coordinator.locks.clone().list(large).await.is_err());
}
