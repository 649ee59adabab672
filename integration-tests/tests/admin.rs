//! What is done by an operator: at the coordinator, and at a participant whose coordinator
//! is gone.

use std::time::Duration;

use anyhow::ensure;
use dtc_proto::dtc::{
    AnswerAt, Branch, BranchKey, ForgetBranchRequest, ForgetRequest, InterventionAction,
    ListResolvedRequest, ListTransactionsRequest, ListUndecidedRequest, Outcome, Resolution,
    ResolveBranchRequest, ResolveRequest, RetryRequest, Transaction, TransactionOptions,
    TransactionState, admin_service_client::AdminServiceClient,
    participant_admin_service_client::ParticipantAdminServiceClient,
};
use integration_tests::{
    Addresses, Binaries, Cluster, FakeParticipant, Fixture, Heard, Reply,
    Role::{self, Coordinator, Inventory, Payment},
    Speaks, Start, agree, channel, eventually, typed,
};
use shop_proto::ReserveStock;
use tonic::{Code, transport::Channel};

fn admin(fixture: &Fixture) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel(fixture.cluster.coordinator.address()))
}

/// A shop whose coordinator calls a transaction stalled soon, and forgets soon.
async fn impatient() -> Fixture {
    let mut cluster = Cluster::prepare(Binaries::test().unwrap(), Addresses::pick()).unwrap();
    let start =
        Start::new().arg("--stalled-after=2").arg("--retention=1s").arg("--backoff-cap=200ms");
    cluster.coordinator.start_with(start).await.unwrap();
    Fixture::of(cluster).await.unwrap()
}

/// A purchase that the courier has promised and does not commit.
async fn stalled(fixture: &Fixture, courier: &FakeParticipant) -> Transaction {
    courier.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Failed("the van is on fire".into()),
        heard => agree(heard),
    });
    let mut request = Fixture::purchase("a").request_at_decision();
    let payload = Some(typed(&ReserveStock::default()));
    request.branches.push(Branch { participant: courier.uri(), payload });
    assert_eq!(request.answer_at(), AnswerAt::Decision);
    request.options = Some(TransactionOptions {
        commit_attempt_timeout: Some(Duration::from_millis(500).try_into().unwrap()),
        ..TransactionOptions::default()
    });
    let id = fixture.shop.execute(request).await.unwrap().transaction.unwrap().id;
    eventually("it is stalled, and shown so", async || {
        let request = ListTransactionsRequest { stalled: true, ..Default::default() };
        let list = fixture.shop.transactions.clone().list(request).await?.into_inner();
        ensure!(list.transactions.iter().any(|it| it.id == id), "not yet");
        let acknowledged = fixture.shop.transaction(&id).await?;
        let owed = acknowledged.branches.iter().filter(|it| it.attempts > 0 && it.branch == 3);
        ensure!(owed.count() == 1, "{acknowledged:?}");
        Ok(acknowledged)
    })
    .await
    .unwrap()
}

fn resolve(id: &str, branch: Option<u32>, resolution: Resolution) -> ResolveRequest {
    ResolveRequest {
        transaction_id: id.into(),
        branch,
        resolution: resolution.into(),
        reason: "the courier is bankrupt".into(),
        caller: "ada".into(),
        wait: None,
    }
}

