//! The coordinator against participants that are silent, late, dead, forgetful
//! or faithless, and a network that loses answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use integration_tests::{
    Alone, Direction, FakeParticipant, Heard, Proxy, Reply, Start, agree, branches_at, eventually,
};
use prost::bytes::Bytes;
use proto::dtc::{
    Acknowledgement, AnswerAt, BranchState, ExecuteRequest, ExecuteResponse, LinkAcknowledgement,
    LinkResponse, LinkState, LinkVote, ListParticipantsRequest, ListTransactionsRequest, Outcome,
    Participant, ParticipantStatus, RegisterRequest, TrailKind, Transaction, TransactionOptions,
    TransactionState, Vote,
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use uuid::Uuid;

/// A transaction at these addresses.
fn request_at(uris: &[String]) -> ExecuteRequest {
    let branches = branches_at(uris.iter().map(String::as_str));
    ExecuteRequest { branches, ..ExecuteRequest::default() }
}

/// Attempts of a quarter of a second, and this deadline of prepare.
fn within(deadline: Duration, request: ExecuteRequest) -> ExecuteRequest {
    let attempt = Duration::from_millis(250).try_into().ok();
    let options = TransactionOptions {
        prepare_timeout: deadline.try_into().ok(),
        prepare_attempt_timeout: attempt,
        commit_attempt_timeout: attempt,
        ..TransactionOptions::default()
    };
    ExecuteRequest { options: Some(options), ..request }
}

const SHORT: Duration = Duration::from_millis(700);
/// A deadline that no test reaches.
const LONG: Duration = Duration::from_secs(100);

type Running = JoinHandle<Result<ExecuteResponse, Status>>;

fn spawn(coordinator: &Alone, request: ExecuteRequest) -> Running {
    let mut client = coordinator.transactions.clone();
    tokio::spawn(async move { Ok(client.execute(request).await?.into_inner()) })
}

async fn run(coordinator: &Alone, request: ExecuteRequest) -> Transaction {
    let answer = coordinator.execute(request).await.unwrap();
    let transaction = answer.transaction.unwrap();
    assert_eq!(answer.committed, transaction.committed);
    transaction
}

fn is_prepare(heard: &Heard) -> bool {
    matches!(heard, Heard::Prepare(_))
}

fn is_commit(heard: &Heard) -> bool {
    matches!(heard, Heard::Commit(_))
}

fn is_rollback(heard: &Heard) -> bool {
    matches!(heard, Heard::Rollback(_))
}

fn id_of(heard: &Heard) -> &str {
    match heard {
        Heard::Prepare(it) => &it.transaction_id,
        Heard::Commit(it) => &it.transaction_id,
        Heard::Rollback(it) => &it.transaction_id,
        Heard::Hello(_) | Heard::Outcome(_) => "",
    }
}

/// The first message of a kind, once it has come: about the transaction, or any.
async fn heard(participant: &FakeParticipant, id: Option<&str>, is: fn(&Heard) -> bool) -> Heard {
    eventually("the participant hears of it", async || {
        let all = participant.heard();
        let mut wanted = all.iter().filter(|it| is(it) && id.is_none_or(|id| id_of(it) == id));
        wanted.next().cloned().with_context(|| format!("{all:?}"))
    })
    .await
    .unwrap()
}

fn silent_to(participant: &FakeParticipant, is: fn(&Heard) -> bool) {
    participant.set_script(move |heard| if is(heard) { Reply::Silence } else { agree(heard) });
}

fn states(transaction: &Transaction) -> Vec<BranchState> {
    transaction.branches.iter().map(|branch| branch.state()).collect()
}

fn count(transaction: &Transaction, kind: TrailKind) -> usize {
    transaction.trail.iter().filter(|event| event.kind() == kind).count()
}

fn bytes(id: &str) -> Bytes {
    Bytes::copy_from_slice(Uuid::parse_str(id).unwrap().as_bytes())
}

#[tokio::test]
async fn one_that_never_answers_aborts_its_transaction_at_the_deadline_and_delays_no_other() {
    for link in [true, false] {
        let coordinator = Alone::start().await.unwrap();
        let silent = FakeParticipant::start(link).await.unwrap();
        let (one, two) = (
            FakeParticipant::start(true).await.unwrap(),
            FakeParticipant::start(link).await.unwrap(),
        );
        silent_to(&silent, is_prepare);
        let stuck = spawn(&coordinator, within(LONG, request_at(&[silent.uri(), one.uri()])));
        let prepare = heard(&silent, None, is_prepare).await;
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
    let late = FakeParticipant::start(true).await.unwrap();
    let other = FakeParticipant::start(true).await.unwrap();
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
    let inquiry = proto::dtc::LinkInquiry {
        transaction_id: bytes(&aborted.id),
        branch: 1,
        epoch: origin.epoch,
        incarnation: bytes(&origin.incarnation),
    };
    assert!(late.ask(inquiry).await);
    let answer = heard(&late, None, |it| matches!(it, Heard::Outcome(_))).await;
    let Heard::Outcome(answer) = answer else { unreachable!("an outcome was looked for") };
    assert_eq!(answer.outcome(), proto::dtc::BranchOutcome::Aborted);
}

#[tokio::test]
async fn a_dead_participant_fills_its_own_bound_only() {
    let always = Start::new().arg("--max-per-participant").arg("3");
    let coordinator = Alone::start_with(always).await.unwrap();
    let dead = {
        let participant = FakeParticipant::start(true).await.unwrap();
        participant.uri()
    };
    let (one, two) =
        (FakeParticipant::start(true).await.unwrap(), FakeParticipant::start(true).await.unwrap());
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
    assert!(one.heard().is_empty(), "a refusal touches nobody");
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
    let silent = FakeParticipant::start(false).await.unwrap();
    let one = FakeParticipant::start(true).await.unwrap();
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

#[tokio::test]
async fn without_a_link_prepare_commit_and_rollback_are_called_and_tried_again() {
    let coordinator = Alone::start().await.unwrap();
    let plain = FakeParticipant::start(false).await.unwrap();
    let linked = FakeParticipant::start(true).await.unwrap();
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

#[tokio::test]
async fn what_prepare_returns_is_handed_back_with_the_decision() {
    let mut coordinator = Alone::start().await.unwrap();
    let output = integration_tests::typed(&proto::shop::GetStockRequest { sku: "ticket".into() });
    for link in [true, false] {
        let (one, two) = (
            FakeParticipant::start(link).await.unwrap(),
            FakeParticipant::start(link).await.unwrap(),
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
    for (asks, is_told) in [(false, true), (true, false)] {
        let mut coordinator = Alone::start().await.unwrap();
        let plain = FakeParticipant::start(false).await.unwrap();
        let linked = FakeParticipant::start(true).await.unwrap();
        let participant = Participant { name: "plain".into(), address: plain.uri(), asks };
        let request = RegisterRequest { participant: Some(participant) };
        coordinator.registry.register(request).await.unwrap();
        let names = ["plain".to_owned(), linked.uri()];
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

/// A participant behind a proxy, and its address there.
async fn behind_proxy(link: bool) -> (FakeParticipant, Proxy, String) {
    let participant = FakeParticipant::start(link).await.unwrap();
    let proxy = Proxy::start(participant.address()).await.unwrap();
    let uri = format!("http://{}", proxy.address());
    (participant, proxy, uri)
}

/// Waits until the coordinator knows that it has lost the participant.
async fn disconnected(coordinator: &Alone, name: &str) {
    eventually("the link is lost", async || {
        let mut registry = coordinator.registry.clone();
        let answer = registry.list_participants(ListParticipantsRequest {}).await?;
        let all = answer.into_inner().participants;
        let is_here = |status: &&ParticipantStatus| {
            status.participant.as_ref().is_some_and(|it| it.name == name)
        };
        let status = all.iter().find(is_here).context("it is not listed")?;
        ensure!(status.link() == LinkState::Disconnected, "{status:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_counts_once() {
    for link in [true, false] {
        for (lost, refuse) in
            [(is_prepare as fn(&Heard) -> bool, false), (is_commit, false), (is_rollback, true)]
        {
            let coordinator = Alone::start().await.unwrap();
            let (participant, proxy, uri) = behind_proxy(link).await;
            let other = FakeParticipant::start(true).await.unwrap();
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
            eventually("the message came, and its answer is held", async || {
                let heard = participant.heard().split_off(before);
                ensure!(heard.iter().any(lost), "{heard:?}");
                Ok(())
            })
            .await
            .unwrap();
            proxy.cut();
            // Only then may the next connection's answers pass.
            disconnected(&coordinator, &names[0]).await;
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
            assert!(times >= 2, "link {link}: sent again: {heard:?}");
        }
    }
}

#[tokio::test]
async fn duplicated_and_invented_answers_change_nothing() {
    let coordinator = Alone::start().await.unwrap();
    let one = Arc::new(FakeParticipant::start(true).await.unwrap());
    let two = FakeParticipant::start(true).await.unwrap();
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
async fn a_link_that_is_cut_is_made_again_and_the_transaction_goes_on() {
    let coordinator = Alone::start().await.unwrap();
    let (participant, proxy, uri) = behind_proxy(true).await;
    let other = FakeParticipant::start(true).await.unwrap();
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
async fn a_journal_that_did_not_vote_cannot_acknowledge() {
    for link in [true, false] {
        let coordinator = Alone::start().await.unwrap();
        let (participant, proxy, uri) = behind_proxy(link).await;
        let other = FakeParticipant::start(true).await.unwrap();
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
        assert_eq!(transaction.outcome(), Outcome::HeuristicHazard, "link {link}");
        assert_eq!(states(&transaction), [BranchState::Hazard, BranchState::Committed]);
        assert_eq!(count(&transaction, TrailKind::Hazard), 1);
        assert!(transaction.committed, "the decision stands");
    }
}

#[tokio::test]
async fn a_broken_promise_is_called_one_and_never_dressed_up() {
    let mut coordinator = Alone::start().await.unwrap();
    for link in [true, false] {
        let (one, two) = (
            FakeParticipant::start(link).await.unwrap(),
            FakeParticipant::start(true).await.unwrap(),
        );
        let request = || request_at(&[one.uri(), two.uri()]);
        let on = |is: fn(&Heard) -> bool, answer: Reply| {
            one.set_script(move |heard| if is(heard) { answer.clone() } else { agree(heard) });
        };
        on(is_commit, Reply::RolledBack);
        let mixed = run(&coordinator, request()).await;
        assert_eq!(mixed.outcome(), Outcome::HeuristicMixed, "link {link}");
        assert_eq!(states(&mixed), [BranchState::Heuristic, BranchState::Committed]);

        on(is_commit, Reply::Unknown);
        let hazard = run(&coordinator, request()).await;
        assert_eq!(hazard.outcome(), Outcome::HeuristicHazard, "link {link}");

        on(is_rollback, Reply::Committed);
        two.set_script(|heard| match is_prepare(heard) {
            true => Reply::After(Duration::from_millis(50), Box::new(Reply::Refuse("NO".into()))),
            false => agree(heard),
        });
        let opposite = run(&coordinator, request()).await;
        assert_eq!(opposite.outcome(), Outcome::HeuristicMixed, "link {link}");
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

#[tokio::test]
async fn a_lost_answer_in_one_phase_is_settled_by_the_participant() {
    for link in [true, false] {
        for did_commit in [true, false] {
            let coordinator = Alone::start().await.unwrap();
            let only = FakeParticipant::start(link).await.unwrap();
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
            assert_eq!(settled.committed, did_commit, "link {link}: {settled:?}");
            let outcome = if did_commit { Outcome::Committed } else { Outcome::Aborted };
            assert_eq!(settled.outcome(), outcome, "link {link}");
        }
    }
}
