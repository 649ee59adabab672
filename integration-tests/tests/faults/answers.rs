//! What a participant answers concerns its own branch, and what it says of a newer run
//! concerns its own link.

use super::*;

async fn status_of(coordinator: &Alone, name: &str) -> ParticipantStatus {
    let mut registry = coordinator.registry.clone();
    let answer = registry.list_participants(ListParticipantsRequest {}).await.unwrap();
    let mut all = answer.into_inner().participants.into_iter();
    let is_here =
        |it: &ParticipantStatus| it.participant.as_ref().is_some_and(|it| it.name == name);
    all.find(is_here).expect("it is listed")
}

/// Fails the first `count` calls of `is`, by `reply`.
fn fails_first(is: fn(&Heard) -> bool, count: usize, reply: Reply) -> impl FnMut(&Heard) -> Reply {
    let mut failed = std::collections::HashMap::<String, usize>::new();
    move |heard| {
        let failed = failed.entry(id_of(heard).to_owned()).or_default();
        match is(heard) && *failed < count {
            true => {
                *failed += 1;
                reply.clone()
            }
            false => agree(heard),
        }
    }
}

/// Answers of frameworks, without the protocol's mark.
fn unmarked(speaks: Speaks) -> Vec<Reply> {
    match speaks {
        Speaks::Http => [503, 409, 412, 404, 500]
            .map(|status| {
                let echo = vec![("dtc-epoch", "99".into())];
                Reply::Http(status, echo, "<html>a proxy</html>".into())
            })
            .into(),
        _ => [
            Code::Unavailable,
            Code::Aborted,
            Code::NotFound,
            Code::FailedPrecondition,
            Code::Unimplemented,
            Code::Unknown,
        ]
        .map(|code| Reply::Status(code, "overloaded".into()))
        .into(),
    }
}

#[tokio::test]
async fn unavailable_from_some_calls_costs_no_other_call_anything() {
    let coordinator = Alone::start().await.unwrap();
    let busy = FakeParticipant::start(Speaks::Calls).await.unwrap();
    let other = FakeParticipant::start(Speaks::Link).await.unwrap();
    let names = [busy.uri(), other.uri()];
    assert!(run(&coordinator, request_at(&names)).await.committed);

    // The first five it hears of are overloaded for good; all others are well.
    let mut doomed = std::collections::BTreeSet::<String>::new();
    let attempts = Arc::new(std::sync::Mutex::new(std::collections::HashMap::new()));
    let counted = Arc::clone(&attempts);
    busy.set_script(move |heard| {
        if !is_prepare(heard) {
            return agree(heard);
        }
        let id = id_of(heard).to_owned();
        if doomed.len() < 5 {
            doomed.insert(id.clone());
        }
        if !doomed.contains(&id) {
            return Reply::After(Duration::from_millis(20), Box::new(agree(heard)));
        }
        *counted.lock().unwrap().entry(id).or_insert(0) += 1;
        Reply::Status(Code::Unavailable, "overloaded".into())
    });
    let deadline = Duration::from_secs(3);
    let all: Vec<_> =
        (0..60).map(|_| spawn(&coordinator, within(deadline, request_at(&names)))).collect();
    let (mut committed, mut aborted) = (0, Vec::new());
    for running in all {
        let transaction = running.await.unwrap().unwrap().transaction.unwrap();
        match transaction.committed {
            true => committed += 1,
            false => aborted.push(transaction),
        }
    }
    assert_eq!((committed, aborted.len()), (55, 5), "{aborted:?}");
    for transaction in aborted {
        let reason = transaction.abort_reason.unwrap();
        assert_eq!(reason.code, "PREPARE_TIMEOUT");
        assert!(reason.message.contains("UNAVAILABLE: overloaded"), "{reason:?}");
    }
    let attempts = attempts.lock().unwrap();
    // 50, 100, 200 ms ... within 3 s.
    assert!(attempts.values().all(|count| (2..=12).contains(count)), "{attempts:?}");
    let log = coordinator.process.log();
    assert!(!log.contains("no link; connecting again"), "the link was lost: {log}");
}

