//! A customer of the shop, who also keeps the books.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dtc_proto::dtc::{
    AnswerAt, BeginRequest, Branch, EnlistRequest, ExecuteRequest, ExecuteResponse,
    GetTransactionRequest, Payload, Transaction, get_transaction_request::By, payload,
    registry_service_client::RegistryServiceClient,
    transaction_service_client::TransactionServiceClient,
};

use prost::Message;
use serde_json::json;
use shop_proto::{
    Account, GetAccountRequest, GetOrderRequest, GetStockRequest, ListAccountsRequest,
    ListOrdersRequest, ListStockRequest, OpenAccountRequest, Order, OrderLine, PlaceOrder,
    ReserveStock, SetStockRequest, Stock, StockLine, TakePayment,
    inventory_service_client::InventoryServiceClient, order_service_client::OrderServiceClient,
    payment_service_client::PaymentServiceClient,
};
use tonic::{Status, transport::Channel};

use crate::{Addresses, channel};

/// What everything is paid in.
pub const CURRENCY: &str = "EUR";

const PAGE: u32 = 1000;

/// A payload of typed bytes.
pub fn typed(message: &impl Message) -> Payload {
    Payload { kind: Some(payload::Kind::Typed(message.encode_to_vec().into())) }
}

/// An order as a customer sees it. The customer's account has the customer's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// Of the order.
    pub order_id: String,
    /// The name of the customer and of the account.
    pub customer: String,
    /// The item.
    pub sku: String,
    /// How many.
    pub quantity: i64,
    /// For how much, in minor units.
    pub total_minor: i64,
}

impl Purchase {
    /// Of one kind of thing.
    pub fn new(order_id: &str, customer: &str, sku: &str, quantity: i64, total_minor: i64) -> Self {
        Self {
            order_id: order_id.into(),
            customer: customer.into(),
            sku: sku.into(),
            quantity,
            total_minor,
        }
    }

    /// The branches at inventory, payment and order, in this order.
    pub fn branches(&self) -> Vec<Branch> {
        let stock = ReserveStock {
            lines: vec![StockLine {
                sku: self.sku.clone(),
                quantity: self.quantity,
                ..StockLine::default()
            }],
        };
        let payment = TakePayment {
            account: self.customer.clone(),
            amount_minor: self.total_minor,
            currency: CURRENCY.into(),
            ..TakePayment::default()
        };
        let order = PlaceOrder {
            order_id: self.order_id.clone(),
            customer: self.customer.clone(),
            lines: vec![OrderLine { sku: self.sku.clone(), quantity: self.quantity }],
            total_minor: self.total_minor,
            currency: CURRENCY.into(),
            expected_version: None,
        };
        [("inventory", typed(&stock)), ("payment", typed(&payment)), ("order", typed(&order))]
            .map(|(name, payload)| Branch { participant: name.into(), payload: Some(payload) })
            .into()
    }

    /// The whole transaction, answered at completion.
    pub fn request(&self) -> ExecuteRequest {
        ExecuteRequest { branches: self.branches(), ..ExecuteRequest::default() }
    }

    /// As [`request`](Self::request), answered when the decision is durable.
    pub fn request_at_decision(&self) -> ExecuteRequest {
        ExecuteRequest { answer_at: AnswerAt::Decision.into(), ..self.request() }
    }

    /// As [`request`](Self::request), with a request key and a limit for the wait.
    pub fn request_with_key(&self, request_key: &str, wait: Duration) -> ExecuteRequest {
        let wait = prost_types::Duration::try_from(wait).ok();
        ExecuteRequest { request_key: request_key.into(), wait, ..self.request() }
    }
}

/// What was put in at the beginning.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) stock: BTreeMap<String, i64>,
    pub(crate) balances: BTreeMap<String, i64>,
}

/// Clients of all four services, and the books.
#[derive(Debug, Clone)]
pub struct Shop {
    /// To the coordinator.
    pub transactions: TransactionServiceClient<Channel>,
    /// To the coordinator's list of participants.
    pub registry: RegistryServiceClient<Channel>,
    /// To the stock.
    pub inventory: InventoryServiceClient<Channel>,
    /// To the accounts.
    pub payment: PaymentServiceClient<Channel>,
    /// To the orders.
    pub orders: OrderServiceClient<Channel>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Shop {
    /// A customer of the processes at `addresses`.
    pub fn new(addresses: Addresses) -> Self {
        let coordinator = channel(addresses.coordinator);
        Self {
            transactions: TransactionServiceClient::new(coordinator.clone()),
            registry: RegistryServiceClient::new(coordinator),
            inventory: InventoryServiceClient::new(channel(addresses.inventory)),
            payment: PaymentServiceClient::new(channel(addresses.payment)),
            orders: OrderServiceClient::new(channel(addresses.order)),
            ledger: Arc::default(),
        }
    }

    /// The body of an `Execute` call as a person would type it: an order for a
    /// teapot.
    pub(crate) fn json_example() -> serde_json::Value {
        let line = json!({"sku": "teapot", "quantity": 1});
        let branch = |name: &str, payload: serde_json::Value| json!({"participant": name, "payload": {"json": payload}});
        let order = json!({
            "order_id": "by-hand-1", "customer": "ada", "lines": [line],
            "total_minor": 2500, "currency": CURRENCY,
        });
        json!({"branches": [
            branch("inventory", json!({"lines": [line]})),
            branch("payment", json!({"account": "ada", "amount_minor": 2500, "currency": CURRENCY})),
            branch("order", order),
        ]})
    }

    /// Puts `on_hand` of a SKU in stock; once a SKU, before anything is sold.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn stock_up(&self, sku: &str, on_hand: i64) -> Result<(), Status> {
        let request = SetStockRequest { sku: sku.into(), on_hand };
        self.inventory.clone().set_stock(request).await?;
        self.with_ledger(|ledger| ledger.stock.insert(sku.into(), on_hand));
        Ok(())
    }

