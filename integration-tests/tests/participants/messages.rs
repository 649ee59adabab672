//! Every message: twice, late, in any order.

use super::*;

#[tokio::test]
async fn every_message_may_come_twice_late_or_in_any_order_and_counts_once() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let mut number = 0;
        let mut next = || {
            number += 1;
            id(number)
        };
        let mut committed = 0;
        for mut way in Way::both(cluster.process(role)).await {
            committed += 5;
            // Duplicates of each.
            let first = next();
            let payload = work(role, number_of(first));
            for _ in 0..2 {
                assert_eq!(way.prepare(first, payload.clone()).await, Ok(()), "{role:?}");
                assert_eq!(effect(&shop, role).await, (5, committed - 5), "{role:?}");
            }
            let other = work_of(role, number_of(first), 6);
            let refused = way.prepare(first, other.clone()).await;
            assert_eq!(refused, Err("OTHER_PAYLOAD".into()), "{role:?}");
            for _ in 0..2 {
                assert_eq!(way.commit(first).await, Answer::Committed, "{role:?}");
                assert_eq!(effect(&shop, role).await, (0, committed), "{role:?}");
            }
            assert_eq!(way.prepare(first, payload).await, Ok(()), "the first answer again");
            assert_eq!(way.prepare(first, other).await, Err("OTHER_PAYLOAD".into()));
            // Too late: it tells so, and undoes nothing.
            assert_eq!(way.rollback(first).await, Answer::Committed, "{role:?}");

            let second = next();
            let payload = work(role, number_of(second));
            assert_eq!(way.prepare(second, payload.clone()).await, Ok(()));
            for _ in 0..2 {
                assert_eq!(way.rollback(second).await, Answer::RolledBack, "{role:?}");
            }
            assert_eq!(way.prepare(second, payload).await, Err("ROLLED_BACK".into()));
            assert_eq!(way.commit(second).await, Answer::RolledBack, "a hazard, no success");

            // Rollback first: the late prepare is refused.
            let third = next();
            assert_eq!(way.rollback(third).await, Answer::RolledBack);
            let late = way.prepare(third, work(role, number_of(third))).await;
            assert_eq!(late, Err("ROLLED_BACK".into()), "{role:?}");

            assert_eq!(way.commit(next()).await, Answer::Unknown, "{role:?}");

            // An earlier run of something does not touch a later one.
            let (earlier, later) = (next(), next());
            assert_eq!(way.prepare(later, work(role, number_of(later))).await, Ok(()));
            assert_eq!(way.rollback(earlier).await, Answer::RolledBack);
            assert_eq!(effect(&shop, role).await, (5, committed), "{role:?}");
            assert_eq!(way.rollback(later).await, Answer::RolledBack);
            assert_eq!(effect(&shop, role).await, (0, committed), "{role:?}");
        }
        // All of it is known to another process on the same file.
        cluster.process(role).restart().await.unwrap();
        let coordinator = to(cluster.process(role));
        coordinator.commit(id(1), 0).await.unwrap();
        assert!(coordinator.rollback(id(1), 0).await.unwrap().committed);
        assert_eq!(coordinator.commit(id(2), 0).await.unwrap_err().code(), Code::Aborted);
        let late = coordinator.prepare(id(3), 0, work(role, 3)).await.unwrap();
        assert_eq!(late.abort_reason.unwrap().code, "ROLLED_BACK");
        assert_eq!(coordinator.commit(id(4), 0).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(effect(&shop, role).await, (0, committed), "{role:?}");
    }
}

#[tokio::test]
async fn a_decision_with_a_lower_number_than_the_one_applied_is_ignored() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let coordinator = to(cluster.process(role));
        let mut link = coordinator.link().await.unwrap();
        coordinator.prepare(id(1), 0, work(role, 1)).await.unwrap();
        let compensating = LinkRollback {
            transaction_id: bytes(id(1)),
            decision_number: 2,
            ..LinkRollback::default()
        };
        let rollbacks = vec![compensating];
        link.send(LinkRequest { rollbacks, ..LinkRequest::default() }).await.unwrap();
        let answer = next_of(&mut link, |it| it.acknowledgements).await;
        assert_eq!(answer.acknowledgement(), Acknowledgement::RolledBack);
        for late in [coordinator.commit(id(1), 0).await.err(), rollback_error(&coordinator).await] {
            let late = late.unwrap();
            assert_eq!(late.code(), Code::FailedPrecondition, "{role:?}: {late}");
            assert!(late.message().contains("decision_number 1 is late"), "{role:?}: {late}");
        }
        assert_eq!(effect(&shop, role).await, (0, 0), "{role:?}");
    }
}

async fn rollback_error(coordinator: &FakeCoordinator) -> Option<Status> {
    coordinator.rollback(id(1), 0).await.err()
}

#[tokio::test]
async fn one_phase_commits_at_once_and_repeats_its_answer() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let coordinator = to(cluster.process(role));
        for _ in 0..2 {
            let answer = coordinator.one_phase(id(1), 0, work(role, 1)).await.unwrap();
            assert!(answer.committed && answer.vote() == Vote::Commit, "{answer:?}");
            assert_eq!(effect(&shop, role).await, (0, 5), "{role:?}");
        }
        assert!(coordinator.rollback(id(1), 0).await.unwrap().committed, "asked, it tells");
        assert!(!coordinator.rollback(id(2), 0).await.unwrap().committed);
        let late = coordinator.one_phase(id(2), 0, work(role, 2)).await.unwrap();
        assert!(!late.committed && late.vote() == Vote::Abort, "{late:?}");
    }
}