#[tokio::test]
async fn codes_of_frameworks_mean_nothing_without_the_mark() {
    let coordinator = Alone::start().await.unwrap();
    for speaks in [Speaks::Calls, Speaks::Http] {
        let plain = FakeParticipant::start(speaks).await.unwrap();
        let other = FakeParticipant::start(Speaks::Link).await.unwrap();
        let names = [plain.uri(), other.uri()];
        for reply in unmarked(speaks) {
            for (is, phase) in [(is_prepare as fn(&Heard) -> bool, 1), (is_commit, 2)] {
                let refuses = matches!(reply, Reply::Http(409, ..)) && phase == 1;
                plain.set_script(fails_first(is, 2, reply.clone()));
                let done = run(&coordinator, within(LONG, request_at(&names))).await;
                // To prepare over HTTP, a plain 409 is 'no'.
                assert_eq!(done.committed, !refuses, "{reply:?}: {done:?}");
                let done = coordinator.ended(&done.id).await.unwrap();
                let outcome = if refuses { Outcome::Aborted } else { Outcome::Committed };
                assert_eq!(done.outcome(), outcome, "{reply:?}: {done:?}");
            }
        }
        assert_eq!(status_of(&coordinator, &plain.uri()).await.newer_epoch, None);
    }
}

#[tokio::test]
async fn a_participant_that_speaks_of_a_newer_run_is_quarantined_and_stops_nobody_else() {
    let mut coordinator = Alone::start().await.unwrap();
    for speaks in [Speaks::Calls, Speaks::Http] {
        let byzantine_participant = FakeParticipant::start(speaks).await.unwrap();
        let (one, two) = (
            FakeParticipant::start(Speaks::Link).await.unwrap(),
            FakeParticipant::start(speaks).await.unwrap(),
        );
        // A commit is owed to it.
        byzantine_participant.set_script(|heard| match is_commit(heard) {
            true => Reply::Fenced(99),
            false => agree(heard),
        });
        let request = within(LONG, request_at(&[byzantine_participant.uri(), one.uri()]));
        let request = ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..request };
        let owed = run(&coordinator, request).await;
        assert!(owed.committed);
        let quarantined = async |coordinator: &Alone| {
            eventually("it is quarantined", async || {
                let mut registry = coordinator.registry.clone();
                let all = registry.list_participants(ListParticipantsRequest {}).await?;
                let all = all.into_inner().participants;
                ensure!(all.iter().any(|it| it.newer_epoch == Some(99)), "{all:?}");
                Ok(())
            })
            .await
            .unwrap();
        };
        quarantined(&coordinator).await;
        let refused = coordinator
            .execute(request_at(&[two.uri(), byzantine_participant.uri()]))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("epoch 99"), "{refused}");
        assert!(run(&coordinator, request_at(&[one.uri(), two.uri()])).await.committed);
        // What it said is no reason to die after a restart, when it is called first.
        coordinator.process.kill();
        coordinator.process.start().await.unwrap();
        quarantined(&coordinator).await;
        assert!(run(&coordinator, request_at(&[one.uri(), two.uri()])).await.committed);
        let still = coordinator.transaction(&owed.id).await.unwrap();
        assert_eq!(still.state(), TransactionState::Committing, "it stays owed");
        // It comes to its senses.
        byzantine_participant.set_script(agree);
        let ended = coordinator.ended(&owed.id).await.unwrap();
        assert_eq!(states(&ended), [BranchState::Committed; 2]);
        assert_eq!(status_of(&coordinator, &byzantine_participant.uri()).await.newer_epoch, None);
        assert!(
            run(&coordinator, request_at(&[one.uri(), byzantine_participant.uri()]))
                .await
                .committed
        );
    }
}