    /// Opens an account with a balance; once an account.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn open_account(&self, account: &str, balance_minor: i64) -> Result<(), Status> {
        let currency = CURRENCY.into();
        let request = OpenAccountRequest { account: account.into(), currency, balance_minor };
        self.payment.clone().open_account(request).await?;
        self.with_ledger(|ledger| ledger.balances.insert(account.into(), balance_minor));
        Ok(())
    }

    /// Places an order in one call and waits for its completion.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn place(&self, purchase: &Purchase) -> Result<ExecuteResponse, Status> {
        self.execute(purchase.request()).await
    }

    /// One call of `Execute`.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn execute(&self, request: ExecuteRequest) -> Result<ExecuteResponse, Status> {
        let answer = self.transactions.clone().execute(request).await?;
        Ok(answer.into_inner())
    }

    /// Begins a transaction and enlists the purchase's branches; returns its id.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn begin(&self, purchase: &Purchase) -> Result<String, Status> {
        let mut client = self.transactions.clone();
        let begun = client.begin(BeginRequest::default()).await?.into_inner();
        for branch in purchase.branches() {
            let transaction_id = begun.transaction_id.clone();
            client
                .enlist(EnlistRequest {
                    transaction_id,
                    branch: Some(branch),
                    ..EnlistRequest::default()
                })
                .await?;
        }
        Ok(begun.transaction_id)
    }

    /// A transaction, with its trail.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn transaction(&self, id: &str) -> Result<Transaction, Status> {
        let request = GetTransactionRequest { by: Some(By::TransactionId(id.into())) };
        let answer = self.transactions.clone().get(request).await?.into_inner();
        answer.transaction.ok_or_else(|| Status::internal("Get answered without a transaction"))
    }

    /// One SKU.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn stock(&self, sku: &str) -> Result<Stock, Status> {
        let answer = self.inventory.clone().get_stock(GetStockRequest { sku: sku.into() }).await?;
        answer.into_inner().stock.ok_or_else(|| Status::internal("GetStock answered nothing"))
    }

    /// One account.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn account(&self, account: &str) -> Result<Account, Status> {
        let request = GetAccountRequest { account: account.into() };
        let answer = self.payment.clone().get_account(request).await?;
        answer.into_inner().account.ok_or_else(|| Status::internal("GetAccount answered nothing"))
    }

    /// One order.
    ///
    /// # Errors
    ///
    /// What the service says: `NOT_FOUND` for one that was never prepared.
    pub async fn order(&self, order_id: &str) -> Result<Order, Status> {
        let request = GetOrderRequest { order_id: order_id.into() };
        let answer = self.orders.clone().get_order(request).await?;
        answer.into_inner().order.ok_or_else(|| Status::internal("GetOrder answered nothing"))
    }

    /// All SKUs.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn all_stock(&self) -> Result<Vec<Stock>, Status> {
        let mut all = Vec::new();
        let mut request = ListStockRequest { page_size: PAGE, ..ListStockRequest::default() };
        loop {
            let page = self.inventory.clone().list_stock(request.clone()).await?.into_inner();
            all.extend(page.stock);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// All accounts.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn all_accounts(&self) -> Result<Vec<Account>, Status> {
        let mut all = Vec::new();
        let mut request = ListAccountsRequest { page_size: PAGE, ..ListAccountsRequest::default() };
        loop {
            let page = self.payment.clone().list_accounts(request.clone()).await?.into_inner();
            all.extend(page.accounts);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// All orders.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub async fn all_orders(&self) -> Result<Vec<Order>, Status> {
        let mut all = Vec::new();
        let mut request = ListOrdersRequest { page_size: PAGE, ..ListOrdersRequest::default() };
        loop {
            let page = self.orders.clone().list_orders(request.clone()).await?.into_inner();
            all.extend(page.orders);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    pub(crate) fn with_ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
