//! A network that loses answers and cuts links.

use super::*;

/// Waits until the coordinator knows that the answer is lost: a stream has
/// ended, a call has failed.
async fn given_up(coordinator: &Alone, id: &str, name: &str) {
    eventually("the answer is lost", async || {
        let mut registry = coordinator.registry.clone();
        let answer = registry.list_participants(ListParticipantsRequest {}).await?;
        let all = answer.into_inner().participants;
        let is_here = |status: &&ParticipantStatus| {
            status.participant.as_ref().is_some_and(|it| it.name == name)
        };
        let status = all.iter().find(is_here).context("it is not listed")?;
        let transaction = coordinator.transaction(id).await?;
        let has_failed = count(&transaction, TrailKind::Unreachable) > 0;
        ensure!(status.link() != LinkState::Stream && has_failed, "{status:?} {transaction:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_counts_once() {
    for speaks in Speaks::ALL {
        for (lost, refuse) in
            [(is_prepare as fn(&Heard) -> bool, false), (is_commit, false), (is_rollback, true)]
        {
            let coordinator = Alone::start().await.unwrap();
            let (participant, proxy, uri) = behind_proxy(speaks).await;
            let other = FakeParticipant::start(Speaks::Link).await.unwrap();
            let names = [uri, other.uri()];
            assert!(run(&coordinator, request_at(&names)).await.committed);
            let before = participant.heard().len();
            let proxy = Arc::new(proxy);
            let holding = Arc::clone(&proxy);
            let mut first = true;
            // Held before the answer is written, and lost with the connection.
            participant.set_script(move |heard| {
                if lost(heard) && std::mem::take(&mut first) {
                    holding.hold(Direction::ToClient);
                }
                agree(heard)
            });
            if refuse {
                // After the first has promised, so that it is owed a rollback.
                other.set_script(|heard| match is_prepare(heard) {
                    true => Reply::After(
                        Duration::from_millis(100),
                        Box::new(Reply::Refuse("NO".into())),
                    ),
                    false => agree(heard),
                });
            }
            let running = spawn(&coordinator, within(LONG, request_at(&names)));
            let id = eventually("the message came, and its answer is held", async || {
                let heard = participant.heard().split_off(before);
                let came = heard.iter().find(|it| lost(it)).context("not yet")?;
                Ok(id_of(came).to_owned())
            })
            .await
            .unwrap();
            proxy.cut();
            // Only then may the next connection's answers pass.
            given_up(&coordinator, &id, &names[0]).await;
            proxy.release(Direction::ToClient);
            let answer = running.await.unwrap().unwrap();
            assert_eq!(answer.committed, !refuse, "{answer:?}");
            let transaction = coordinator.ended(&answer.transaction.unwrap().id).await.unwrap();
            assert_eq!(transaction.committed, !refuse);
            if !refuse {
                assert_eq!(states(&transaction), [BranchState::Committed; 2]);
                assert_eq!(count(&transaction, TrailKind::VotedCommit), 2);
                assert_eq!(count(&transaction, TrailKind::CommitAcknowledged), 2);
            }
            let heard = participant.heard().split_off(before);
            let times = heard.iter().filter(|it| lost(it) && id_of(it) == transaction.id).count();
            // A rollback is not sent again to one that is away and will ask.
            let left = states(&transaction)[0] == BranchState::RollbackUnacknowledged
                && refuse
                && speaks == Speaks::Link;
            assert!(times >= 2 || left, "{speaks:?}: sent again: {heard:?}");
        }
    }
}

#[tokio::test]
async fn a_link_that_is_cut_is_made_again_and_the_transaction_goes_on() {
    let coordinator = Alone::start().await.unwrap();
    let (participant, proxy, uri) = behind_proxy(Speaks::Link).await;
    let other = FakeParticipant::start(Speaks::Link).await.unwrap();
    let names = [uri, other.uri()];
    assert!(run(&coordinator, request_at(&names)).await.committed);
    for is in [is_prepare as fn(&Heard) -> bool, is_commit] {
        silent_to(&participant, is);
        let before = participant.heard().len();
        let running = spawn(&coordinator, within(LONG, request_at(&names)));
        eventually("it came", async || {
            ensure!(participant.heard().split_off(before).iter().any(is));
            Ok(())
        })
        .await
        .unwrap();
        proxy.refuse(true);
        proxy.cut();
        participant.set_script(agree);
        proxy.refuse(false);
        let answer = running.await.unwrap().unwrap();
        assert!(answer.committed, "{answer:?}");
        let hello = |it: &Heard| matches!(it, Heard::Hello(_));
        assert!(participant.heard().split_off(before).iter().any(hello));
    }
}

#[tokio::test]
async fn a_lost_answer_in_one_phase_is_settled_by_the_participant() {
    for speaks in [Speaks::Link, Speaks::Calls] {
        for did_commit in [true, false] {
            let coordinator = Alone::start().await.unwrap();
            let only = FakeParticipant::start(speaks).await.unwrap();
            let names = [only.uri()];
            let single = run(&coordinator, request_at(&names)).await;
            assert!(single.committed, "{single:?}");
            assert!(!only.heard().iter().any(is_commit), "one call is enough");
            // Asked by a rollback it tells what it did, on the second try only.
            let mut tries = 0;
            only.set_script(move |heard| {
                tries += usize::from(is_rollback(heard));
                match (is_rollback(heard) && tries > 1, did_commit) {
                    (false, _) => Reply::Silence,
                    (true, true) => Reply::Committed,
                    (true, false) => Reply::RolledBack,
                }
            });
            let settled = run(&coordinator, within(SHORT, request_at(&names))).await;
            assert_eq!(settled.committed, did_commit, "{speaks:?}: {settled:?}");
            let outcome = if did_commit { Outcome::Committed } else { Outcome::Aborted };
            assert_eq!(settled.outcome(), outcome, "{speaks:?}");
        }
    }
}
