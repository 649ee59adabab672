//! Versions, escrow, bad input and bounds.

use super::*;

#[tokio::test]
async fn a_version_that_was_checked_holds_until_the_decision() {
    let (cluster, shop) = shop().await;
    let coordinator = to(&cluster.inventory);
    let version = shop.stock("teapot").await.unwrap().version;
    let line = |quantity, expected_version, check_only| {
        let line = StockLine { sku: "teapot".into(), quantity, expected_version, check_only };
        typed(&ReserveStock { lines: vec![line] })
    };
    let refusal = async |number, payload| {
        let answer = coordinator.prepare(id(number), 0, payload).await.unwrap();
        assert_eq!(answer.vote(), Vote::Abort, "{answer:?}");
        answer.abort_reason.unwrap()
    };
    let vote =
        async |number, payload| coordinator.prepare(id(number), 0, payload).await.unwrap().vote();

    let wrong = refusal(1, line(1, Some(version + 7), false)).await;
    assert_eq!(wrong.code, "VERSION_CHANGED");
    assert!(wrong.message.contains("lines[0].expected_version"), "{wrong:?}");
    // Merely looking is read-only, looking at a version is a promise.
    assert_eq!(vote(2, line(1, None, true)).await, Vote::ReadOnly);
    assert_eq!(vote(3, line(1, Some(version), true)).await, Vote::Commit);
    assert_eq!(vote(4, line(2, Some(version), true)).await, Vote::Commit, "readers don't collide");
    assert_eq!(refusal(5, line(1, None, false)).await.code, "VERSION_HELD");
    coordinator.commit(id(3), 0).await.unwrap();
    assert_eq!(refusal(6, line(1, None, false)).await.code, "VERSION_HELD");
    coordinator.rollback(id(4), 0).await.unwrap();
    assert_eq!(shop.stock("teapot").await.unwrap().version, version);

    // A prepared change makes a check of the version it will change impossible.
    assert_eq!(vote(7, line(1, None, false)).await, Vote::Commit);
    assert_eq!(refusal(8, line(1, Some(version), true)).await.code, "VERSION_HELD");
    coordinator.commit(id(7), 0).await.unwrap();
    let stock = shop.stock("teapot").await.unwrap();
    assert_eq!((stock.version, stock.on_hand), (version + 1, 99));
    assert_eq!(refusal(9, line(1, Some(version), true)).await.code, "VERSION_CHANGED");

    let coordinator = to(&cluster.payment);
    let version = shop.account("ada").await.unwrap().version;
    let pay = |expected| {
        typed(&TakePayment {
            account: "ada".into(),
            amount_minor: 1,
            currency: CURRENCY.into(),
            expected_version: Some(expected),
        })
    };
    let first = coordinator.prepare(id(1), 0, pay(version)).await.unwrap();
    assert_eq!(first.vote(), Vote::Commit);
    let second = coordinator.prepare(id(2), 0, pay(version)).await.unwrap();
    assert_eq!(second.abort_reason.unwrap().code, "VERSION_HELD", "write skew");
    coordinator.commit(id(1), 0).await.unwrap();
    let third = coordinator.prepare(id(3), 0, pay(version)).await.unwrap();
    assert_eq!(third.abort_reason.unwrap().code, "VERSION_CHANGED");
}

