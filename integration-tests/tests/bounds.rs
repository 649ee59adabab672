//! Bad input and limits: what is wrong is said with its field, and nothing of it
//! stays behind.

use std::collections::HashSet;

use anyhow::ensure;
use integration_tests::{
    Alone, CURRENCY, Cluster, FakeParticipant, Heard, Purchase, Reply, Shop, Start, agree,
    branches_at, eventually, typed,
};
use prost::Message;
use prost_types::{Duration, Struct, Value, value::Kind as Json};
use proto::{
    dtc::{
        BeginRequest, Branch, CommitTransactionRequest, EnlistRequest, ExecuteRequest,
        GetOutcomeRequest, GetTransactionRequest, ListTransactionsRequest, Participant, Payload,
        PrepareTransactionRequest, RegisterRequest, RollbackTransactionRequest, TransactionOptions,
        WatchTransactionRequest, get_transaction_request::By, payload::Kind,
        recovery_service_client::RecoveryServiceClient,
    },
    shop::{
        GetAccountRequest, GetOrderRequest, GetStockRequest, ListAccountsRequest,
        ListOrdersRequest, ListStockRequest, OpenAccountRequest, OrderLine, PlaceOrder,
        ReserveStock, SetStockRequest, StockLine, TakePayment,
    },
};
use tonic::{Code, Status};

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

/// Four processes, some tea and some money.
async fn open_shop() -> (Cluster, Shop) {
    let cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 40).await.unwrap();
    shop.open_account("ada", 1_000_000).await.unwrap();
    (cluster, shop)
}

fn purchase() -> Purchase {
    Purchase::new("order", "ada", "teapot", 2, 500)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.expect_err("it is refused");
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "'{word}' is not in: {status}");
    }
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// Options of which each is wrong, with the field that is named.
fn bad_options() -> Vec<(TransactionOptions, &'static str)> {
    let mut bad = Vec::new();
    for value in [seconds(-1), seconds(0), seconds(86_401), seconds(i64::MAX)] {
        let none = TransactionOptions::default;
        bad.extend([
            (TransactionOptions { prepare_timeout: value, ..none() }, "options.prepare_timeout"),
            (
                TransactionOptions { prepare_attempt_timeout: value, ..none() },
                "options.prepare_attempt_timeout",
            ),
            (
                TransactionOptions { commit_attempt_timeout: value, ..none() },
                "options.commit_attempt_timeout",
            ),
            (TransactionOptions { idle_timeout: value, ..none() }, "options.idle_timeout"),
        ]);
    }
    bad
}

/// A branch of the request changed.
fn with_branch(number: usize, change: impl FnOnce(&mut Branch)) -> ExecuteRequest {
    let mut request = purchase().request();
    change(&mut request.branches[number]);
    request
}

fn bad_branches() -> Vec<(Branch, Vec<&'static str>)> {
    let good = purchase().branches().remove(0);
    let at = |participant: &str| Branch { participant: participant.into(), ..good.clone() };
    vec![
        (at(""), vec!["participant", "is empty"]),
        (at("nobody"), vec!["participant", "'nobody'", "inventory, payment, order"]),
        (at("Inventory"), vec!["participant", "'Inventory'"]),
        (at("http://127.0.0.1"), vec!["participant", "http://host:port"]),
        (at("ftp://127.0.0.1:1"), vec!["participant", "'ftp://127.0.0.1:1'"]),
        (at("http://127.0.0.1:1/path"), vec!["participant", "http://host:port"]),
        (Branch { payload: None, ..good.clone() }, vec!["payload", "is empty"]),
        (Branch { payload: Some(Payload::default()), ..good }, vec!["payload", "is empty"]),
    ]
}

