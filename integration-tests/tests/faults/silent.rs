//! Participants that say nothing, or too late.

use super::*;

#[tokio::test]
async fn one_that_never_answers_aborts_its_transaction_at_the_deadline_and_delays_no_other() {
    for speaks in Speaks::ALL {
        let coordinator = Alone::start().await.unwrap();
        let silent = FakeParticipant::start(speaks).await.unwrap();
        let (one, two) = (
            FakeParticipant::start(Speaks::Link).await.unwrap(),
            FakeParticipant::start(speaks).await.unwrap(),
        );
        silent_to(&silent, is_prepare);
        let stuck = spawn(&coordinator, within(LONG, request_at(&[silent.uri(), one.uri()])));
        let prepare = heard(&silent, None, is_prepare).await;
        heard(&one, Some(id_of(&prepare)), is_prepare).await;
        for _ in 0..20 {
            let other = run(&coordinator, request_at(&[one.uri(), two.uri()])).await;
            assert!(other.committed, "{other:?}");
        }
        let still = coordinator.transaction(id_of(&prepare)).await.unwrap();
        assert_eq!(still.state(), TransactionState::Preparing, "the others went past it");
        assert!(!stuck.is_finished());

        let request = within(SHORT, request_at(&[one.uri(), silent.uri()]));
        let aborted = run(&coordinator, request).await;
        assert_eq!(aborted.outcome(), Outcome::Aborted);
        let reason = aborted.abort_reason.unwrap();
        assert_eq!(reason.code, "PREPARE_TIMEOUT");
        assert_eq!(reason.participant, silent.uri());
        assert!(reason.message.contains("branch 1 has not voted"), "{reason:?}");
        // Both are owed a rollback: the silent one may have promised.
        heard(&one, Some(&aborted.id), is_rollback).await;
        heard(&silent, Some(&aborted.id), is_rollback).await;
        stuck.abort();
    }
}

#[tokio::test]
async fn a_vote_after_the_deadline_is_answered_with_rollback() {
    let coordinator = Alone::start().await.unwrap();
    let late = FakeParticipant::start(Speaks::Link).await.unwrap();
    let other = FakeParticipant::start(Speaks::Link).await.unwrap();
    assert!(run(&coordinator, request_at(&[other.uri(), late.uri()])).await.committed);
    silent_to(&late, |heard| !matches!(heard, Heard::Hello(_)));
    let request = within(SHORT, request_at(&[other.uri(), late.uri()]));
    let aborted = run(&coordinator, request).await;
    assert_eq!(aborted.outcome(), Outcome::Aborted);

    let rollbacks = |participant: &FakeParticipant| {
        let all = participant.heard();
        all.iter().filter(|it| is_rollback(it) && id_of(it) == aborted.id).count()
    };
    // It is told again as long as it says nothing, then left to ask.
    heard(&late, Some(&aborted.id), is_rollback).await;
    let vote = LinkVote {
        transaction_id: bytes(&aborted.id),
        branch: 1,
        vote: Vote::Commit.into(),
        ..LinkVote::default()
    };
    let promise = LinkResponse { votes: vec![vote], ..LinkResponse::default() };
    assert!(late.say(promise.clone()).await);
    assert!(late.say(promise).await);
    let before = rollbacks(&late);
    late.set_script(agree);
    eventually("its rollback is acknowledged, or it is left to ask", async || {
        let transaction = coordinator.transaction(&aborted.id).await?;
        ensure!(transaction.state() == TransactionState::Aborted, "{transaction:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(rollbacks(&late) >= before.max(1));
    assert!(!late.heard().iter().any(|it| is_commit(it) && id_of(it) == aborted.id));
    // Asked, it is aborted.
    let Heard::Prepare(prepare) = heard(&late, Some(&aborted.id), is_prepare).await else {
        unreachable!("a prepare was looked for")
    };
    let origin = prepare.origin.unwrap();
    let inquiry = dtc_proto::dtc::LinkInquiry {
        transaction_id: bytes(&aborted.id),
        branch: 1,
        epoch: origin.epoch,
        incarnation: bytes(&origin.incarnation),
    };
    assert!(late.ask(inquiry).await);
    let answer = heard(&late, None, |it| matches!(it, Heard::Outcome(_))).await;
    let Heard::Outcome(answer) = answer else { unreachable!("an outcome was looked for") };
    assert_eq!(answer.outcome(), dtc_proto::dtc::BranchOutcome::Aborted);
}

#[tokio::test]
async fn a_dead_participant_fills_its_own_bound_only() {
    let always = Start::new().arg("--max-per-participant").arg("3");
    let coordinator = Alone::start_with(always).await.unwrap();
    let dead = {
        let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
        participant.uri()
    };
    let (one, two) = (
        FakeParticipant::start(Speaks::Link).await.unwrap(),
        FakeParticipant::start(Speaks::Link).await.unwrap(),
    );
    let stuck: Vec<Running> = (0..3)
        .map(|_| spawn(&coordinator, within(LONG, request_at(&[dead.clone(), dead.clone()]))))
        .collect();
    eventually("three are begun", async || {
        let request = ListTransactionsRequest::default();
        let answer = coordinator.transactions.clone().list(request).await?.into_inner();
        ensure!(answer.transactions.len() == 3);
        Ok(())
    })
    .await
    .unwrap();
    let refused = coordinator.execute(request_at(&[one.uri(), dead.clone()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains(&dead), "{refused}");
    assert!(refused.message().contains("3 unfinished") && refused.message().contains("--max-per"));
    assert!(!one.heard().iter().any(is_prepare), "a refusal touches nobody");
    for _ in 0..10 {
        assert!(run(&coordinator, request_at(&[one.uri(), two.uri()])).await.committed);
    }
    assert!(stuck.iter().all(|it| !it.is_finished()));
    stuck.iter().for_each(JoinHandle::abort);

    let request = within(SHORT, request_at(&[one.uri(), format!("http://{}", two.address())]));
    assert!(run(&coordinator, request).await.committed);
}

#[tokio::test]
async fn the_attempts_of_prepare_may_be_limited() {
    let coordinator = Alone::start().await.unwrap();
    let silent = FakeParticipant::start(Speaks::Calls).await.unwrap();
    let one = FakeParticipant::start(Speaks::Link).await.unwrap();
    assert!(run(&coordinator, request_at(&[one.uri(), silent.uri()])).await.committed);
    let prepares = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&prepares);
    silent.set_script(move |heard| match is_prepare(heard) {
        true => {
            seen.fetch_add(1, SeqCst);
            Reply::Silence
        }
        false => agree(heard),
    });
    let mut request = within(LONG, request_at(&[one.uri(), silent.uri()]));
    if let Some(options) = &mut request.options {
        options.prepare_attempts = 2;
    }
    let aborted = run(&coordinator, request).await;
    assert_eq!(aborted.abort_reason.unwrap().code, "PREPARE_ATTEMPTS");
    assert_eq!(prepares.load(SeqCst), 2);
}
