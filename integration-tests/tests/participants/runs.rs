//! Runs of a coordinator, and other coordinators.

use super::*;

#[tokio::test]
async fn a_replaced_run_is_refused_and_its_link_ended() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let process = cluster.process(role);
        let old = to(process);
        let mut link = old.link().await.unwrap();
        link.next().await.unwrap();
        assert!(old.prepare(id(1), 0, work(role, 1)).await.is_ok());

        let twin = old.run(EPOCH, Uuid::from_u128(9));
        let older = old.run(EPOCH - 1, Uuid::from_u128(9));
        for stale in [&twin, &older] {
            let refused = |status: Status| {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                assert!(status.message().contains("was replaced"), "{status}");
            };
            refused(stale.prepare(id(2), 0, work(role, 2)).await.unwrap_err());
            refused(stale.commit(id(1), 0).await.unwrap_err());
            refused(stale.rollback(id(1), 0).await.unwrap_err());
            let status = match stale.link().await {
                Err(status) => Some(status),
                Ok(mut link) => link.next().await.unwrap_err().downcast().ok(),
            };
            refused(status.unwrap());
        }
        assert_eq!(effect(&shop, role).await, (5, 0), "{role:?}: nothing was changed");

        let newer = old.run(EPOCH + 1, Uuid::from_u128(10));
        let mut newer_link = newer.link().await.unwrap();
        newer_link.next().await.unwrap();
        // It ends, whatever it had still to ask.
        while link.next().await.is_ok() {}
        let status = old.commit(id(1), 0).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{role:?}");
        process.restart().await.unwrap();
        let status = old.commit(id(1), 0).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{role:?}: kept durably");
        newer.commit(id(1), 0).await.unwrap();
        assert_eq!(effect(&shop, role).await, (0, 5), "{role:?}");
    }
}

#[tokio::test]
async fn another_coordinator_has_branches_and_epochs_of_its_own() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let process = cluster.process(role);
        let one = to(process);
        let other =
            FakeCoordinator::new(process.address(), Uuid::from_u128(0xbee), 1, Uuid::from_u128(7));
        one.prepare(id(1), 0, work(role, 1)).await.unwrap();
        assert_eq!(other.commit(id(1), 0).await.unwrap_err().code(), Code::NotFound);
        assert!(!other.rollback(id(1), 0).await.unwrap().committed);
        assert_eq!(effect(&shop, role).await, (5, 0), "{role:?}: the same id, another's branch");
        let mut link = other.link().await.unwrap();
        link.next().await.unwrap();
        let told = LinkOutcome {
            transaction_id: bytes(id(1)),
            outcome: BranchOutcome::Aborted.into(),
            decision_number: 1,
            ..LinkOutcome::default()
        };
        link.send(LinkRequest { outcomes: vec![told], ..LinkRequest::default() }).await.unwrap();
        // A vote shows that what came before it was done.
        let prepare = LinkPrepare {
            transaction_id: bytes(id(2)),
            payload: Some(work(role, 2)),
            ..LinkPrepare::default()
        };
        let prepares = vec![prepare];
        link.send(LinkRequest { prepares, ..LinkRequest::default() }).await.unwrap();
        assert_eq!(next_of(&mut link, |it| it.votes).await.vote(), Vote::Commit);
        assert_eq!(effect(&shop, role).await, (10, 0), "{role:?}");
        one.commit(id(1), 0).await.unwrap();
        other.rollback(id(2), 0).await.unwrap();
        assert_eq!(effect(&shop, role).await, (0, 5), "{role:?}");
    }
}
