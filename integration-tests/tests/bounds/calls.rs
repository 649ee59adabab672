//! Bad input of each field of each call.

use super::*;

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
#[expect(clippy::too_many_lines, reason = "a table")]
async fn bad_input_of_each_field_of_the_other_calls_is_refused() {
    let (cluster, shop) = open_shop().await;
    let mut client = shop.transactions.clone();
    let id = shop.begin(&purchase()).await.unwrap();
    let invalid = Code::InvalidArgument;

    for (options, field) in bad_options() {
        let begin = BeginRequest { options: Some(options), ..BeginRequest::default() };
        refused(client.begin(begin).await, invalid, &[field]);
    }
    for (branch, words) in bad_branches() {
        let request = EnlistRequest {
            transaction_id: id.clone(),
            branch: Some(branch),
            ..EnlistRequest::default()
        };
        refused(client.enlist(request).await, invalid, &words);
    }
    let request =
        EnlistRequest { transaction_id: id.clone(), branch: None, ..EnlistRequest::default() };
    refused(client.enlist(request).await, invalid, &["branch", "is empty"]);

    let long = "x".repeat(1000);
    for bad in ["", "x", "01890000-0000-7000-8000", long.as_str()] {
        let transaction_id = || bad.to_owned();
        let words: &[&str] = &["transaction_id"];
        let branch = purchase().branches().pop();
        let request =
            EnlistRequest { transaction_id: transaction_id(), branch, ..EnlistRequest::default() };
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
        let request = RegisterRequest { participant: Some(participant), lease: None };
        let answer = coordinator.registry.clone().register(request).await;
        refused(answer, Code::InvalidArgument, &words);
    }
    let nothing = RegisterRequest { participant: None, lease: None };
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
