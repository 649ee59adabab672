//! The crash table of the protocol, row by row: the real process dies at that
//! very point, once by SIGKILL alone and once with the loss of what it had not
//! synced, is started again, and all four databases are checked.

use std::time::Duration;

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AnswerAt, Branch, ExecuteRequest, ExecuteResponse, Participant, RegisterRequest,
    RollbackTransactionRequest, TrailKind, Transaction, TransactionOptions, TransactionState,
};
use integration_tests::{
    FakeParticipant, Fixture, Heard, Loss, Purchase,
    Role::{self, Coordinator, Inventory, Order, Payment},
    Speaks, eventually, typed,
};
use shop_proto::{OrderState, ReserveStock};
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Status};

const PARTICIPANTS: [Role; 3] = [Inventory, Payment, Order];
const UNFINISHED: &str = "SELECT count(*) FROM unfinished";
const DECIDED: &str = "SELECT count(*) FROM unfinished WHERE decision IS NOT NULL";
const FINISHED: &str = "SELECT count(*) FROM finished";

/// Two tests a row: `<row>::killed` and `<row>::power_lost`.
macro_rules! rows {
    ($($row:ident: $role:ident at $point:literal;)*) => {$(
        mod $row {
            use super::*;

            #[tokio::test]
            async fn killed() {
                let mut fixture = Fixture::crashing($role, $point).await.unwrap();
                super::$row(&mut fixture, Loss::Process).await.unwrap();
            }

            #[tokio::test]
            async fn power_lost() {
                let mut fixture = Fixture::crashing($role, $point).await.unwrap();
                super::$row(&mut fixture, Loss::Power).await.unwrap();
            }
        }
    )*};
}

rows! {
    coordinator_before_any_prepare_left: Coordinator at "coordinator-before-prepare";
    coordinator_after_some_prepares_before_the_decision_is_durable:
        Coordinator at "coordinator-before-decision-durable";
    coordinator_after_some_prepares_but_not_all: Coordinator at "nowhere";
    coordinator_after_some_prepares_with_a_participant_that_cannot_ask:
        Coordinator at "coordinator-before-decision-durable";
    coordinator_decision_durable_nobody_told: Coordinator at "coordinator-decision-durable";
    coordinator_some_told: Coordinator at "coordinator-first-acknowledged";
    coordinator_all_acknowledged_end_not_durable: Coordinator at "coordinator-before-end-durable";
    participant_before_its_prepared_record_is_durable:
        Payment at "participant-before-prepared-durable";
    participant_prepared_vote_not_sent: Payment at "participant-prepared-durable";
    participant_prepared_vote_not_sent_and_aborted_meanwhile:
        Payment at "participant-prepared-durable";
    participant_decision_received_not_applied: Payment at "participant-decision-received";
    participant_applied_acknowledgement_lost: Payment at "participant-applied";
    everything_at_once: Coordinator at "nowhere";
    everything_at_once_in_the_middle_of_traffic: Coordinator at "nowhere";
}

/// A purchase with a request key, waited for long enough.
fn keyed() -> ExecuteRequest {
    Fixture::purchase("a").request_with_key("key-a", Duration::from_secs(25))
}

/// A purchase whose votes may take `seconds`, answered when it is decided.
fn patient(purchase: &Purchase, seconds: i64) -> ExecuteRequest {
    let prepare_timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    let options = Some(TransactionOptions { prepare_timeout, ..TransactionOptions::default() });
    ExecuteRequest { options, ..purchase.request_at_decision() }
}

fn place(
    fixture: &Fixture,
    request: ExecuteRequest,
) -> JoinHandle<Result<ExecuteResponse, Status>> {
    let shop = fixture.shop.clone();
    tokio::spawn(async move { shop.execute(request).await })
}

/// Waits for the death at the crash point; takes the power away where asked for.
async fn dies(fixture: &mut Fixture, role: Role, loss: Loss) -> anyhow::Result<()> {
    fixture.killed_itself(role).await?;
    if loss == Loss::Power {
        fixture.cluster.process(role).lose_power()?;
    }
    Ok(())
}

/// The coordinator dies while the request is under way, so its client hears nothing.
async fn dies_over(
    fixture: &mut Fixture,
    request: ExecuteRequest,
    loss: Loss,
) -> anyhow::Result<()> {
    let placing = place(fixture, request);
    dies(fixture, Coordinator, loss).await?;
    let answer = placing.await?;
    ensure!(answer.is_err(), "a dead coordinator answered {answer:?}");
    Ok(())
}

