//! Payloads and branches of every shape.

use dtc_proto::dtc::{
    Branch, BranchState, ExecuteRequest, ExecuteResponse, Payload, TrailKind, payload::Kind,
};

use integration_tests::{CURRENCY, Cluster, Purchase, Shop, typed};
use prost_types::{ListValue, Struct, Value, value::Kind as Json};
use shop_proto::{OrderState, ReserveStock, StockLine};

/// A JSON object.
pub(crate) fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

pub(crate) fn text(text: &str) -> Value {
    Value { kind: Some(Json::StringValue(text.into())) }
}

pub(crate) fn number(number: f64) -> Value {
    Value { kind: Some(Json::NumberValue(number)) }
}

fn list(object: Struct) -> Value {
    let value = Value { kind: Some(Json::StructValue(object)) };
    Value { kind: Some(Json::ListValue(ListValue { values: vec![value] })) }
}

fn json_branch(participant: &str, object: Struct) -> Branch {
    let payload = Some(Payload { kind: Some(Kind::Json(object)) });
    Branch { participant: participant.into(), payload }
}

/// A purchase as somebody would type it.
pub(crate) fn json_request(purchase: &Purchase) -> ExecuteRequest {
    let line =
        object([("sku", text(&purchase.sku)), ("quantity", number(purchase.quantity as f64))]);
    let payment = object([
        ("account", text(&purchase.customer)),
        ("amount_minor", number(purchase.total_minor as f64)),
        ("currency", text(CURRENCY)),
    ]);
    let order = object([
        ("order_id", text(&purchase.order_id)),
        ("customer", text(&purchase.customer)),
        ("lines", list(line.clone())),
        ("totalMinor", text(&purchase.total_minor.to_string())),
        ("currency", text(CURRENCY)),
    ]);
    let branches = vec![
        json_branch("inventory", object([("lines", list(line))])),
        json_branch("payment", payment),
        json_branch("order", order),
    ];
    ExecuteRequest { branches, ..ExecuteRequest::default() }
}

async fn shop(cluster: &Cluster) -> Shop {
    let shop = cluster.shop();
    shop.stock_up("teapot", 10).await.unwrap();
    shop.stock_up("cup", 10).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();
    shop
}

fn stock(line: StockLine) -> Branch {
    let payload = Some(typed(&ReserveStock { lines: vec![line] }));
    Branch { participant: "inventory".into(), payload }
}

fn some(sku: &str, quantity: i64) -> StockLine {
    StockLine { sku: sku.into(), quantity, ..StockLine::default() }
}

fn states(answer: &ExecuteResponse) -> Vec<BranchState> {
    let transaction = answer.transaction.iter();
    transaction.flat_map(|it| &it.branches).map(|branch| branch.state()).collect()
}

#[tokio::test]
async fn a_payload_may_be_typed_or_json_and_a_number_too_large_is_sent_as_a_string() {
    let cluster = Cluster::start().await.unwrap();
    let shop = shop(&cluster).await;
    let purchase = Purchase::new("a", "ada", "teapot", 2, 5_000);
    let answer = shop.execute(json_request(&purchase)).await.unwrap();
    assert!(answer.committed, "{answer:?}");
    let order = shop.order("a").await.unwrap();
    assert_eq!((order.state(), order.total_minor), (OrderState::Confirmed, 5_000));

    let pay = |amount: Value| ExecuteRequest {
        branches: vec![json_branch(
            "payment",
            object([
                ("account", text("ada")),
                ("amount_minor", amount),
                ("currency", text(CURRENCY)),
            ]),
        )],
        ..ExecuteRequest::default()
    };
    let reason = async |request| {
        let answer = shop.execute(request).await.unwrap();
        assert!(!answer.committed, "{answer:?}");
        answer.transaction.unwrap().abort_reason.unwrap()
    };
    let inexact = reason(pay(number(9_007_199_254_740_993.0))).await;
    assert_eq!(inexact.code, "BAD_PAYLOAD");
    assert!(inexact.message.contains("send it as a string"), "{inexact:?}");
    assert!(inexact.message.contains("amount_minor"), "{inexact:?}");
    let exact = reason(pay(text("9007199254740993"))).await;
    assert_eq!(exact.code, "INSUFFICIENT_FUNDS");
    assert!(exact.message.contains("9007199254740993"), "{exact:?}");
    let wrong = reason(pay(text("many"))).await;
    assert_eq!(wrong.code, "BAD_PAYLOAD");
    assert!(wrong.message.contains("amount_minor"), "{wrong:?}");
    cluster.check(&shop).await.unwrap();
}

