//! A commit that keeps failing is undone everywhere, whatever dies on the way: the
//! courier promises and never commits, and the shop has to take its part back.

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AnswerAt, Branch, CommitPolicy, ExecuteRequest, ExecuteResponse, Outcome, Participant,
    RegisterRequest, TrailKind, Transaction, TransactionOptions, TransactionState,
};
use integration_tests::{
    Addresses, Binaries, Cluster, FakeParticipant, Fixture, Heard, Loss, Reply,
    Role::{self, Coordinator, Inventory, Order, Payment},
    Speaks, Start, agree, eventually, typed,
};
use shop_proto::{OrderState, ReserveStock};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

const PARTICIPANTS: [Role; 3] = [Inventory, Payment, Order];

/// Two tests a row: `<row>::killed` and `<row>::power_lost`.
macro_rules! rows {
    ($($row:ident: $role:ident at $point:literal;)*) => {$(
        mod $row {
            use super::*;

            #[tokio::test]
            async fn killed() {
                dies_on_the_way($role, $point, Loss::Process).await.unwrap();
            }

            #[tokio::test]
            async fn power_lost() {
                dies_on_the_way($role, $point, Loss::Power).await.unwrap();
            }
        }
    )*};
}

rows! {
    coordinator_before_the_compensation_is_durable: Coordinator at "coordinator-before-compensation-durable";
    coordinator_compensation_durable_nobody_notified: Coordinator at "coordinator-compensation-durable";
    coordinator_some_undone: Coordinator at "coordinator-first-undone";
    coordinator_all_undone_end_not_durable: Coordinator at "coordinator-before-end-durable";
    participant_prepared_and_not_committed: Payment at "participant-decision-received";
    participant_committed_acknowledgement_lost: Payment at "participant-applied";
    participant_before_its_undoing_is_durable:
        Payment at "participant-before-compensation-durable";
    participant_undone_acknowledgement_lost: Payment at "participant-undone";
}

/// One that promises, and cannot commit.
async fn courier(speaks: Speaks) -> anyhow::Result<FakeParticipant> {
    let courier = FakeParticipant::start(speaks).await?;
    courier.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Failed("the van is on fire".into()),
        heard => agree(heard),
    });
    Ok(courier)
}

async fn register(fixture: &Fixture, courier: &FakeParticipant) -> anyhow::Result<()> {
    let (name, address) = ("courier".into(), courier.uri());
    let participant = Participant { name, address, compensates: true, ..Participant::default() };
    let request = RegisterRequest { participant: Some(participant), lease: None };
    fixture.shop.registry.clone().register(request).await?;
    fixture.linked("courier").await
}

/// A purchase that the courier is to deliver.
fn delivered(speaks: Speaks) -> ExecuteRequest {
    let mut request = Fixture::purchase("a").request();
    let payload = (speaks != Speaks::Http).then(|| typed(&ReserveStock::default()));
    request.branches.push(Branch { participant: "courier".into(), payload });
    request.options = Some(TransactionOptions {
        commit_policy: CommitPolicy::Compensate.into(),
        compensate_after: 2,
        ..TransactionOptions::default()
    });
    request
}

fn place(
    fixture: &Fixture,
    request: ExecuteRequest,
) -> JoinHandle<Result<ExecuteResponse, Status>> {
    let shop = fixture.shop.clone();
    tokio::spawn(async move { shop.execute(request).await })
}

async fn is_undone(fixture: &mut Fixture, courier: &FakeParticipant) -> anyhow::Result<()> {
    let only = fixture.only_transaction().await?;
    let ended = fixture.comes_to(&only.id, TransactionState::Aborted).await?;
    ensure!(ended.outcome() == Outcome::Aborted && !ended.committed, "{ended:?}");
    let reason = ended.abort_reason.as_ref().context("no reason")?;
    ensure!(reason.code == "COMMIT_FAILED" && reason.participant == "courier", "{reason:?}");
    let turned =
        ended.trail.iter().filter(|it| it.kind() == TrailKind::CompensationDecided).count();
    ensure!(turned == 1, "compensated {turned} times: {:?}", ended.trail);
    fixture.check_sold(0).await?;
    for role in PARTICIPANTS {
        let found = fixture.branches(role)?;
        ensure!(found == (0, 0, 1), "{role:?} has {found:?}");
    }
    let order = fixture.shop.order("a").await?;
    ensure!(order.state() == OrderState::Cancelled, "{order:?}");
    let heard = courier.heard();
    let told = heard.iter().any(|it| matches!(it, Heard::Rollback(it) if it.compensate));
    ensure!(told, "the courier was not told: {heard:?}");
    // The shop goes on, and the order can be placed anew.
    let again = fixture.shop.execute(Fixture::purchase("a").request()).await?;
    ensure!(again.committed, "{again:?}");
    fixture.check_sold(1).await
}