/// All three participants have the only branch that each has.
fn all_have(fixture: &mut Fixture, expected: (i64, i64, i64)) -> anyhow::Result<()> {
    for role in PARTICIPANTS {
        let found = fixture.branches(role)?;
        ensure!(found == expected, "{role:?} has {found:?}, not {expected:?}");
    }
    Ok(())
}

fn has(transaction: &Transaction, kind: TrailKind) -> bool {
    transaction.trail.iter().any(|event| event.kind() == kind)
}

/// A repeated request gets the first outcome, which is to be committed.
async fn first_outcome_is_committed(fixture: &Fixture) -> anyhow::Result<()> {
    let again = fixture.shop.execute(keyed()).await?;
    ensure!(again.committed, "a repeated request was answered {again:?}");
    let only = fixture.only_transaction().await?;
    ensure!(only.state() == TransactionState::Committed, "{only:?}");
    ensure!(has(&only, TrailKind::Recovered), "not recovered: {only:?}");
    fixture.check_sold(1).await
}

async fn coordinator_before_any_prepare_left(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    dies_over(fixture, keyed(), loss).await?;
    ensure!(fixture.count(Coordinator, UNFINISHED)? == 0, "something was written");
    fixture.cluster.coordinator.start().await?;
    fixture.check_sold(0).await?;
    all_have(fixture, (0, 0, 0))?;
    ensure!(fixture.only_transaction().await.is_err(), "a transaction was recovered");
    let again = fixture.shop.execute(keyed()).await?;
    ensure!(again.committed, "the new run was answered {again:?}");
    fixture.check_sold(1).await
}

async fn coordinator_after_some_prepares_before_the_decision_is_durable(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    dies_over(fixture, keyed(), loss).await?;
    ensure!(fixture.count(Coordinator, UNFINISHED)? == 0, "something was written");
    all_have(fixture, (1, 0, 0))?;
    fixture.cluster.coordinator.start().await?;
    fixture.check_sold(0).await?;
    all_have(fixture, (0, 0, 1))?;
    for role in PARTICIPANTS {
        let log = fixture.cluster.process(role).log();
        ensure!(log.contains("in doubt, asking"), "{role:?} did not ask:\n{log}");
    }
    let answered = fixture.cluster.coordinator.log().matches("answered: aborted").count();
    ensure!(answered >= PARTICIPANTS.len(), "answered {answered} times");
    let again = fixture.shop.execute(keyed()).await?;
    ensure!(again.committed, "the new run was answered {again:?}");
    fixture.check_sold(1).await
}

async fn coordinator_after_some_prepares_but_not_all(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    // Linked, and answering nothing: others are not prepared while a link is down.
    fixture.cluster.order.pause()?;
    let placing = place(fixture, patient(&Fixture::purchase("a"), 25));
    for role in [Inventory, Payment] {
        eventually("two have promised", async || {
            ensure!(fixture.branches(role)? == (1, 0, 0), "{role:?} has not");
            Ok(())
        })
        .await?;
    }
    fixture.cluster.coordinator.kill();
    if loss == Loss::Power {
        fixture.cluster.coordinator.lose_power()?;
    }
    fixture.cluster.order.kill();
    ensure!(placing.await?.is_err(), "a dead coordinator answered");
    fixture.cluster.start_all().await?;
    fixture.check_sold(0).await?;
    for role in [Inventory, Payment] {
        ensure!(fixture.branches(role)? == (0, 0, 1), "{role:?} has not rolled back");
    }
    ensure!(fixture.branches(Order)? == (0, 0, 0), "order was told something");
    Ok(())
}

async fn coordinator_after_some_prepares_with_a_participant_that_cannot_ask(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let courier = FakeParticipant::start(Speaks::Calls).await?;
    let messenger = FakeParticipant::start(Speaks::Http).await?;
    let (name, address) = ("courier".into(), courier.uri());
    let participant = Participant { name, address, ..Participant::default() };
    let request = RegisterRequest { participant: Some(participant), lease: None };
    fixture.shop.registry.clone().register(request).await?;
    fixture.linked("courier").await?;
    let mut request = Fixture::purchase("a").request();
    let payload = Some(typed(&ReserveStock::default()));
    request.branches.push(Branch { participant: "courier".into(), payload });
    request.branches.push(Branch { participant: messenger.uri(), payload: None });

    dies_over(fixture, request, loss).await?;
    let begun =
        fixture.count(Coordinator, "SELECT count(*) FROM unfinished WHERE begin NOT NULL")?;
    ensure!(begun == 1, "there are {begun} begin records");
    for heard in [courier.heard(), messenger.heard()] {
        ensure!(matches!(&heard[..], [Heard::Prepare(_)]), "they heard {heard:?}");
    }
    fixture.cluster.coordinator.start().await?;
    let only = fixture.only_transaction().await?;
    let ended = fixture.comes_to(&only.id, TransactionState::Aborted).await?;
    ensure!(has(&ended, TrailKind::Recovered), "not recovered: {ended:?}");
    for heard in [courier.heard(), messenger.heard()] {
        let rolled_back = heard.iter().any(
            |it| matches!(it, Heard::Rollback(rollback) if rollback.transaction_id == only.id),
        );
        ensure!(rolled_back, "they heard {heard:?}");
    }
    fixture.check_sold(0).await
}