#[tokio::test]
async fn bad_input_of_each_field_of_execute_is_refused_and_reserves_nothing() {
    let (cluster, shop) = open_shop().await;
    let good = || purchase().request();
    let mut rows: Vec<(ExecuteRequest, Vec<&str>)> = vec![
        (ExecuteRequest::default(), vec!["branches", "at least one"]),
        (
            ExecuteRequest { request_key: "k".repeat(129), ..good() },
            vec!["request_key", "129 characters", "1 to 128"],
        ),
        (ExecuteRequest { wait: seconds(-1), ..good() }, vec!["wait", "-1s"]),
        (ExecuteRequest { wait: seconds(86_401), ..good() }, vec!["wait", "24h"]),
        (ExecuteRequest { answer_at: 9, ..good() }, vec!["answer_at", "9"]),
        (
            ExecuteRequest { branches: vec![purchase().branches().remove(0); 129], ..good() },
            vec!["branches", "129", "128", "--max-branches"],
        ),
    ];
    for (branch, words) in bad_branches() {
        let mut words = words;
        words.push("branches[1]");
        rows.push((with_branch(1, |it| *it = branch), words));
    }
    for (options, field) in bad_options() {
        rows.push((ExecuteRequest { options: Some(options), ..good() }, vec![field]));
    }
    for (request, words) in rows {
        refused(shop.execute(request).await, Code::InvalidArgument, &words);
    }
    assert_eq!(shop.stock("teapot").await.unwrap().reserved, 0);
    refused(shop.order("order").await, Code::NotFound, &["order"]);
    cluster.check(&shop).await.unwrap();
    assert!(shop.place(&purchase()).await.unwrap().committed, "it is open as before");
}

#[tokio::test]
async fn bad_input_of_each_field_of_the_other_calls_is_refused() {
    let (cluster, shop) = open_shop().await;
    let mut client = shop.transactions.clone();
    let id = shop.begin(&purchase()).await.unwrap();
    let invalid = Code::InvalidArgument;

    for (options, field) in bad_options() {
        refused(client.begin(BeginRequest { options: Some(options) }).await, invalid, &[field]);
    }
    for (branch, words) in bad_branches() {
        let request = EnlistRequest { transaction_id: id.clone(), branch: Some(branch) };
        refused(client.enlist(request).await, invalid, &words);
    }
    let request = EnlistRequest { transaction_id: id.clone(), branch: None };
    refused(client.enlist(request).await, invalid, &["branch", "is empty"]);

    let long = "x".repeat(1000);
    for bad in ["", "x", "01890000-0000-7000-8000", long.as_str()] {
        let transaction_id = || bad.to_owned();
        let words: &[&str] = &["transaction_id"];
        let branch = purchase().branches().pop();
        let request = EnlistRequest { transaction_id: transaction_id(), branch };
        refused(client.enlist(request).await, invalid, words);
        let transaction_id = bad.to_owned();
        let request = PrepareTransactionRequest { transaction_id, ..Default::default() };
        refused(client.prepare(request).await, invalid, words);
        let transaction_id = bad.to_owned();
        let request = CommitTransactionRequest { transaction_id, ..Default::default() };
        refused(client.commit(request).await, invalid, words);
        let transaction_id = bad.to_owned();
        let request = RollbackTransactionRequest { transaction_id, ..Default::default() };
        refused(client.rollback(request).await, invalid, words);
        let transaction_id = bad.to_owned();
        let request = WatchTransactionRequest { transaction_id };
        refused(client.watch(request).await, invalid, words);
        let by = Some(By::TransactionId(bad.into()));
        refused(client.get(GetTransactionRequest { by }).await, invalid, words);
    }
    let request = |wait, transaction_id: &str| PrepareTransactionRequest {
        transaction_id: transaction_id.into(),
        wait,
    };
    refused(client.prepare(request(seconds(-1), &id)).await, invalid, &["wait", "-1s"]);
    let commit =
        |wait, answer_at| CommitTransactionRequest { transaction_id: id.clone(), answer_at, wait };
    refused(client.commit(commit(seconds(86_401), 0)).await, invalid, &["wait"]);
    refused(client.commit(commit(None, 3)).await, invalid, &["answer_at", "3"]);
    let rollback = |wait, answer_at| RollbackTransactionRequest {
        transaction_id: id.clone(),
        answer_at,
        wait,
    };
    refused(client.rollback(rollback(seconds(-1), 0)).await, invalid, &["wait"]);
    refused(client.rollback(rollback(None, -1)).await, invalid, &["answer_at", "-1"]);

    refused(client.get(GetTransactionRequest { by: None }).await, invalid, &["transaction_id"]);
    for key in ["", &"k".repeat(129)] {
        let by = Some(By::RequestKey(key.into()));
        refused(client.get(GetTransactionRequest { by }).await, invalid, &["request_key"]);
    }
    let list = ListTransactionsRequest::default;
    for (request, words) in [
        (ListTransactionsRequest { page_size: 1001, ..list() }, ["page_size", "1001"]),
        (ListTransactionsRequest { page_token: "?".into(), ..list() }, ["page_token", "List"]),
        (ListTransactionsRequest { states: vec![99], ..list() }, ["states", "99"]),
        (ListTransactionsRequest { outcomes: vec![99], ..list() }, ["outcomes", "99"]),
    ] {
        refused(client.list(request).await, invalid, &words);
    }
    // Nothing of it has touched the transaction.
    assert!(client.commit(commit(None, 0)).await.unwrap().into_inner().committed);
    cluster.check(&shop).await.unwrap();
}

