//! Participants without a link, and what travels with the messages.

use dtc_proto::dtc::{Payload, payload::Kind};

use super::*;

/// What an HTTP participant answers, as scripts have it.
fn json_text(text: &str) -> Payload {
    Payload { kind: Some(Kind::Typed(text.to_owned().into())) }
}

#[tokio::test]
async fn without_a_link_prepare_commit_and_rollback_are_called_and_tried_again() {
    let coordinator = Alone::start().await.unwrap();
    for speaks in [Speaks::Calls, Speaks::Http] {
        let plain = FakeParticipant::start(speaks).await.unwrap();
        let linked = FakeParticipant::start(Speaks::Link).await.unwrap();
        // Each call fails twice, in two ways.
        let script = |last: fn(&Heard) -> Reply| {
            let mut tries = [0, 0, 0];
            move |heard: &Heard| {
                let kind = if is_prepare(heard) { 0 } else { 1 + usize::from(is_commit(heard)) };
                tries[kind] += 1;
                match tries[kind] {
                    1 => Reply::Failed("not now".into()),
                    2 => Reply::Silence,
                    _ => last(heard),
                }
            }
        };
        plain.set_script(script(agree));
        let request = || within(LONG, request_at(&[plain.uri(), linked.uri()]));
        let committed = run(&coordinator, request()).await;
        assert!(committed.committed, "{committed:?}");
        let committed = coordinator.ended(&committed.id).await.unwrap();
        assert_eq!(states(&committed), [BranchState::Committed; 2]);
        assert!(count(&committed, TrailKind::Retried) >= 1, "{committed:?}");

        plain.set_script(script(agree));
        linked.set_script(|heard| match is_prepare(heard) {
            true => Reply::Refuse("NO".into()),
            false => agree(heard),
        });
        let aborted = run(&coordinator, request()).await;
        assert_eq!(aborted.outcome(), Outcome::Aborted);
        let aborted = coordinator.ended(&aborted.id).await.unwrap();
        assert_eq!(states(&aborted), [BranchState::RolledBack, BranchState::Refused]);

        // The two outputs travel, and the refusal of the one without a link counts.
        plain.set_script(|_| Reply::Refuse("NOT_THIS".into()));
        linked.set_script(agree);
        let refused = run(&coordinator, request()).await;
        assert_eq!(refused.abort_reason.unwrap().code, "NOT_THIS");
    }
}

#[tokio::test]
async fn what_prepare_returns_is_handed_back_with_the_decision() {
    let mut coordinator = Alone::start().await.unwrap();
    let output = integration_tests::typed(&shop_proto::GetStockRequest { sku: "ticket".into() });
    for speaks in Speaks::ALL {
        let output = match speaks {
            Speaks::Http => json_text("{\"held\":  [12345678901234567890.10]}"),
            _ => output.clone(),
        };
        let (one, two) = (
            FakeParticipant::start(speaks).await.unwrap(),
            FakeParticipant::start(speaks).await.unwrap(),
        );
        let promised = output.clone();
        let gate = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&gate);
        one.set_script(move |heard| match heard {
            Heard::Prepare(_) => Reply::Promise(Some(promised.clone())),
            Heard::Commit(_) if !open.load(SeqCst) => Reply::Silence,
            heard => agree(heard),
        });
        let request = within(LONG, request_at(&[one.uri(), two.uri()]));
        let request = ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..request };
        let transaction = run(&coordinator, request).await;
        assert!(transaction.committed);
        let Heard::Commit(commit) = heard(&one, None, is_commit).await else {
            unreachable!("a commit was looked for")
        };
        assert_eq!((commit.output.as_ref(), commit.decision_number), (Some(&output), 1));
        // The record has it too.
        coordinator.process.kill();
        let before = one.heard().len();
        gate.store(true, SeqCst);
        coordinator.process.start().await.unwrap();
        coordinator.ended(&transaction.id).await.unwrap();
        let again = one.heard().split_off(before);
        let commits = again.iter().filter_map(|it| match it {
            Heard::Commit(commit) => Some(commit),
            _ => None,
        });
        assert!(commits.clone().count() > 0);
        assert!(commits.into_iter().all(|it| it.output.as_ref() == Some(&output)));
    }
}

#[tokio::test]
async fn one_that_cannot_ask_is_rolled_back_by_a_restarted_coordinator() {
    for (speaks, supports_inquiry, is_told) in
        [(Speaks::Calls, false, true), (Speaks::Calls, true, false), (Speaks::Http, false, true)]
    {
        let mut coordinator = Alone::start().await.unwrap();
        let plain = FakeParticipant::start(speaks).await.unwrap();
        let linked = FakeParticipant::start(Speaks::Link).await.unwrap();
        let participant = Participant {
            name: "plain".into(),
            address: plain.uri(),
            supports_inquiry,
            ..Participant::default()
        };
        let request = RegisterRequest { participant: Some(participant), lease: None };
        coordinator.registry.register(request).await.unwrap();
        let name = if speaks == Speaks::Http { plain.uri() } else { "plain".into() };
        let names = [name, linked.uri()];
        assert!(run(&coordinator, request_at(&names)).await.committed);

        silent_to(&linked, is_prepare);
        let before = plain.heard().len();
        let stuck = spawn(&coordinator, within(LONG, request_at(&names)));
        let id = eventually("it has promised", async || {
            let heard = plain.heard().split_off(before);
            let prepare = heard.iter().find(|it| is_prepare(it)).map(|it| id_of(it).to_owned());
            prepare.context("no prepare yet")
        })
        .await
        .unwrap();
        coordinator.process.kill();
        assert!(stuck.await.unwrap().is_err());
        coordinator.process.start().await.unwrap();
        if is_told {
            heard(&plain, Some(&id), is_rollback).await;
            let transaction = coordinator.ended(&id).await.unwrap();
            assert_eq!(transaction.abort_reason.unwrap().code, "COORDINATOR_RESTARTED");
            continue;
        }
        // Presumed abort: nothing was written, and nobody else is told.
        let status = coordinator.transaction(&id).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        linked.set_script(agree);
        assert!(run(&coordinator, request_at(&names)).await.committed);
        assert!(!plain.heard().iter().any(|it| is_rollback(it) && id_of(it) == id));
    }
}