async fn coordinator_decision_durable_nobody_told(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    dies_over(fixture, keyed(), loss).await?;
    ensure!(fixture.count(Coordinator, DECIDED)? == 1, "the decision is not durable");
    all_have(fixture, (1, 0, 0))?;
    fixture.cluster.coordinator.start().await?;
    first_outcome_is_committed(fixture).await
}

async fn coordinator_some_told(fixture: &mut Fixture, loss: Loss) -> anyhow::Result<()> {
    let id = fixture.prepare("a").await?;
    fixture.cluster.order.kill();
    if let Ok(answer) = fixture.commit(&id).await {
        ensure!(answer.committed, "{answer:?}");
    }
    dies(fixture, Coordinator, loss).await?;
    ensure!(fixture.count(Coordinator, DECIDED)? == 1, "the decision is not durable");
    let told = [Inventory, Payment]
        .map(|role| fixture.branches(role).is_ok_and(|branches| branches == (0, 1, 0)));
    ensure!(told.contains(&true), "nobody had been told");
    ensure!(fixture.branches(Order)? == (1, 0, 0), "order had been told");
    fixture.cluster.start_all().await?;
    let ended = fixture.comes_to(&id, TransactionState::Committed).await?;
    ensure!(has(&ended, TrailKind::Recovered), "not recovered: {ended:?}");
    all_have(fixture, (0, 1, 0))?;
    fixture.check_sold(1).await
}

async fn coordinator_all_acknowledged_end_not_durable(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    dies_over(fixture, keyed(), loss).await?;
    all_have(fixture, (0, 1, 0))?;
    ensure!(fixture.count(Coordinator, DECIDED)? == 1, "the decision is not durable");
    ensure!(fixture.count(Coordinator, FINISHED)? == 0, "the end is durable");
    fixture.cluster.coordinator.start().await?;
    first_outcome_is_committed(fixture).await?;
    eventually("the end is durable", async || {
        let left = (fixture.count(Coordinator, UNFINISHED)?, fixture.count(Coordinator, FINISHED)?);
        ensure!(left == (0, 1), "unfinished, finished: {left:?}");
        Ok(())
    })
    .await
}

async fn participant_before_its_prepared_record_is_durable(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let placing = place(fixture, patient(&Fixture::purchase("a"), 2));
    dies(fixture, Payment, loss).await?;
    ensure!(fixture.branches(Payment)? == (0, 0, 0), "it knows something");
    let answer = placing.await??;
    ensure!(!answer.committed, "{answer:?}");
    let aborted = answer.transaction.context("an answer without transaction")?;
    let reason = aborted.abort_reason.map(|reason| reason.code).unwrap_or_default();
    ensure!(reason == "PREPARE_TIMEOUT", "aborted for {reason}");
    fixture.cluster.payment.start().await?;
    fixture.comes_to(&aborted.id, TransactionState::Aborted).await?;
    fixture.check_sold(0).await
}

/// Starts payment while the coordinator stands still, so that nobody but its own
/// journal can tell it anything: it holds the money, and asks.
async fn payment_holds_the_money_and_asks(fixture: &mut Fixture) -> anyhow::Result<()> {
    ensure!(fixture.branches(Payment)? == (1, 0, 0), "the promise is not durable");
    fixture.cluster.coordinator.pause()?;
    fixture.cluster.payment.start().await?;
    eventually("payment asks", async || {
        ensure!(fixture.cluster.payment.log().contains("in doubt, asking"), "it has not asked");
        Ok(())
    })
    .await?;
    let held = fixture.shop.account("ada").await?.held_minor;
    fixture.cluster.coordinator.resume()?;
    ensure!(held == Fixture::PRICE, "{held} is held");
    Ok(())
}

async fn participant_prepared_vote_not_sent(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let placing = place(fixture, patient(&Fixture::purchase("a"), 25));
    dies(fixture, Payment, loss).await?;
    payment_holds_the_money_and_asks(fixture).await?;
    let answer = placing.await??;
    ensure!(answer.committed, "{answer:?}");
    fixture.check_sold(1).await
}

