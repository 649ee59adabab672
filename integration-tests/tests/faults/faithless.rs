//! Answers that are duplicated, invented or false.

use super::*;

#[tokio::test]
async fn duplicated_and_invented_answers_change_nothing() {
    let coordinator = Alone::start().await.unwrap();
    let one = Arc::new(FakeParticipant::start(Speaks::Link).await.unwrap());
    let two = FakeParticipant::start(Speaks::Link).await.unwrap();
    let names = [one.uri(), two.uri()];
    assert!(run(&coordinator, request_at(&names)).await.committed);
    silent_to(&one, |heard| is_prepare(heard) || is_commit(heard));
    silent_to(&two, is_prepare);
    let running = spawn(&coordinator, within(LONG, request_at(&names)));
    let skip = 1;
    let id = eventually("both were asked", async || {
        let second = |participant: &FakeParticipant| {
            let all = participant.heard();
            let mut ids: Vec<_> =
                all.iter().filter(|it| is_prepare(it)).map(|it| id_of(it).to_owned()).collect();
            ids.dedup();
            ids.get(skip).cloned()
        };
        second(&one).and(second(&two)).context("not yet")
    })
    .await
    .unwrap();
    let vote = |branch, vote: Vote| LinkVote {
        transaction_id: bytes(&id),
        branch,
        vote: vote.into(),
        ..LinkVote::default()
    };
    let votes = |votes| LinkResponse { votes, ..LinkResponse::default() };
    // Not one's to give: another participant's branch, and one that isn't there.
    assert!(two.say(votes(vec![vote(0, Vote::Abort), vote(7, Vote::Abort)])).await);
    let early = LinkAcknowledgement {
        transaction_id: bytes(&id),
        branch: 0,
        acknowledgement: Acknowledgement::Committed.into(),
        decision_number: 1,
        ..LinkAcknowledgement::default()
    };
    let acknowledgements = vec![early.clone(); 3];
    let early = LinkResponse { acknowledgements, ..LinkResponse::default() };
    assert!(one.say(early.clone()).await, "before there is a decision");
    let promise = vote(0, Vote::Commit);
    assert!(one.say(votes(vec![promise.clone(), promise, vote(0, Vote::Abort)])).await);
    eventually("the promise counts, its later opposite does not", async || {
        let transaction = coordinator.transaction(&id).await?;
        ensure!(states(&transaction)[0] == BranchState::Prepared, "{transaction:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!running.is_finished());
    assert!(two.say(votes(vec![vote(1, Vote::Commit); 3])).await);
    heard(&one, Some(&id), is_commit).await;
    // Of another decision than the one that was made: late, by its number.
    let mut other = early.clone();
    other.acknowledgements[0].decision_number = 2;
    other.acknowledgements.truncate(1);
    other.acknowledgements[0].set_acknowledgement(Acknowledgement::RolledBack);
    assert!(one.say(other).await);
    assert!(one.say(early.clone()).await);
    let answer = running.await.unwrap().unwrap();
    assert!(answer.committed, "{answer:?}");
    assert!(one.say(early).await);
    let transaction = coordinator.ended(&id).await.unwrap();
    assert_eq!(transaction.outcome(), Outcome::Committed);
    assert_eq!(count(&transaction, TrailKind::VotedCommit), 2);
    assert_eq!(count(&transaction, TrailKind::CommitAcknowledged), 2);
}

#[tokio::test]
async fn a_participant_that_a_newer_run_has_linked_to_refuses_the_older_one() {
    let cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 5).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();
    assert!(shop.place(&Purchase::new("a", "ada", "teapot", 1, 100)).await.unwrap().committed);
    let some = Uuid::from_u128(1).to_string();
    let request = GetOutcomeRequest {
        coordinator_id: some.clone(),
        transaction_id: some.clone(),
        incarnation: some,
        ..GetOutcomeRequest::default()
    };
    let channel = integration_tests::channel(cluster.addresses().coordinator);
    let answer = RecoveryServiceClient::new(channel).get_outcome(request).await.unwrap();
    let origin = answer.into_inner().origin.unwrap();
    let identity = Uuid::parse_str(&origin.coordinator_id).unwrap();
    // Somebody runs on a copy of its journal.
    let address = cluster.inventory.address();
    let copy = FakeCoordinator::new(address, identity, origin.epoch + 1, Uuid::from_u128(2));
    let _link = copy.link().await.unwrap();
    // The word of one participant ends nobody: its own journal says nothing of that run.
    eventually("its link is quarantined", async || {
        let mut registry = shop.registry.clone();
        let known = registry.list_participants(ListParticipantsRequest {}).await?.into_inner();
        let epochs: Vec<_> = known.participants.iter().map(|it| it.newer_epoch).collect();
        ensure!(epochs.contains(&Some(origin.epoch + 1)), "{epochs:?}");
        Ok(())
    })
    .await
    .unwrap();
    let refused =
        shop.place(&Purchase::new("b", "ada", "teapot", 1, 100)).await.unwrap_err().to_string();
    assert!(refused.contains("quarantined"), "{refused}");
    assert!(cluster.coordinator.log().contains("quarantined: the participant says"));
}

#[tokio::test]
async fn a_journal_that_did_not_vote_cannot_acknowledge() {
    for speaks in Speaks::ALL {
        let coordinator = Alone::start().await.unwrap();
        let (participant, proxy, uri) = behind_proxy(speaks).await;
        let other = FakeParticipant::start(Speaks::Link).await.unwrap();
        let names = [uri, other.uri()];
        assert!(run(&coordinator, request_at(&names)).await.committed);
        silent_to(&participant, is_commit);
        let request = within(LONG, request_at(&names));
        let request = ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..request };
        let id = run(&coordinator, request).await.id;
        heard(&participant, Some(&id), is_commit).await;
        // It is back with an empty disk, and says yes to what it doesn't know.
        participant.set_journal_id(Uuid::from_u128(0x0e117));
        participant.set_script(agree);
        proxy.cut();
        let transaction = coordinator.ended(&id).await.unwrap();
        assert_eq!(transaction.outcome(), Outcome::HeuristicHazard, "{speaks:?}");
        assert_eq!(states(&transaction), [BranchState::Hazard, BranchState::Committed]);
        assert_eq!(count(&transaction, TrailKind::Hazard), 1);
        assert!(transaction.committed, "the decision stands");
    }
}

#[tokio::test]
async fn a_broken_promise_is_called_one_and_never_dressed_up() {
    let mut coordinator = Alone::start().await.unwrap();
    for speaks in Speaks::ALL {
        let (one, two) = (
            FakeParticipant::start(speaks).await.unwrap(),
            FakeParticipant::start(Speaks::Link).await.unwrap(),
        );
        let request = || request_at(&[one.uri(), two.uri()]);
        let on = |is: fn(&Heard) -> bool, answer: Reply| {
            one.set_script(move |heard| if is(heard) { answer.clone() } else { agree(heard) });
        };
        on(is_commit, Reply::RolledBack);
        let mixed = run(&coordinator, request()).await;
        assert_eq!(mixed.outcome(), Outcome::HeuristicMixed, "{speaks:?}");
        assert_eq!(states(&mixed), [BranchState::Heuristic, BranchState::Committed]);

        on(is_commit, Reply::Unknown);
        let hazard = run(&coordinator, request()).await;
        assert_eq!(hazard.outcome(), Outcome::HeuristicHazard, "{speaks:?}");

        on(is_rollback, Reply::Committed);
        two.set_script(|heard| match is_prepare(heard) {
            true => Reply::After(Duration::from_millis(50), Box::new(Reply::Refuse("NO".into()))),
            false => agree(heard),
        });
        let opposite = run(&coordinator, request()).await;
        assert_eq!(opposite.outcome(), Outcome::HeuristicMixed, "{speaks:?}");
        assert!(!opposite.committed);

        coordinator.process.stop().await.unwrap();
        coordinator.process.start().await.unwrap();
        for (known, outcome) in [
            (&mixed, Outcome::HeuristicMixed),
            (&hazard, Outcome::HeuristicHazard),
            (&opposite, Outcome::HeuristicMixed),
        ] {
            let transaction = coordinator.transaction(&known.id).await.unwrap();
            assert_eq!(transaction.outcome(), outcome, "it is kept");
        }
    }
}
