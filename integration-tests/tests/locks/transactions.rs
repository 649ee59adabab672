//! Transactions that ask for their locks in `Execute`.

use anyhow::ensure;
use dtc_proto::dtc::{
    AnswerAt, ExecuteRequest, LockMode, Outcome, RollbackTransactionRequest, TrailKind,
    TransactionOptions, TransactionState,
};
use integration_tests::{Alone, Rest, Start, eventually};
use serde_json::json;
use tonic::Code;

use crate::{
    Gate, LONG, Locking, exclusive, holder, id, is_commit, is_prepare, linked, lock, millis,
    prepared, request_at, seconds,
};

#[tokio::test]
async fn two_that_want_one_key_run_one_after_the_other() {
    let coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&one, is_prepare);
    let request = request_at(&[&one, &two], exclusive(&["account/1", "account/2"]));
    let other = request_at(&[&one, &two], exclusive(&["account/2"]));
    let others = async {
        let first = eventually("the first is asked to prepare", async || {
            let ids = prepared(&one);
            ensure!(ids.len() == 1, "{ids:?}");
            Ok(ids[0].clone())
        });
        let first = first.await.unwrap();
        let second = async {
            let status = coordinator.waiting("account/2", 1).await;
            assert_eq!(holder(&status).0, first);
            let waiter = &status.waiters[0];
            assert!(waiter.since.is_some() && waiter.waited.is_some(), "{waiter:?}");
            assert_eq!(id(waiter.waits_for.first()), first);
            let second = id(waiter.owner.as_ref());
            let shown = coordinator.transaction(&second).await.unwrap();
            assert_eq!(shown.state(), TransactionState::Preparing);
            assert_eq!(prepared(&one), [first]);
            gate.open();
            second
        };
        tokio::join!(coordinator.execute(other), second)
    };
    let (first, (second, id)) = tokio::join!(coordinator.execute(request), others);
    assert!(first.unwrap().committed && second.unwrap().committed);
    let trail = coordinator.ended(&id).await.unwrap().trail;
    let at = |kind: TrailKind| trail.iter().position(|event| event.kind() == kind);
    let (waited, locked) = (at(TrailKind::LocksAwaited), at(TrailKind::Locked));
    assert!(waited.is_some() && waited < locked && locked < at(TrailKind::PrepareSent));
    coordinator.free("account/").await;
}

#[tokio::test]
async fn those_that_share_a_key_run_together() {
    let coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&one, is_prepare);
    let request = || request_at(&[&one, &two], vec![lock("rates", LockMode::Shared)]);
    let both = async {
        eventually("both are asked to prepare", async || {
            ensure!(prepared(&one).len() == 2);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(coordinator.status("rates").await.unwrap().holder_count, 2);
        gate.open();
    };
    let (first, second, ()) =
        tokio::join!(coordinator.execute(request()), coordinator.execute(request()), both);
    assert!(first.unwrap().committed && second.unwrap().committed);
}

#[tokio::test]
async fn a_lock_is_held_through_kill_9_until_the_last_branch_has_acknowledged() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&one, is_commit);
    let at_decision = AnswerAt::Decision.into();
    let request = request_at(&[&one, &two], exclusive(&["k"]));
    let request = ExecuteRequest { answer_at: at_decision, ..request };
    let answer = coordinator.execute(request).await.unwrap();
    assert!(answer.committed);
    let first = answer.transaction.unwrap().id;
    let before = holder(&coordinator.status("k").await.unwrap());
    assert_eq!(before.0, first);

    coordinator.process.kill();
    coordinator.process.start().await.unwrap();
    assert_eq!(holder(&coordinator.status("k").await.unwrap()), before);
    let mut impatient = request_at(&[&two], exclusive(&["k"]));
    impatient.options.as_mut().unwrap().lock_wait = Some(millis(100));
    let refused = coordinator.execute(impatient).await.unwrap().transaction.unwrap();
    let reason = refused.abort_reason.unwrap();
    assert_eq!((refused.outcome, &*reason.code), (Outcome::Aborted.into(), "LOCK_TIMEOUT"));
    let by = format!("lock 'k' is held by transaction {first}");
    assert!(reason.message.contains(&by), "{}", reason.message);
    assert!(!prepared(&two).contains(&refused.id));

    gate.open();
    let next = coordinator.execute(request_at(&[&two], exclusive(&["k"]))).await.unwrap();
    assert!(next.committed);
    coordinator.ended(&first).await.unwrap();
    let session = coordinator.acquire(&["k"], None, seconds(LONG)).await.unwrap();
    assert!(session.locks[0].token > before.1, "tokens grow over restarts");
}

#[tokio::test]
async fn what_was_not_decided_before_kill_9_is_rolled_back_before_its_lock_goes() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&one, |heard| !matches!(heard, integration_tests::Heard::Hello(_)));
    let request = request_at(&[&one, &two], exclusive(&["k"]));
    let transactions = coordinator.transactions.clone();
    let cut_off = tokio::spawn(async move { transactions.clone().execute(request).await });
    let first = eventually("it is asked to prepare", async || {
        let ids = prepared(&one);
        ensure!(ids.len() == 1);
        Ok(ids[0].clone())
    });
    let first = first.await.unwrap();
    coordinator.process.kill();
    assert!(cut_off.await.unwrap().is_err());
    coordinator.process.start().await.unwrap();
    let (held_by, _) = holder(&coordinator.status("k").await.unwrap());
    assert_eq!(held_by, first);
    let waits = coordinator.execute(request_at(&[&two], exclusive(&["k"])));
    let opens = async {
        coordinator.waiting("k", 1).await;
        gate.open();
    };
    let (next, ()) = tokio::join!(waits, opens);
    assert!(next.unwrap().committed);
    assert_eq!(coordinator.ended(&first).await.unwrap().outcome(), Outcome::Aborted);
}