async fn dies_on_the_way(role: Role, point: &str, loss: Loss) -> anyhow::Result<()> {
    let mut fixture = Fixture::crashing(role, point).await?;
    let courier = courier(Speaks::Link).await?;
    register(&fixture, &courier).await?;
    let placing = place(&fixture, delivered(Speaks::Link));
    fixture.killed_itself(role).await?;
    if loss == Loss::Power {
        fixture.cluster.process(role).lose_power()?;
    }
    if role != Coordinator {
        // It stays away until the others have taken their parts back.
        eventually("the decision is compensated", async || {
            let only = fixture.only_transaction().await?;
            ensure!(only.state() == TransactionState::Aborting, "not yet: {only:?}");
            Ok(())
        })
        .await?;
    }
    fixture.cluster.process(role).start().await?;
    let answer = placing.await?;
    match role {
        Coordinator => ensure!(answer.is_err(), "a dead coordinator answered {answer:?}"),
        _ => ensure!(!answer?.committed, "it is not committed"),
    }
    is_undone(&mut fixture, &courier).await
}

#[tokio::test]
async fn the_shop_takes_its_part_back_and_the_client_hears_of_it_at_the_end_only() {
    for speaks in Speaks::ALL {
        let mut fixture = Fixture::start().await.unwrap();
        let courier = courier(speaks).await.unwrap();
        register(&fixture, &courier).await.unwrap();
        let request = ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..delivered(speaks) };
        let answer = fixture.shop.execute(request).await.unwrap();
        assert!(!answer.committed, "{speaks:?}: {answer:?}");
        let transaction = answer.transaction.unwrap();
        assert_eq!(transaction.state(), TransactionState::Aborted, "{speaks:?}");
        is_undone(&mut fixture, &courier).await.unwrap();
        let trail = fixture.shop.transaction(&transaction.id).await.unwrap().trail;
        let details: Vec<_> =
            trail.iter().filter(|it| it.kind() == TrailKind::CompensationDecided).collect();
        assert!(details[0].detail.contains("in 2 attempts"), "{details:?}");
    }
}

#[tokio::test]
async fn one_that_does_not_declare_that_it_can_is_refused_before_anything_is_done() {
    let fixture = Fixture::start().await.unwrap();
    let plain = FakeParticipant::start(Speaks::Calls).await.unwrap();
    let (name, address) = ("courier".into(), plain.uri());
    let participant = Some(Participant { name, address, ..Participant::default() });
    let request = RegisterRequest { participant, lease: None };
    fixture.shop.registry.clone().register(request).await.unwrap();
    fixture.linked("courier").await.unwrap();
    let answer = fixture.shop.execute(delivered(Speaks::Calls)).await.unwrap();
    let reason = answer.transaction.unwrap().abort_reason.unwrap();
    assert_eq!((&*reason.code, &*reason.participant), ("CANNOT_COMPENSATE", "courier"));
    assert!(plain.heard().is_empty(), "{:?}", plain.heard());
    fixture.check_sold(0).await.unwrap();
}

#[tokio::test]
async fn options_that_make_no_sense_are_named() {
    let fixture = Fixture::start().await.unwrap();
    let with = |policy: i32, after| {
        let options = TransactionOptions {
            commit_policy: policy,
            compensate_after: after,
            ..TransactionOptions::default()
        };
        ExecuteRequest { options: Some(options), ..Fixture::purchase("a").request() }
    };
    for (policy, after, what) in [
        (9, 0, "options.commit_policy: 9 is none"),
        (CommitPolicy::Retry.into(), 3, "options.compensate_after: goes with"),
        (0, 3, "options.compensate_after: goes with"),
        (CommitPolicy::Compensate.into(), 101, "options.compensate_after: 101 is out of range"),
    ] {
        let status = fixture.shop.execute(with(policy, after)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(what), "{status}");
    }
}

#[tokio::test]
async fn a_branch_that_is_lost_is_not_taken_for_undone() {
    for speaks in Speaks::ALL {
        let fixture = Fixture::start().await.unwrap();
        let courier = courier(speaks).await.unwrap();
        courier.set_script(|heard| match heard {
            Heard::Commit(_) => Reply::Failed("the van is on fire".into()),
            Heard::Rollback(_) => Reply::Unknown,
            heard => agree(heard),
        });
        register(&fixture, &courier).await.unwrap();
        let answer = fixture.shop.execute(delivered(speaks)).await.unwrap();
        let transaction = answer.transaction.unwrap();
        assert_eq!(transaction.outcome(), Outcome::HeuristicHazard, "{speaks:?}: {transaction:?}");
    }
}