async fn participant_prepared_vote_not_sent_and_aborted_meanwhile(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let placing = place(fixture, patient(&Fixture::purchase("a"), 2));
    dies(fixture, Payment, loss).await?;
    let answer = placing.await??;
    ensure!(!answer.committed, "{answer:?}");
    payment_holds_the_money_and_asks(fixture).await?;
    fixture.check_sold(0).await
}

async fn participant_decision_received_not_applied(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let placing = place(fixture, keyed());
    dies(fixture, Payment, loss).await?;
    ensure!(fixture.count(Coordinator, DECIDED)? == 1, "the decision is not durable");
    payment_holds_the_money_and_asks(fixture).await?;
    let answer = placing.await??;
    ensure!(answer.committed, "{answer:?}");
    all_have(fixture, (0, 1, 0))?;
    fixture.check_sold(1).await
}

async fn participant_applied_acknowledgement_lost(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let placing = place(fixture, keyed());
    dies(fixture, Payment, loss).await?;
    ensure!(fixture.branches(Payment)? == (0, 1, 0), "it was not applied");
    ensure!(fixture.count(Coordinator, FINISHED)? == 0, "the acknowledgement arrived");
    fixture.cluster.payment.start().await?;
    let answer = placing.await??;
    ensure!(answer.committed, "{answer:?}");
    let ended = fixture.only_transaction().await?;
    ensure!(ended.state() == TransactionState::Committed, "{ended:?}");
    ensure!(has(&ended, TrailKind::Retried), "it was not told again: {ended:?}");
    fixture.check_sold(1).await
}

async fn all_die(fixture: &mut Fixture, loss: Loss) -> anyhow::Result<()> {
    match loss {
        Loss::Process => fixture.cluster.restart_all().await,
        Loss::Power => fixture.cluster.lose_power_everywhere().await,
    }
}

async fn roll_back(fixture: &Fixture, id: &str) -> Result<(), Status> {
    let answer_at = AnswerAt::Decision.into();
    let transaction_id = id.into();
    let request = RollbackTransactionRequest { transaction_id, answer_at, wait: None };
    fixture.shop.transactions.clone().rollback(request).await.map(drop)
}

async fn everything_at_once(fixture: &mut Fixture, loss: Loss) -> anyhow::Result<()> {
    ensure!(fixture.shop.place(&Fixture::purchase("done")).await?.committed);
    let active = fixture.shop.begin(&Fixture::purchase("active")).await?;
    let prepared = fixture.prepare("prepared").await?;
    let committing = fixture.prepare("committing").await?;
    let aborting = fixture.prepare("aborting").await?;
    // Linked, and answering nothing.
    fixture.cluster.order.pause()?;
    ensure!(fixture.commit(&committing).await?.committed);
    roll_back(fixture, &aborting).await?;
    let preparing = place(fixture, patient(&Fixture::purchase("preparing"), 25));
    eventually("two are told of each decision, and two hold what is being prepared", async || {
        for role in [Inventory, Payment] {
            let branches = fixture.branches(role)?;
            ensure!(branches == (2, 2, 1), "{role:?} has {branches:?}");
        }
        Ok(())
    })
    .await?;

    all_die(fixture, loss).await?;
    ensure!(preparing.await?.is_err(), "a dead coordinator answered");
    fixture.comes_to(&committing, TransactionState::Committed).await?;
    for id in [&prepared, &aborting] {
        fixture.comes_to(id, TransactionState::Aborted).await?;
    }
    match fixture.shop.transaction(&active).await {
        Ok(found) => ensure!(found.state() == TransactionState::Aborted, "{found:?}"),
        Err(status) => ensure!(status.code() == Code::NotFound, "{status}"),
    }
    fixture.check_sold(2).await
}

async fn everything_at_once_in_the_middle_of_traffic(
    fixture: &mut Fixture,
    loss: Loss,
) -> anyhow::Result<()> {
    let mut orders = JoinSet::new();
    for number in 0..200 {
        let shop = fixture.shop.clone();
        orders.spawn(async move {
            let purchase = Fixture::purchase(&format!("order-{number}"));
            let answer = shop.place(&purchase).await;
            answer.is_ok_and(|answer| answer.committed).then_some(purchase.order_id)
        });
    }
    let mut committed = Vec::new();
    while committed.len() < 20 {
        committed.extend(orders.join_next().await.context("all were answered")??);
    }
    all_die(fixture, loss).await?;
    for answer in orders.join_all().await {
        committed.extend(answer);
    }
    fixture.cluster.check(&fixture.shop).await?;
    for order_id in committed {
        let order = fixture.shop.order(&order_id).await?;
        ensure!(
            order.state() == OrderState::Confirmed,
            "its client was told 'committed': {order:?}"
        );
    }
    Ok(())
}