#[tokio::test]
async fn bad_input_of_registry_and_recovery_is_refused() {
    let coordinator = Alone::start().await.unwrap();
    let long = "a".repeat(65);
    let address = "http://127.0.0.1:7101";
    for (name, address, words) in [
        ("", address, ["participant.name", "a-z"]),
        ("Shop", address, ["participant.name", "'Shop'"]),
        ("1shop", address, ["participant.name", "'1shop'"]),
        ("shop_1", address, ["participant.name", "'shop_1'"]),
        (&long, address, ["participant.name", "1 to 64"]),
        ("shop", "", ["participant.address", "''"]),
        ("shop", "127.0.0.1:7101", ["participant.address", "'127.0.0.1:7101'"]),
        ("shop", "http://127.0.0.1", ["participant.address", "http://host:port"]),
        ("shop", "http://127.0.0.1:0x1", ["participant.address", "http://host:port"]),
        ("shop", "https://127.0.0.1:1", ["participant.address", "http://host:port"]),
        ("shop", "http://127.0.0.1:1/?x", ["participant.address", "http://host:port"]),
    ] {
        let participant =
            Participant { name: name.into(), address: address.into(), ..Default::default() };
        let request = RegisterRequest { participant: Some(participant) };
        let answer = coordinator.registry.clone().register(request).await;
        refused(answer, Code::InvalidArgument, &words);
    }
    let nothing = RegisterRequest { participant: None };
    let answer = coordinator.registry.clone().register(nothing).await;
    refused(answer, Code::InvalidArgument, &["participant.name"]);

    let good = GetOutcomeRequest {
        coordinator_id: UNKNOWN.into(),
        transaction_id: UNKNOWN.into(),
        incarnation: UNKNOWN.into(),
        ..GetOutcomeRequest::default()
    };
    let change = |change: fn(&mut GetOutcomeRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, field) in [
        (change(|it| it.coordinator_id = "x".into()), "coordinator_id"),
        (change(|it| it.transaction_id.clear()), "transaction_id"),
        (change(|it| it.incarnation = "0".into()), "incarnation"),
    ] {
        let mut recovery: RecoveryServiceClient<_> = coordinator.recovery.clone();
        refused(recovery.get_outcome(request).await, Code::InvalidArgument, &[field]);
    }
}

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

