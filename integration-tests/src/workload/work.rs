//! What a transaction is to do: stock, money, an order, or some of them.

use std::time::Duration;

use dtc_proto::dtc::{
    Branch, CommitPolicy, ExecuteRequest, Lock, LockMode, Payload, TransactionOptions, payload,
};

use shop_proto::{OrderLine, PlaceOrder, ReserveStock, StockLine, TakePayment};

use crate::{CURRENCY, typed};

/// One transaction's branches, in few bytes: there are many of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Work {
    pub(crate) stock: Option<StockPart>,
    pub(crate) money: Option<MoneyPart>,
    pub(crate) order: Option<OrderPart>,
    /// What others are to do.
    pub(crate) errands: Vec<Errand>,
    /// Other names under which inventory, payment and order are called.
    pub(crate) names: [Option<&'static str>; 3],
    /// Locked exclusively before anything is done.
    pub(crate) locks: Vec<String>,
    /// Failed attempts of commit after which it is compensated; 0 for none.
    pub(crate) compensate_after: u32,
    pub(crate) prepare_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StockPart {
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) version: Option<u64>,
    pub(crate) check_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MoneyPart {
    pub(crate) account: String,
    pub(crate) amount: i64,
    pub(crate) currency: &'static str,
    pub(crate) version: Option<u64>,
}

/// A branch at a participant that is not of the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Errand {
    pub(crate) participant: &'static str,
    /// Of its payload.
    pub(crate) bytes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderPart {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) quantity: i64,
    pub(crate) total: i64,
}

impl StockPart {
    pub(crate) fn of(sku: &str, quantity: i64) -> Self {
        Self { sku: sku.into(), quantity, version: None, check_only: false }
    }

    /// Whether its participant votes commit, and so has a journal entry.
    fn is_write(&self) -> bool {
        !self.check_only || self.version.is_some()
    }
}

impl Errand {
    /// An object with a text of so many bytes: JSON is understood everywhere.
    fn payload(&self) -> Payload {
        let text = "x".repeat(self.bytes as usize);
        let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text)) };
        let fields = [("text".to_owned(), text)].into();
        Payload { kind: Some(payload::Kind::Json(prost_types::Struct { fields })) }
    }
}

impl MoneyPart {
    pub(crate) fn of(account: &str, amount: i64) -> Self {
        Self { account: account.into(), amount, currency: CURRENCY, version: None }
    }
}

impl Work {
    /// How many branches are committed or rolled back, all of them together.
    pub(crate) fn writes(&self) -> usize {
        usize::from(self.stock.as_ref().is_some_and(StockPart::is_write))
            + usize::from(self.money.is_some())
            + usize::from(self.order.is_some())
            + self.errands.len()
    }

    /// Names of all that it changes.
    pub(crate) fn contents(&self) -> Vec<String> {
        let stock = self.stock.iter().map(|part| format!("stock/{}", part.sku));
        let money = self.money.iter().map(|part| format!("account/{}", part.account));
        stock.chain(money).collect()
    }

    /// The branches, of each participant one at most.
    pub(crate) fn branches(&self) -> Vec<Branch> {
        let stock = self.stock.as_ref().map(|part| {
            let line = StockLine {
                sku: part.sku.clone(),
                quantity: part.quantity,
                expected_version: part.version,
                check_only: part.check_only,
            };
            (self.names[0].unwrap_or("inventory"), typed(&ReserveStock { lines: vec![line] }))
        });
        let money = self.money.as_ref().map(|part| {
            let payment = TakePayment {
                account: part.account.clone(),
                amount_minor: part.amount,
                currency: part.currency.into(),
                expected_version: part.version,
            };
            (self.names[1].unwrap_or("payment"), typed(&payment))
        });
        let order = self.order.as_ref().map(|part| {
            let sku = self.stock.as_ref().map_or_else(|| "nothing".into(), |it| it.sku.clone());
            let order = PlaceOrder {
                order_id: part.id.clone(),
                customer: part.customer.clone(),
                lines: vec![OrderLine { sku, quantity: part.quantity }],
                total_minor: part.total,
                currency: CURRENCY.into(),
                expected_version: None,
            };
            (self.names[2].unwrap_or("order"), typed(&order))
        });
        let errands = self.errands.iter().map(|errand| (errand.participant, errand.payload()));
        let parts = [stock, money, order].into_iter().flatten().chain(errands);
        parts
            .map(|(name, payload)| Branch { participant: name.into(), payload: Some(payload) })
            .collect()
    }

    pub(crate) fn options(&self) -> TransactionOptions {
        let prepare_timeout = prost_types::Duration::try_from(self.prepare_timeout).ok();
        let commit_policy = match self.compensate_after {
            0 => CommitPolicy::Retry,
            _ => CommitPolicy::Compensate,
        };
        TransactionOptions {
            prepare_timeout,
            commit_policy: commit_policy.into(),
            compensate_after: self.compensate_after,
            ..TransactionOptions::default()
        }
    }

    /// The whole transaction; the same for the same key at every time.
    pub(crate) fn request(&self, key: Option<&str>, wait: Duration) -> ExecuteRequest {
        ExecuteRequest {
            request_key: key.unwrap_or_default().into(),
            branches: self.branches(),
            locks: self.locks.iter().map(|key| exclusive(key)).collect(),
            options: Some(self.options()),
            wait: prost_types::Duration::try_from(wait).ok(),
            ..ExecuteRequest::default()
        }
    }
}

fn exclusive(key: &str) -> Lock {
    Lock { key: key.into(), mode: LockMode::Exclusive.into() }
}