#[tokio::test]
async fn a_participant_known_to_be_away_costs_the_others_nothing() {
    let coordinator = Alone::start().await.unwrap();
    for speaks in Speaks::ALL {
        let (participant, proxy, uri) = behind_proxy(speaks).await;
        let other = FakeParticipant::start(Speaks::Link).await.unwrap();
        let names = [other.uri(), uri.clone()];
        assert!(run(&coordinator, request_at(&names)).await.committed);
        proxy.refuse(true);
        proxy.cut();
        eventually("the link is known to be down", async || {
            let status = status_of(&coordinator, &uri).await;
            ensure!(status.link() == LinkState::Disconnected, "{status:?}");
            Ok(())
        })
        .await
        .unwrap();
        let before = other.heard().len();
        let grace = |grace: Duration| {
            let mut request = within(LONG, request_at(&names));
            request.options.as_mut().unwrap().link_grace = grace.try_into().ok();
            request
        };
        let aborted = run(&coordinator, grace(Duration::from_millis(100))).await;
        let reason = aborted.abort_reason.unwrap();
        assert_eq!((reason.code.as_str(), &reason.participant), ("PARTICIPANT_UNAVAILABLE", &uri));
        assert!(reason.message.contains(": ") && reason.message.len() < 500, "{reason:?}");
        let heard = other.heard().split_off(before);
        assert!(heard.is_empty(), "the other was asked for something: {heard:?}");
        // Who comes back within the grace is used.
        let waits = spawn(&coordinator, grace(LONG));
        proxy.refuse(false);
        assert!(waits.await.unwrap().unwrap().committed);
        drop(participant);
    }
}

#[tokio::test]
async fn the_reason_of_a_timeout_says_what_the_participant_answered() {
    let coordinator = Alone::start().await.unwrap();
    let other = FakeParticipant::start(Speaks::Link).await.unwrap();
    for (speaks, reply, said) in [
        (Speaks::Http, Reply::Http(204, Vec::new(), String::new()), "204 No Content"),
        (Speaks::Http, Reply::Http(404, Vec::new(), "no such route".into()), "no such route"),
        (Speaks::Calls, Reply::Status(Code::ResourceExhausted, "too busy".into()), "too busy"),
    ] {
        let odd = FakeParticipant::start(speaks).await.unwrap();
        odd.set_script(move |heard| match is_prepare(heard) {
            true => reply.clone(),
            false => agree(heard),
        });
        let aborted = run(&coordinator, within(SHORT, request_at(&[other.uri(), odd.uri()]))).await;
        let reason = aborted.abort_reason.unwrap();
        assert_eq!(reason.code, "PREPARE_TIMEOUT");
        assert!(reason.message.contains(said), "{reason:?}");
        assert!(reason.message.contains("attempts"), "{reason:?}");
    }
}

#[tokio::test]
async fn a_slow_commit_is_not_cut_off_for_ever_after_a_restart() {
    for speaks in [Speaks::Calls, Speaks::Http] {
        let always = Start::new().arg("--commit-attempt-timeout").arg("400ms");
        let mut coordinator = Alone::start_with(always).await.unwrap();
        let slow = FakeParticipant::start(speaks).await.unwrap();
        let other = FakeParticipant::start(Speaks::Link).await.unwrap();
        slow.set_script(|heard| match is_commit(heard) {
            true => Reply::After(Duration::from_millis(1200), Box::new(agree(heard))),
            false => agree(heard),
        });
        let request = request_at(&[slow.uri(), other.uri()]);
        let request = ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..request };
        let transaction = run(&coordinator, request).await;
        assert!(transaction.committed);
        coordinator.process.kill();
        coordinator.process.start().await.unwrap();
        let ended = coordinator.ended(&transaction.id).await.unwrap();
        assert_eq!(states(&ended), [BranchState::Committed; 2]);
    }
}