#[tokio::test]
async fn bad_locks_are_named_and_locks_are_part_of_what_a_key_stands_for() {
    let always = Start::new().arg("--max-lock-keys").arg("3").arg("--max-locks").arg("5");
    let coordinator = Alone::start_with(always).await.unwrap();
    let one = linked().await;
    let long = "k".repeat(257);
    for (keys, part) in [
        (&["a", "b", "c", "d"][..], "locks: 4 are too many; the limit is 3"),
        (&["a", ""], "locks[1].key: has 0 characters"),
        (&[&long], "locks[0].key: has 257 characters"),
    ] {
        let status = coordinator.execute(request_at(&[&one], exclusive(keys))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(part), "{status}");
    }
    let mut bad = request_at(&[&one], exclusive(&["a"]));
    bad.locks[0].mode = 9;
    let status = coordinator.execute(bad).await.unwrap_err();
    assert!(status.message().contains("locks[0].mode: 9 is none"), "{status}");
    let options = TransactionOptions { lock_wait: Some(seconds(-1)), ..Default::default() };
    let mut bad = request_at(&[&one], exclusive(&["a"]));
    bad.options = Some(options);
    let status = coordinator.execute(bad).await.unwrap_err();
    assert!(status.message().contains("options.lock_wait: -1s"), "{status}");

    let keyed = |locks| ExecuteRequest { request_key: "key".into(), ..request_at(&[&one], locks) };
    let first = coordinator.execute(keyed(exclusive(&["a"]))).await.unwrap();
    let again = coordinator.execute(keyed(exclusive(&["a"]))).await.unwrap();
    assert!(first.committed);
    assert_eq!(first.transaction.unwrap().id, again.transaction.unwrap().id);
    let other = coordinator.execute(keyed(exclusive(&["b"]))).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);

    let id = coordinator.begin("").await.unwrap();
    coordinator.lock(&id, &["x", "y"]).await.unwrap();
    let full = coordinator.lock(&id, &["z", "zz"]).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("--max-lock-keys"), "{full}");
    let mut client = coordinator.transactions.clone();
    let id = RollbackTransactionRequest { transaction_id: id, ..Default::default() };
    client.rollback(id).await.unwrap();

    let wait = seconds(0);
    coordinator.acquire(&["a", "b", "c"], None, wait).await.unwrap();
    let full = coordinator.acquire(&["d", "e", "f"], None, wait).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    let full = request_at(&[&one], exclusive(&["d", "e", "f"]));
    let full = coordinator.execute(full).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("--max-locks"), "{full}");
}

#[tokio::test]
async fn over_http_the_id_is_told_while_the_locks_are_waited_for_and_good_after_a_crash() {
    let mut coordinator = Alone::start().await.unwrap();
    let one = linked().await;
    let held = coordinator.acquire(&["k"], Some(seconds(LONG)), seconds(0)).await.unwrap();
    let rest = Rest::new(coordinator.process.address());
    let payload = json!({"@type": "type.googleapis.com/shop.v1.ReserveStock"});
    let body = |key: &str, mode: &str| {
        json!({
            "branches": [{"participant": one.uri(), "payload": payload}],
            "options": {"lock_wait_ms": 600_000},
            "locks": [{"key": key, "mode": mode}],
        })
    };
    let shared = body("k", "shared");
    let first = rest.json("POST", "/transactions", &shared).await.unwrap();
    let second = rest.json("POST", "/transactions", &shared).await.unwrap();
    assert_eq!((first.status.as_u16(), first.text("state")), (201, "pending"), "{first:?}");
    coordinator.waiting("k", 2).await;
    coordinator.release(&held.session_id).await.unwrap();
    for waited in [&first, &second] {
        assert_eq!(rest.ended(waited.text("id")).await.unwrap()["state"], "committed");
    }

    coordinator.acquire(&["k"], Some(seconds(LONG)), seconds(0)).await.unwrap();
    let third = rest.json("POST", "/transactions", &body("k", "exclusive")).await.unwrap();
    coordinator.process.kill();
    coordinator.process.start().await.unwrap();
    let ended = rest.ended(third.text("id")).await.unwrap();
    assert_eq!(ended["reason"]["code"], "COORDINATOR_RESTARTED");
    assert_eq!(prepared(&one).len(), 2);

    for (key, mode, field) in [("", "shared", "locks[0].key"), ("k", "alone", "locks[0].mode")] {
        let problem = rest.json("POST", "/transactions", &body(key, mode)).await.unwrap();
        assert_eq!((problem.status.as_u16(), problem.text("field")), (400, field), "{problem:?}");
    }
    let both = json!({"interactive": true, "locks": [{"key": "k"}]});
    let problem = rest.json("POST", "/transactions", &both).await.unwrap();
    assert_eq!((problem.status.as_u16(), problem.text("field")), (400, "locks"), "{problem:?}");
}
