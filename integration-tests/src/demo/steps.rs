//! What happens in the demo, step by step. Each says how it ended, or fails when
//! that is not how it should end.

use anyhow::{Context, bail, ensure};
use dtc_proto::dtc::{
    AnswerAt, CommitTransactionRequest, ExecuteResponse, PrepareTransactionRequest,
    TransactionOptions, TransactionState,
};
use shop_proto::OrderState;
use tokio::task::JoinSet;

use super::Environment;
use crate::{Purchase, Role, eventually};

const ADA: &str = "ada";
const BOB: &str = "bob";
const CROWD: &str = "crowd";
const TEAPOT: &str = "teapot";
const TICKET: &str = "ticket";
const TICKETS: i64 = 40;
const BUYERS: usize = 100;
const TEAPOT_PRICE: i64 = 2_500;
const TICKET_PRICE: i64 = 8_000;

/// Enough for a process to be restarted while votes are waited for.
const PATIENCE: prost_types::Duration = prost_types::Duration { seconds: 25, nanos: 0 };

pub(super) async fn start(environment: &mut Environment) -> anyhow::Result<String> {
    environment.cluster.start_all().await?;
    let shop = &environment.shop;
    shop.stock_up(TEAPOT, 10).await?;
    shop.stock_up(TICKET, TICKETS).await?;
    shop.open_account(ADA, 50_000).await?;
    shop.open_account(BOB, 500).await?;
    shop.open_account(CROWD, 10_000_000).await?;
    for participant in [Role::Inventory, Role::Payment, Role::Order] {
        let what = format!("the coordinator reaches {}", participant.name());
        eventually(&what, async || reached(environment, participant).await).await?;
    }
    Ok("running".into())
}

async fn reached(environment: &Environment, participant: Role) -> anyhow::Result<()> {
    use dtc_proto::dtc::{LinkState, ListParticipantsRequest};
    let mut registry = environment.shop.registry.clone();
    let known = registry.list_participants(ListParticipantsRequest {}).await?.into_inner();
    let linked = known.participants.iter().any(|status| {
        status.link() != LinkState::Disconnected
            && status.participant.as_ref().is_some_and(|it| it.name == participant.name())
    });
    ensure!(linked, "not yet");
    Ok(())
}

pub(super) async fn order_commits(environment: &mut Environment) -> anyhow::Result<String> {
    let purchase = Purchase::new("order-1", ADA, TEAPOT, 2, 2 * TEAPOT_PRICE);
    expect_committed(&environment.shop.place(&purchase).await?)
}

pub(super) async fn out_of_stock(environment: &mut Environment) -> anyhow::Result<String> {
    let purchase = Purchase::new("order-2", ADA, TEAPOT, 1000, 10_000);
    expect_aborted(&environment.shop.place(&purchase).await?)
}

pub(super) async fn cannot_pay(environment: &mut Environment) -> anyhow::Result<String> {
    let purchase = Purchase::new("order-3", BOB, TEAPOT, 1, TEAPOT_PRICE);
    expect_aborted(&environment.shop.place(&purchase).await?)
}

pub(super) async fn payment_killed(environment: &mut Environment) -> anyhow::Result<String> {
    let Environment { cluster, shop } = environment;
    say("order is paused, so that the others have to wait for its vote");
    cluster.order.pause()?;
    let mut request = Purchase::new("order-4", ADA, TEAPOT, 1, TEAPOT_PRICE).request();
    request.options =
        Some(TransactionOptions { prepare_timeout: Some(PATIENCE), ..Default::default() });
    let placing = tokio::spawn({
        let shop = shop.clone();
        async move { shop.execute(request).await }
    });
    eventually("payment holds the money", async || {
        ensure!(shop.account(ADA).await?.held_minor > 0, "nothing is held yet");
        Ok(())
    })
    .await?;
    say("payment has promised the money: SIGKILL");
    cluster.payment.kill();
    cluster.payment.start().await?;
    let held = shop.account(ADA).await?.held_minor;
    ensure!(held == TEAPOT_PRICE, "payment forgot what it had promised: {held} is held");
    say("payment is back and still holds it; order goes on");
    cluster.order.resume()?;
    expect_committed(&placing.await??)
}

pub(super) async fn coordinator_killed(environment: &mut Environment) -> anyhow::Result<String> {
    let Environment { cluster, shop } = environment;
    let purchase = Purchase::new("order-5", ADA, TEAPOT, 3, 3 * TEAPOT_PRICE);
    let id = shop.begin(&purchase).await?;
    let request = PrepareTransactionRequest { transaction_id: id.clone(), wait: None };
    let prepared = shop.transactions.clone().prepare(request).await?.into_inner();
    ensure!(prepared.prepared, "not everybody voted to commit: {:?}", prepared.transaction);
    say("all three have promised; SIGKILL to all three, so that nobody can be told");
    for participant in [Role::Inventory, Role::Payment, Role::Order] {
        cluster.process(participant).kill();
    }
    let request = CommitTransactionRequest {
        transaction_id: id.clone(),
        answer_at: AnswerAt::Decision.into(),
        wait: None,
    };
    let answer = shop.transactions.clone().commit(request).await?.into_inner();
    ensure!(answer.committed, "not decided: {:?}", answer.transaction);
    say("the decision is on disk, and the client was told: SIGKILL to the coordinator");
    cluster.coordinator.kill();
    cluster.start_all().await?;
    say("all four are back");
    eventually("the order is committed everywhere", async || {
        let transaction = shop.transaction(&id).await?;
        ensure!(transaction.state() == TransactionState::Committed, "{:?}", transaction.state());
        Ok(())
    })
    .await?;
    let order = shop.order("order-5").await?;
    ensure!(order.state() == OrderState::Confirmed, "the order is {:?}", order.state());
    Ok("committed, by recovery".into())
}

pub(super) async fn hundred_orders(environment: &mut Environment) -> anyhow::Result<String> {
    let mut placing = JoinSet::new();
    for number in 1..=BUYERS {
        let shop = environment.shop.clone();
        let order_id = format!("ticket-{number}");
        let purchase = Purchase::new(&order_id, CROWD, TICKET, 1, TICKET_PRICE);
        placing.spawn(async move { shop.place(&purchase).await });
    }
    let mut committed = 0;
    while let Some(placed) = placing.join_next().await {
        committed += usize::from(placed??.committed);
    }
    ensure!(committed as i64 == TICKETS, "{committed} committed, there were {TICKETS} tickets");
    Ok(format!("{committed} committed, {} aborted", BUYERS - committed))
}

pub(super) async fn check(environment: &mut Environment) -> anyhow::Result<String> {
    environment.cluster.check(&environment.shop).await?;
    Ok("no: stock, money and orders agree".into())
}

fn say(text: &str) {
    println!("   {text}");
}

fn expect_committed(response: &ExecuteResponse) -> anyhow::Result<String> {
    ensure!(response.committed, "it should have committed: {:?}", response.transaction);
    Ok("committed".into())
}

fn expect_aborted(response: &ExecuteResponse) -> anyhow::Result<String> {
    let transaction = response.transaction.as_ref().context("an answer without transaction")?;
    if response.committed {
        bail!("it should have aborted: {transaction:?}");
    }
    let reason = transaction.abort_reason.as_ref().context("aborted without a reason")?;
    Ok(format!("aborted by {}: {}", reason.participant, reason.message))
}