#[tokio::test]
async fn a_participant_may_have_two_branches_and_they_succeed_or_fail_together() {
    let cluster = Cluster::start().await.unwrap();
    let shop = shop(&cluster).await;
    let on_hand = async |sku| shop.stock(sku).await.unwrap().on_hand;
    let both = |first, second| ExecuteRequest {
        branches: vec![stock(first), stock(second)],
        ..ExecuteRequest::default()
    };

    let answer = shop.execute(both(some("teapot", 2), some("cup", 3))).await.unwrap();
    assert!(answer.committed, "{answer:?}");
    assert_eq!(states(&answer), [BranchState::Committed; 2]);
    assert_eq!((on_hand("teapot").await, on_hand("cup").await), (8, 7));

    let same = shop.execute(both(some("teapot", 1), some("teapot", 2))).await.unwrap();
    assert!(same.committed, "{same:?}");
    assert_eq!(on_hand("teapot").await, 5);

    let too_many = shop.execute(both(some("teapot", 3), some("teapot", 3))).await.unwrap();
    assert!(!too_many.committed, "{too_many:?}");
    assert!(states(&too_many).contains(&BranchState::Refused), "{too_many:?}");
    let left = shop.stock("teapot").await.unwrap();
    assert_eq!((left.on_hand, left.reserved), (5, 0));
}

#[tokio::test]
async fn a_single_branch_is_committed_in_one_phase_and_readers_leave_early() {
    let cluster = Cluster::start().await.unwrap();
    let shop = shop(&cluster).await;
    let run = async |branches: Vec<Branch>| {
        let request = ExecuteRequest { branches, ..ExecuteRequest::default() };
        let answer = shop.execute(request).await.unwrap();
        let id = answer.transaction.as_ref().unwrap().id.clone();
        let trail = shop.transaction(&id).await.unwrap().trail;
        (answer, trail.iter().map(|event| event.kind()).collect::<Vec<_>>())
    };
    let (single, trail) = run(vec![stock(some("teapot", 1))]).await;
    assert!(single.committed, "{single:?}");
    assert_eq!(states(&single), [BranchState::Committed]);
    assert!(!trail.contains(&TrailKind::CommitAcknowledged), "{trail:?}");

    let (refused, _) = run(vec![stock(some("teapot", 100))]).await;
    assert!(!refused.committed, "{refused:?}");

    let look = StockLine { check_only: true, ..some("cup", 10) };
    let (mixed, trail) = run(vec![stock(look.clone()), stock(some("teapot", 1))]).await;
    assert!(mixed.committed, "{mixed:?}");
    assert_eq!(states(&mixed), [BranchState::ReadOnly, BranchState::Committed]);
    assert!(trail.contains(&TrailKind::VotedReadOnly), "{trail:?}");
    let acknowledged = |kind: &&TrailKind| **kind == TrailKind::CommitAcknowledged;
    assert_eq!(trail.iter().filter(acknowledged).count(), 1, "{trail:?}");

    let (readers, _) = run(vec![stock(look.clone()), stock(look)]).await;
    assert!(readers.committed, "{readers:?}");
    assert_eq!(states(&readers), [BranchState::ReadOnly; 2]);
    assert_eq!(shop.stock("cup").await.unwrap().on_hand, 10);
}