#[tokio::test]
async fn reservations_are_escrow_so_that_a_hot_item_is_shared() {
    let (mut cluster, shop) = shop().await;
    for role in [Role::Inventory, Role::Payment] {
        let coordinator = to(cluster.process(role));
        for number in 1..=4 {
            let answer = coordinator.prepare(id(number), 0, work_of(role, number, 25)).await;
            assert_eq!(answer.unwrap().vote(), Vote::Commit, "{role:?}");
        }
        assert_eq!(effect(&shop, role).await, (100, 0), "{role:?}");
        let fifth = coordinator.prepare(id(5), 0, work_of(role, 5, 1)).await.unwrap();
        let reason = fifth.abort_reason.unwrap();
        assert!(["OUT_OF_STOCK", "INSUFFICIENT_FUNDS"].contains(&reason.code.as_str()));
        coordinator.rollback(id(1), 0).await.unwrap();
        let sixth = coordinator.prepare(id(6), 0, work_of(role, 6, 20)).await.unwrap();
        assert_eq!(sixth.vote(), Vote::Commit, "{role:?}: what was rolled back can be had");
        for number in [2, 3, 4, 6] {
            coordinator.commit(id(number), 0).await.unwrap();
        }
        assert_eq!(effect(&shop, role).await, (0, 95), "{role:?}");
    }
    // An order that was cancelled may be placed again, a pending one may not.
    let coordinator = to(&cluster.order);
    let place = async |number| {
        let answer = coordinator.prepare(id(number), 0, work(Role::Order, 1)).await.unwrap();
        answer.abort_reason.map(|reason| reason.code)
    };
    assert_eq!(place(1).await, None);
    assert_eq!(place(2).await.as_deref(), Some("ORDER_EXISTS"));
    coordinator.rollback(id(1), 0).await.unwrap();
    assert_eq!(place(3).await, None);
    coordinator.commit(id(3), 0).await.unwrap();
    assert_eq!(place(4).await.as_deref(), Some("ORDER_EXISTS"));
}

#[tokio::test]
async fn what_is_malformed_is_refused_by_its_field() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let good = to(cluster.process(role));
        let with = |change: fn(&mut Origin)| {
            let mut coordinator = good.clone();
            change(&mut coordinator.origin);
            coordinator
        };
        for (bad, field) in [
            (with(|it| it.coordinator_id.clear()), "origin.coordinator_id"),
            (with(|it| it.coordinator_id = "me".into()), "origin.coordinator_id"),
            (with(|it| it.incarnation = "now".into()), "origin.incarnation"),
        ] {
            let prepare = bad.prepare(id(1), 0, work(role, 1)).await.unwrap_err();
            let commit = bad.commit(id(1), 0).await.unwrap_err();
            let rollback = bad.rollback(id(1), 0).await.unwrap_err();
            for status in [prepare, commit, rollback] {
                assert_eq!(status.code(), Code::InvalidArgument, "{status}");
                assert!(status.message().contains(field), "{status}");
            }
        }
        let mut link = good.link().await.unwrap();
        link.next().await.unwrap();
        let short = LinkPrepare {
            transaction_id: Bytes::from_static(b"short"),
            payload: Some(work(role, 1)),
            ..LinkPrepare::default()
        };
        link.send(LinkRequest { prepares: vec![short], ..LinkRequest::default() }).await.unwrap();
        let error = link.next().await.unwrap_err();
        let status: &Status = error.downcast_ref().context("the link fails by a status").unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("prepares.transaction_id"), "{status}");
        assert_eq!(effect(&shop, role).await, (0, 0), "{role:?}");
    }
}

#[tokio::test]
async fn undecided_branches_are_bounded_and_a_decision_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let program = Binaries::test().unwrap().path(Role::Order);
    let address = Addresses::pick().order;
    let mut process = Process::new("order", &program, folder.path(), address);
    process.start_with(Start::new().arg("--max-undecided").arg("2")).await.unwrap();
    let coordinator = Arc::new(to(&process));
    let place = async |number| {
        let answer = coordinator.prepare(id(number), 0, work(Role::Order, number)).await.unwrap();
        answer.abort_reason
    };
    assert_eq!((place(1).await, place(2).await), (None, None));
    let refused = place(3).await.unwrap();
    assert_eq!(refused.code, "TOO_MANY_UNDECIDED");
    assert!(refused.message.contains("the limit is 2"), "{refused:?}");
    coordinator.commit(id(1), 0).await.unwrap();
    assert_eq!(place(4).await, None);
    let stopped = tokio::time::timeout(Duration::from_secs(30), process.stop()).await;
    assert!(stopped.unwrap().unwrap().success());
}