/// With an inventory that forgets at once what has ended.
async fn forgetful(coordinator: Start) -> anyhow::Result<Fixture> {
    let mut cluster = Cluster::prepare(Binaries::test()?, Addresses::pick())?;
    let start = Start::new().arg("--retention").arg("1s");
    cluster.process(Inventory).start_with(start).await?;
    cluster.process(Coordinator).start_with(coordinator).await?;
    Fixture::of(cluster).await
}

/// The same, and the inventory is known as the store, too.
async fn known_twice() -> anyhow::Result<Fixture> {
    let mut cluster = Cluster::prepare(Binaries::test()?, Addresses::pick())?;
    let start = Start::new().arg("--retention").arg("1s");
    cluster.process(Inventory).start_with(start).await?;
    let store = format!("store=http://{}", cluster.inventory.address());
    let start = Start::new().arg("--participant").arg(store);
    cluster.process(Coordinator).start_with(start).await?;
    let fixture = Fixture::of(cluster).await?;
    fixture.linked("store").await?;
    Ok(fixture)
}

/// Where the inventory is, in other words.
fn elsewhere(cluster: &Cluster) -> String {
    let address = cluster.inventory.address();
    format!("http://[::ffff:{}]:{}", address.ip(), address.port())
}

/// A purchase that is undone after long enough for the inventory to forget its part of
/// it, were it told that it has ended.
fn delivered_late(inventory: &str) -> ExecuteRequest {
    let mut request = delivered(Speaks::Link);
    let branches = request.branches.iter_mut();
    branches.filter(|it| it.participant == "inventory").for_each(|branch| {
        branch.participant = inventory.into();
    });
    if let Some(options) = &mut request.options {
        options.compensate_after = 9;
    }
    request
}

async fn is_truly_undone(fixture: Fixture, inventory: &str) -> anyhow::Result<()> {
    let courier = courier(Speaks::Link).await?;
    register(&fixture, &courier).await?;
    let answer = fixture.shop.execute(delivered_late(inventory)).await?;
    let transaction = answer.transaction.context("no transaction")?;
    is_aborted_for_its_commit(&transaction)?;
    fixture.check_sold(0).await
}

fn is_aborted_for_its_commit(transaction: &Transaction) -> anyhow::Result<()> {
    let reason = transaction.abort_reason.clone().unwrap_or_default();
    ensure!(transaction.outcome() == Outcome::Aborted, "{transaction:?}");
    ensure!(reason.code == "COMMIT_FAILED", "it was not committed first: {reason:?}");
    Ok(())
}

#[tokio::test]
async fn one_participant_under_two_names_undoes_what_it_did_under_the_first() {
    is_truly_undone(known_twice().await.unwrap(), "inventory").await.unwrap();
}

#[tokio::test]
async fn one_participant_under_two_names_undoes_what_it_did_under_the_second() {
    is_truly_undone(known_twice().await.unwrap(), "store").await.unwrap();
}

#[tokio::test]
async fn one_participant_by_name_and_by_address_undoes_what_it_did() {
    let all = Start::new().arg("--allow-participant").arg("*");
    let fixture = forgetful(all).await.unwrap();
    let address = elsewhere(&fixture.cluster);
    is_truly_undone(fixture, &address).await.unwrap();
}

#[tokio::test]
async fn a_participant_whose_name_moves_undoes_what_it_did() {
    let mut fixture = forgetful(Start::new()).await.unwrap();
    let courier = courier(Speaks::Link).await.unwrap();
    register(&fixture, &courier).await.unwrap();
    let shelf = |address: String| {
        let name = "shelf".into();
        let participant = Participant { name, address, compensates: true, ..Default::default() };
        let request = RegisterRequest { participant: Some(participant), lease: None };
        let mut registry = fixture.shop.registry.clone();
        async move { registry.register(request).await.map(drop) }
    };
    let address = format!("http://{}", fixture.cluster.inventory.address());
    let (here, nowhere) = (shelf(address), shelf("http://127.0.0.1:1".into()));
    here.await.unwrap();
    fixture.linked("shelf").await.unwrap();
    let placing = place(&fixture, delivered_late("shelf"));
    eventually("the inventory has committed", async || {
        ensure!(fixture.branches(Inventory)? == (0, 1, 0), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    nowhere.await.unwrap();
    eventually("the decision is compensated", async || {
        let only = fixture.only_transaction().await?;
        ensure!(only.state() == TransactionState::Aborting, "not yet: {only:?}");
        Ok(())
    })
    .await
    .unwrap();
    let address = format!("http://{}", fixture.cluster.inventory.address());
    let participant =
        Participant { name: "shelf".into(), address, compensates: true, ..Default::default() };
    let request = RegisterRequest { participant: Some(participant), lease: None };
    fixture.shop.registry.clone().register(request).await.unwrap();
    let transaction = placing.await.unwrap().unwrap().transaction.unwrap();
    is_aborted_for_its_commit(&transaction).unwrap();
    fixture.check_sold(0).await.unwrap();
}