#[tokio::test]
async fn bad_input_of_the_shop_s_own_calls_is_refused() {
    let (cluster, shop) = open_shop().await;
    let long = "x".repeat(65);
    let set = async |sku: &str, on_hand| {
        let request = SetStockRequest { sku: sku.into(), on_hand };
        shop.inventory.clone().set_stock(request).await
    };
    let invalid = Code::InvalidArgument;
    refused(set("", 1).await, invalid, &["sku", "empty"]);
    refused(set(&long, 1).await, invalid, &["sku", "65"]);
    refused(set("teapot", -1).await, invalid, &["on_hand is -1"]);
    let open = async |account: &str, balance_minor, currency: &str| {
        let (account, currency) = (account.into(), currency.into());
        let request = OpenAccountRequest { account, currency, balance_minor };
        shop.payment.clone().open_account(request).await
    };
    refused(open("", 1, CURRENCY).await, invalid, &["account", "empty"]);
    refused(open(&long, 1, CURRENCY).await, invalid, &["account", "65"]);
    refused(open("bob", -1, CURRENCY).await, invalid, &["balance_minor is -1"]);
    refused(open("bob", 1, "euro").await, invalid, &["currency", "'euro'"]);
    let status = open("ada", 1, "USD").await.unwrap_err();
    assert!(status.message().contains("USD") && status.message().contains(CURRENCY), "{status}");

    let (mut inventory, mut payment, mut orders) =
        (shop.inventory.clone(), shop.payment.clone(), shop.orders.clone());
    let request = GetStockRequest { sku: "cup".into() };
    refused(inventory.get_stock(request).await, Code::NotFound, &["SKU", "cup"]);
    let request = GetAccountRequest { account: "bob".into() };
    refused(payment.get_account(request).await, Code::NotFound, &["account", "bob"]);
    let request = GetOrderRequest { order_id: "none".into() };
    refused(orders.get_order(request).await, Code::NotFound, &["order", "none"]);
    let page_size = 1001;
    let request = ListStockRequest { page_size, ..Default::default() };
    refused(inventory.list_stock(request).await, invalid, &["page_size", "1001"]);
    let request = ListAccountsRequest { page_size, ..Default::default() };
    refused(payment.list_accounts(request).await, invalid, &["page_size", "1001"]);
    let request = ListOrdersRequest { page_size, ..Default::default() };
    refused(orders.list_orders(request).await, invalid, &["page_size", "1001"]);
    cluster.check(&shop).await.unwrap();
}

#[tokio::test]
async fn payloads_over_the_limit_and_messages_over_grpc_s_are_refused() {
    let (cluster, shop) = open_shop().await;
    let big = |size: usize| {
        let bytes = vec![0_u8; size];
        with_branch(0, |it| it.payload = Some(Payload { kind: Some(Kind::Typed(bytes.into())) }))
    };
    let limit = (1_usize << 20).to_string();
    let words = ["branches[0].payload", limit.as_str(), "--max-payload"];
    refused(shop.execute(big(1 << 20)).await, Code::InvalidArgument, &words);
    shop.execute(big(8 << 20)).await.unwrap_err();
    let id = shop.begin(&purchase()).await.unwrap();
    let branch = big(1 << 20).branches.into_iter().next();
    let request = EnlistRequest { transaction_id: id.clone(), branch };
    let enlisted = shop.transactions.clone().enlist(request).await;
    refused(enlisted, Code::InvalidArgument, &["branch.payload", &limit]);
    // One that fits is carried, if only to be refused by its participant.
    let carried = shop.execute(big((1 << 20) - 64)).await.unwrap();
    assert_eq!(carried.transaction.unwrap().abort_reason.unwrap().code, "BAD_PAYLOAD");
    let request = RollbackTransactionRequest { transaction_id: id, ..Default::default() };
    shop.transactions.clone().rollback(request).await.unwrap();
    assert!(shop.place(&purchase()).await.unwrap().committed);
    cluster.check(&shop).await.unwrap();
}

