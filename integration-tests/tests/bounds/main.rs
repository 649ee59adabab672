//! Bad input and limits: what is wrong is said with its field, and nothing of it
//! stays behind.

mod backlog;
mod calls;
mod limits;
mod memory;
mod payloads;

use std::collections::HashSet;

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    BeginRequest, Branch, CommitTransactionRequest, EnlistRequest, ExecuteRequest,
    GetOutcomeRequest, GetTransactionRequest, ListTransactionsRequest, Participant, Payload,
    PrepareTransactionRequest, RegisterRequest, RollbackTransactionRequest, TransactionOptions,
    WatchTransactionRequest, get_transaction_request::By, payload::Kind,
    recovery_service_client::RecoveryServiceClient,
};
use integration_tests::{
    Alone, CURRENCY, Cluster, FakeParticipant, Heard, Purchase, Reply, Shop, Speaks, Start, agree,
    branches_at, eventually, typed,
};
use prost::Message;
use prost_types::{Duration, Struct, Value, value::Kind as Json};
use shop_proto::{
    GetAccountRequest, GetOrderRequest, GetStockRequest, ListAccountsRequest, ListOrdersRequest,
    ListStockRequest, OpenAccountRequest, OrderLine, PlaceOrder, ReserveStock, SetStockRequest,
    StockLine, TakePayment,
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

/// A branch of the request changed.
fn with_branch(number: usize, change: impl FnOnce(&mut Branch)) -> ExecuteRequest {
    let mut request = purchase().request();
    change(&mut request.branches[number]);
    request
}