#[tokio::test]
async fn a_branch_that_an_operator_resolves_is_told_of_and_kept_until_it_is_forgotten() {
    let fixture = impatient().await;
    let courier = FakeParticipant::start(Speaks::Link).await.unwrap();
    let id = stalled(&fixture, &courier).await.id;
    eventually("it is logged until it is resolved", async || {
        ensure!(fixture.cluster.coordinator.log().contains("stalled: decided"), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let answer =
        admin(&fixture).resolve(resolve(&id, Some(3), Resolution::Rollback)).await.unwrap();
    let transaction = answer.into_inner().transaction.unwrap();
    assert_eq!(transaction.state(), TransactionState::Committed, "{transaction:?}");
    assert_eq!(transaction.outcome(), Outcome::HeuristicMixed, "{transaction:?}");
    let intervention = &transaction.interventions[0];
    assert_eq!(intervention.action(), InterventionAction::Rollback);
    assert_eq!((intervention.branch, &*intervention.reason), (Some(3), "the courier is bankrupt"));
    assert!(intervention.caller.starts_with("ada (127."), "{intervention:?}");
    let heard = courier.heard();
    let told = heard.iter().any(|it| matches!(it, Heard::Rollback(it) if it.decision_number == 2));
    assert!(told, "{heard:?}");
    fixture.check_sold(1).await.unwrap();

    // Others go, it stays.
    let other = fixture.shop.execute(Fixture::purchase("b").request()).await.unwrap();
    let other = other.transaction.unwrap().id;
    eventually("a later transaction is forgotten", async || {
        ensure!(fixture.shop.transaction(&other).await.is_err(), "it is kept");
        Ok(())
    })
    .await
    .unwrap();
    let kept = fixture.shop.transaction(&id).await.unwrap();
    assert_eq!((kept.outcome(), kept.interventions.len()), (Outcome::HeuristicMixed, 1));

    let forget = ForgetRequest {
        transaction_id: id.clone(),
        reason: "paid in cash".into(),
        caller: "ada".into(),
    };
    let forgotten = admin(&fixture).forget(forget.clone()).await.unwrap().into_inner();
    let last = forgotten.transaction.unwrap().interventions.pop().unwrap();
    assert_eq!((last.action(), &*last.reason), (InterventionAction::Forget, "paid in cash"));
    eventually("it is forgotten too", async || {
        ensure!(fixture.shop.transaction(&id).await.is_err(), "it is kept");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(admin(&fixture).forget(forget).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_was_forced_and_cannot_be_told_is_a_hazard_and_survives_a_restart() {
    let mut fixture = impatient().await;
    let courier = FakeParticipant::start(Speaks::Calls).await.unwrap();
    let id = stalled(&fixture, &courier).await.id;
    courier.set_script(|_| Reply::Silence);
    let answer = admin(&fixture).resolve(resolve(&id, None, Resolution::Rollback)).await.unwrap();
    let transaction = answer.into_inner().transaction.unwrap();
    assert_eq!(transaction.outcome(), Outcome::HeuristicHazard, "{transaction:?}");
    fixture.cluster.coordinator.restart().await.unwrap();
    // Where that it has ended was not durable, it is resolved once more.
    let kept = eventually("it is known again", async || {
        let known = fixture.shop.transaction(&id).await?;
        ensure!(known.outcome() == Outcome::HeuristicHazard, "{known:?}");
        Ok(known)
    })
    .await
    .unwrap();
    assert_eq!(kept.interventions.len(), 1);
    let late = admin(&fixture).resolve(resolve(&id, None, Resolution::Commit)).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
    assert!(late.message().contains("resolve is not"), "{late}");
}

#[tokio::test]
async fn a_retry_by_hand_ends_what_can_be_ended_and_is_on_record() {
    let fixture = impatient().await;
    let courier = FakeParticipant::start(Speaks::Link).await.unwrap();
    let id = stalled(&fixture, &courier).await.id;
    let retry = RetryRequest {
        transaction_id: id.clone(),
        reason: "the fire is out".into(),
        caller: "ada".into(),
    };
    // Not where it is being sent at this moment.
    eventually("it is retried", async || {
        let answer = admin(&fixture).retry(retry.clone()).await?.into_inner();
        ensure!(answer.transaction.is_some_and(|it| !it.interventions.is_empty()), "not noted");
        Ok(())
    })
    .await
    .unwrap();
    courier.set_script(agree);
    let ended = fixture.comes_to(&id, TransactionState::Committed).await.unwrap();
    assert_eq!(ended.outcome(), Outcome::Committed);
    assert_eq!(ended.interventions[0].action(), InterventionAction::Retry);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_named() {
    let fixture = Fixture::start().await.unwrap();
    let id = fixture.prepare("a").await.unwrap();
    let good = resolve(&id, None, Resolution::Rollback);
    for (bad, code, what) in [
        (
            ResolveRequest { transaction_id: "x".into(), ..good.clone() },
            Code::InvalidArgument,
            "'x'",
        ),
        (
            resolve(&id, None, Resolution::Unspecified),
            Code::InvalidArgument,
            "resolution: is missing",
        ),
        (
            ResolveRequest { reason: " ".into(), ..good.clone() },
            Code::InvalidArgument,
            "reason: has 1",
        ),
        (
            ResolveRequest { caller: String::new(), ..good.clone() },
            Code::InvalidArgument,
            "caller: ",
        ),
        (
            ResolveRequest { reason: "x".repeat(1001), ..good.clone() },
            Code::InvalidArgument,
            "1001 characters",
        ),
        (resolve(&id, Some(0), Resolution::Rollback), Code::FailedPrecondition, "resolve is not"),
        (
            resolve("0190a5f1-0000-7000-8000-000000000000", None, Resolution::Commit),
            Code::NotFound,
            "no transaction",
        ),
    ] {
        let status = admin(&fixture).resolve(bad).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(what), "{status}");
    }
    let undecided =
        ForgetRequest { transaction_id: id.clone(), reason: "no".into(), caller: "ada".into() };
    let status = admin(&fixture).forget(undecided).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    // An undecided one is simply rolled back.
    let answer = admin(&fixture).resolve(good).await.unwrap().into_inner().transaction.unwrap();
    assert_eq!(
        (answer.outcome(), answer.abort_reason.unwrap().code),
        (Outcome::Aborted, "RESOLVED".into())
    );
    fixture.check_sold(0).await.unwrap();
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn an_operator_resolves_at_a_participant_when_its_coordinator_is_gone() {
    let mut cluster = Cluster::prepare(Binaries::test().unwrap(), Addresses::pick()).unwrap();
    let crash = Start::new().crash_at("coordinator-decision-durable");
    cluster.coordinator.start_with(crash).await.unwrap();
    cluster.inventory.start_with(Start::new().arg("--overdue-after=1s")).await.unwrap();
    let mut fixture = Fixture::of(cluster).await.unwrap();
    let shop = fixture.shop.clone();
    let placing = tokio::spawn(async move { shop.execute(Fixture::purchase("a").request()).await });
    fixture.killed_itself(Coordinator).await.unwrap();
    assert!(placing.await.unwrap().is_err());

    let at = |fixture: &mut Fixture, role: Role| {
        ParticipantAdminServiceClient::new(channel(fixture.cluster.process(role).address()))
    };
    let mut inventory = at(&mut fixture, Inventory);
    let undecided = inventory.list_undecided(ListUndecidedRequest::default()).await.unwrap();
    let undecided = undecided.into_inner().branches;
    assert_eq!(undecided.len(), 1, "{undecided:?}");
    let key = undecided[0].key.clone();
    let young = ListUndecidedRequest {
        older_than: Some(Duration::from_secs(3600).try_into().unwrap()),
        ..ListUndecidedRequest::default()
    };
    assert!(inventory.list_undecided(young).await.unwrap().into_inner().branches.is_empty());
    eventually("it is told of until it is resolved", async || {
        let log = fixture.cluster.inventory.log();
        ensure!(log.contains("in doubt for long"), "not yet");
        Ok(())
    })
    .await
    .unwrap();

    let request = ResolveBranchRequest {
        key: key.clone(),
        resolution: Resolution::Rollback.into(),
        reason: "the coordinator's disk is gone".into(),
        caller: "grace".into(),
    };
    for (bad, code) in [
        (ResolveBranchRequest { key: None, ..request.clone() }, Code::InvalidArgument),
        (ResolveBranchRequest { caller: String::new(), ..request.clone() }, Code::InvalidArgument),
        (ResolveBranchRequest { resolution: 0, ..request.clone() }, Code::InvalidArgument),
        (
            ResolveBranchRequest {
                key: key.clone().map(|key| BranchKey { branch: 9, ..key }),
                ..request.clone()
            },
            Code::NotFound,
        ),
    ] {
        assert_eq!(inventory.resolve_branch(bad).await.unwrap_err().code(), code);
    }
    inventory.resolve_branch(request.clone()).await.unwrap();
    // What was answered is on the disk.
    fixture.cluster.inventory.kill();
    fixture.cluster.inventory.lose_power().unwrap();
    fixture.cluster.inventory.start().await.unwrap();
    let mut inventory = at(&mut fixture, Inventory);
    let stock = fixture.shop.stock("teapot").await.unwrap();
    assert_eq!((stock.on_hand, stock.reserved), (Fixture::STOCK, 0));
    let twice = inventory.resolve_branch(request).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice}");
    let resolved = inventory.list_resolved(ListResolvedRequest::default()).await.unwrap();
    let resolved = resolved.into_inner().branches;
    assert_eq!((resolved.len(), resolved[0].resolution()), (1, Resolution::Rollback));
    assert!(resolved[0].caller.starts_with("grace (127."), "{resolved:?}");

    // The coordinator comes back, and had decided to commit.
    fixture.cluster.coordinator.start().await.unwrap();
    let id = key.clone().unwrap().transaction_id;
    let ended = fixture.comes_to(&id, TransactionState::Committed).await.unwrap();
    assert_eq!(ended.outcome(), Outcome::HeuristicMixed, "{ended:?}");
    assert_eq!(fixture.branches(Inventory).unwrap(), (0, 0, 1));
    assert_eq!(fixture.branches(Payment).unwrap(), (0, 1, 0));
    let (reason, caller) = ("paid in cash".into(), "grace".into());
    let forget = ForgetBranchRequest { key, reason, caller };
    inventory.forget_branch(forget.clone()).await.unwrap();
    assert_eq!(inventory.forget_branch(forget).await.unwrap_err().code(), Code::NotFound);
}