#[tokio::test]
async fn transactions_branches_and_bytes_in_flight_are_bounded() {
    let start = Start::new().arg("--max-in-flight").arg("2").arg("--max-branches").arg("3");
    let start = start.arg("--max-in-flight-bytes").arg("5000");
    let coordinator = Alone::start_with(start).await.unwrap();
    let participant = FakeParticipant::start(true).await.unwrap();
    let uri = participant.uri();
    let request = |branches: usize| {
        let branches = branches_at(std::iter::repeat_n(uri.as_str(), branches));
        let options = TransactionOptions { prepare_timeout: seconds(100), ..Default::default() };
        ExecuteRequest { branches, options: Some(options), ..ExecuteRequest::default() }
    };
    let many = coordinator.execute(request(4)).await;
    refused(many, Code::InvalidArgument, &["branches", "3", "--max-branches"]);
    let mut heavy = request(2);
    let bytes = vec![0_u8; 3000];
    for branch in &mut heavy.branches {
        branch.payload = Some(Payload { kind: Some(Kind::Typed(bytes.clone().into())) });
    }
    assert!(heavy.encoded_len() > 5000);
    let heavy = coordinator.execute(heavy).await;
    refused(heavy, Code::ResourceExhausted, &["5000 bytes", "--max-in-flight-bytes"]);

    let mut client = coordinator.transactions.clone();
    let begun = client.begin(BeginRequest::default()).await.unwrap().into_inner().transaction_id;
    let enlist =
        || EnlistRequest { transaction_id: begun.clone(), branch: request(1).branches.pop() };
    for _ in 0..3 {
        client.enlist(enlist()).await.unwrap();
    }
    let fourth = client.enlist(enlist()).await;
    refused(fourth, Code::InvalidArgument, &["branches", "3", "--max-branches"]);

    participant.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Silence,
        heard => agree(heard),
    });
    let stuck = tokio::spawn({
        let (mut client, request) = (client.clone(), request(2));
        async move { client.execute(request).await.unwrap().into_inner() }
    });
    eventually("two are in flight", async || {
        let request = ListTransactionsRequest::default();
        let answer = coordinator.transactions.clone().list(request).await?.into_inner();
        ensure!(answer.transactions.len() == 2);
        Ok(())
    })
    .await
    .unwrap();
    let words = ["2 transactions are in flight", "--max-in-flight"];
    refused(coordinator.execute(request(2)).await, Code::ResourceExhausted, &words);
    refused(client.begin(BeginRequest::default()).await, Code::ResourceExhausted, &words);
    // What ends makes room.
    participant.set_script(agree);
    assert!(stuck.await.unwrap().committed);
    eventually("there is room", async || {
        ensure!(coordinator.execute(request(2)).await?.committed);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn of_a_hundred_orders_at_once_for_forty_teapots_forty_are_confirmed() {
    let (cluster, shop) = open_shop().await;
    let orders: Vec<_> = (0..100)
        .map(|number| {
            let purchase = Purchase::new(&format!("order-{number}"), "ada", "teapot", 1, 100);
            let options =
                TransactionOptions { prepare_timeout: seconds(100), ..Default::default() };
            let request = ExecuteRequest { options: Some(options), ..purchase.request() };
            let shop = shop.clone();
            tokio::spawn(async move { shop.execute(request).await.unwrap() })
        })
        .collect();
    let (mut committed, mut reasons) = (0, HashSet::new());
    for order in orders {
        let answer = order.await.unwrap();
        committed += usize::from(answer.committed);
        reasons.extend(answer.transaction.unwrap().abort_reason.map(|reason| reason.code));
    }
    assert_eq!(committed, 40);
    assert_eq!(reasons, HashSet::from(["OUT_OF_STOCK".to_owned()]));
    cluster.check(&shop).await.unwrap();
    let stock = shop.stock("teapot").await.unwrap();
    assert_eq!((stock.on_hand, stock.reserved), (0, 0));
    assert_eq!(shop.account("ada").await.unwrap().balance_minor, 1_000_000 - 40 * 100);
}
