//! Payloads that their participants refuse.

use super::*;

fn stock(lines: Vec<StockLine>) -> Payload {
    typed(&ReserveStock { lines })
}

fn some(sku: &str, quantity: i64) -> StockLine {
    StockLine { sku: sku.into(), quantity, ..StockLine::default() }
}

fn pay(account: &str, amount_minor: i64, currency: &str) -> Payload {
    typed(&TakePayment {
        account: account.into(),
        amount_minor,
        currency: currency.into(),
        expected_version: None,
    })
}

fn place(change: impl FnOnce(&mut PlaceOrder)) -> Payload {
    let mut order = PlaceOrder {
        order_id: "order".into(),
        customer: "ada".into(),
        lines: vec![OrderLine { sku: "teapot".into(), quantity: 2 }],
        total_minor: 500,
        currency: CURRENCY.into(),
        expected_version: None,
    };
    change(&mut order);
    typed(&order)
}

fn json(name: &str, value: &str) -> Payload {
    let value = Value { kind: Some(Json::StringValue(value.into())) };
    let object = Struct { fields: [(name.to_owned(), value)].into() };
    Payload { kind: Some(Kind::Json(object)) }
}

fn garbage() -> Payload {
    Payload { kind: Some(Kind::Typed(vec![0xff; 3].into())) }
}

/// A payload that its participant refuses: by which code and words.
type Refusal = (Payload, &'static str, Vec<&'static str>);

fn bad_stock(long: &str) -> Vec<Refusal> {
    let number = "INVALID_QUANTITY";
    let argument = "INVALID_ARGUMENT";
    let version = StockLine { expected_version: Some(77), ..some("teapot", 1) };
    let many = (0..101).map(|number| some(&format!("sku-{number}"), 1)).collect();
    vec![
        (stock(vec![]), argument, vec!["lines", "0 entries"]),
        (stock(many), argument, vec!["lines", "101 entries"]),
        (stock(vec![some("", 1)]), argument, vec!["lines[0].sku", "empty"]),
        (stock(vec![some(long, 1)]), argument, vec!["lines[0].sku", "65 characters"]),
        (stock(vec![some("cup", 1)]), "UNKNOWN_SKU", vec!["lines[0].sku", "'cup'"]),
        (stock(vec![some("teapot", 0)]), number, vec!["lines[0].quantity is 0"]),
        (stock(vec![some("teapot", -3)]), number, vec!["lines[0].quantity is -3"]),
        (
            stock(vec![some("teapot", i64::MAX)]),
            number,
            vec!["lines[0].quantity is 9223372036854775807"],
        ),
        (stock(vec![some("teapot", i64::MIN)]), number, vec!["lines[0].quantity is -92233"]),
        (
            stock(vec![some("teapot", 41)]),
            "OUT_OF_STOCK",
            vec!["lines[0].quantity is 41", "'teapot'", "40 can be had"],
        ),
        (
            stock(vec![some("teapot", 1), some("teapot", 1)]),
            argument,
            vec!["lines[1].sku", "'teapot'", "lines[0]"],
        ),
        (
            stock(vec![some("teapot", 1), some("cup", 1)]),
            "UNKNOWN_SKU",
            vec!["lines[1].sku", "'cup'"],
        ),
        (stock(vec![version]), "VERSION_CHANGED", vec!["lines[0].expected_version is 77"]),
        (garbage(), "BAD_PAYLOAD", vec!["shop.v1.ReserveStock"]),
        (json("line", "x"), "BAD_PAYLOAD", vec!["line"]),
    ]
}

fn bad_payment(long: &str) -> Vec<Refusal> {
    let number = "INVALID_AMOUNT";
    let argument = "INVALID_ARGUMENT";
    let currency = "INVALID_CURRENCY";
    vec![
        (pay("", 1, CURRENCY), argument, vec!["account", "empty"]),
        (pay(long, 1, CURRENCY), argument, vec!["account", "65 characters"]),
        (pay("bob", 1, CURRENCY), "UNKNOWN_ACCOUNT", vec!["account", "'bob'"]),
        (pay("ada", 0, CURRENCY), number, vec!["amount_minor is 0"]),
        (pay("ada", -1, CURRENCY), number, vec!["amount_minor is -1"]),
        (pay("ada", i64::MIN, CURRENCY), number, vec!["amount_minor is -92233"]),
        (
            pay("ada", i64::MAX, CURRENCY),
            "INSUFFICIENT_FUNDS",
            vec!["amount_minor is 9223372036854775807", "'ada'", "1000000 can be spent"],
        ),
        (pay("ada", 1, ""), currency, vec!["currency", "''"]),
        (pay("ada", 1, "eur"), currency, vec!["currency", "'eur'"]),
        (pay("ada", 1, "EURO"), currency, vec!["currency", "'EURO'"]),
        (pay("ada", 1, "USD"), "WRONG_CURRENCY", vec!["currency", "USD", "EUR"]),
        (garbage(), "BAD_PAYLOAD", vec!["shop.v1.TakePayment"]),
        (json("amount_minor", "ten"), "BAD_PAYLOAD", vec!["amount_minor"]),
    ]
}

fn bad_order(long: &str) -> Vec<Refusal> {
    let argument = "INVALID_ARGUMENT";
    let line = |sku: &str, quantity| OrderLine { sku: sku.into(), quantity };
    vec![
        (place(|it| it.order_id.clear()), argument, vec!["order_id", "empty"]),
        (place(|it| it.order_id = long.into()), argument, vec!["order_id", "65 characters"]),
        (place(|it| it.customer.clear()), argument, vec!["customer", "empty"]),
        (place(|it| it.customer = long.into()), argument, vec!["customer", "65 characters"]),
        (place(|it| it.lines.clear()), argument, vec!["lines", "0 entries"]),
        (place(|it| it.lines = vec![line("a", 1); 101]), argument, vec!["lines", "101 entries"]),
        (place(|it| it.lines = vec![line("", 1)]), argument, vec!["lines[0].sku", "empty"]),
        (
            place(|it| it.lines = vec![line("a", 0)]),
            "INVALID_QUANTITY",
            vec!["lines[0].quantity is 0"],
        ),
        (place(|it| it.total_minor = 0), "INVALID_AMOUNT", vec!["total_minor is 0"]),
        (place(|it| it.total_minor = -5), "INVALID_AMOUNT", vec!["total_minor is -5"]),
        (place(|it| it.currency.clear()), "INVALID_CURRENCY", vec!["currency", "''"]),
        (
            place(|it| it.expected_version = Some(3)),
            "VERSION_CHANGED",
            vec!["expected_version is 3", "'order'"],
        ),
        (garbage(), "BAD_PAYLOAD", vec!["shop.v1.PlaceOrder"]),
        (json("order_id", long), "INVALID_ARGUMENT", vec!["order_id", "65 characters"]),
    ]
}

#[tokio::test]
async fn a_bad_payload_is_a_vote_to_abort_that_names_field_and_value_and_reserves_nothing() {
    let (cluster, shop) = open_shop().await;
    let long = "x".repeat(65);
    let tables = [bad_stock(&long), bad_payment(&long), bad_order(&long)];
    for (number, table) in tables.into_iter().enumerate() {
        for (payload, code, words) in table {
            let request = with_branch(number, |branch| branch.payload = Some(payload));
            let answer = shop.execute(request).await.unwrap();
            assert!(!answer.committed, "{answer:?}");
            let transaction = answer.transaction.unwrap();
            let participant = transaction.branches[number].participant.clone();
            let reason = transaction.abort_reason.unwrap();
            assert_eq!((reason.code.as_str(), &reason.participant), (code, &participant));
            for word in words {
                assert!(reason.message.contains(word), "'{word}' is not in {reason:?}");
            }
            shop.check().await.unwrap();
        }
    }
    // An order that was refused for another's fault is cancelled, and may be placed.
    assert!(shop.place(&purchase()).await.unwrap().committed);
    cluster.check(&shop).await.unwrap();
}
