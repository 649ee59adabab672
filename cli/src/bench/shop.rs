//! Clients of the four services, for everything but the load.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use proto::{
    dtc::{
        GetTransactionRequest, LinkState, ListParticipantsRequest, Outcome,
        get_transaction_request::By, registry_service_client::RegistryServiceClient,
        transaction_service_client::TransactionServiceClient,
    },
    shop::{
        GetOrderRequest, ListAccountsRequest, ListOrdersRequest, ListStockRequest,
        OpenAccountRequest, OrderState, SetStockRequest,
        inventory_service_client::InventoryServiceClient, order_service_client::OrderServiceClient,
        payment_service_client::PaymentServiceClient,
    },
};
use tokio::time::{Instant, sleep};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{
    addresses::Addresses,
    book::Book,
    check::{Left, Seen},
    kind::Kind,
    metrics::Page,
    plan::{self, CURRENCY, MONEY, Plan, STOCK},
    tally::Answer,
};

/// Calls side by side.
const SIDE_BY_SIDE: usize = 64;
const PAGE: u32 = 1000;
const POLL: Duration = Duration::from_millis(20);
/// How long links may take to come up, and what is unfinished to finish.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Who sets up, and looks around afterwards.
#[derive(Debug)]
pub(crate) struct Shop {
    transactions: TransactionServiceClient<Channel>,
    registry: RegistryServiceClient<Channel>,
    inventory: InventoryServiceClient<Channel>,
    payment: PaymentServiceClient<Channel>,
    orders: OrderServiceClient<Channel>,
    /// By the process's name, the coordinator's first.
    pub(crate) pages: Vec<(&'static str, Page)>,
}

/// A connection to the service that the flag `--{flag}` names.
///
/// # Errors
///
/// When nobody serves there.
pub(crate) async fn connect(url: &str, flag: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE);
    endpoint.connect().await.with_context(|| {
        format!("nobody answers at {url} (--{flag}): start the service there, name another address, or use --local")
    })
}

impl Shop {
    /// Connects to all four.
    ///
    /// # Errors
    ///
    /// When one cannot be reached.
    pub(crate) async fn open(addresses: &Addresses) -> anyhow::Result<Self> {
        let coordinator = connect(&addresses.coordinator, "coordinator").await?;
        let pages = addresses.named().map(|(name, url)| Ok((name, Page::new(url)?)));
        Ok(Self {
            transactions: TransactionServiceClient::new(coordinator.clone()),
            registry: RegistryServiceClient::new(coordinator),
            inventory: InventoryServiceClient::new(
                connect(&addresses.inventory, "inventory").await?,
            ),
            payment: PaymentServiceClient::new(connect(&addresses.payment, "payment").await?),
            orders: OrderServiceClient::new(connect(&addresses.order, "order").await?),
            pages: pages.into_iter().collect::<anyhow::Result<_>>()?,
        })
    }

    /// Waits until the coordinator has links to the participants.
    ///
    /// # Errors
    ///
    /// When it does not know one, or cannot reach it.
    pub(crate) async fn wait_for_links(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = ListParticipantsRequest::default();
            let known = self.registry.clone().list_participants(request).await?.into_inner();
            let missing = Kind::ALL.into_iter().find_map(|kind| {
                let named = |it: &&proto::dtc::ParticipantStatus| {
                    it.participant.as_ref().is_some_and(|it| it.name == kind.name())
                };
                match known.participants.iter().find(named) {
                    None => Some(format!(
                        "does not know it; start it with --participant {}=http://host:port",
                        kind.name()
                    )),
                    Some(it) if it.link() == LinkState::Disconnected => {
                        Some(format!("cannot reach it: {}", it.last_error))
                    }
                    Some(_) => None,
                }
                .map(|problem| (kind, problem))
            });
            match missing {
                None => return Ok(()),
                Some((kind, problem))
                    if Instant::now() > deadline || problem.starts_with("does") =>
                {
                    bail!("participant '{}': the coordinator {problem}", kind.name())
                }
                Some(_) => sleep(POLL).await,
            }
        }
    }

    /// Fills the stock and the accounts.
    ///
    /// # Errors
    ///
    /// What a service says.
    pub(crate) async fn set_up(&self, plan: &Plan) -> anyhow::Result<()> {
        let stock = (0..plan.items).map(async |index| {
            let request = SetStockRequest { sku: plan::sku_name(index), on_hand: STOCK };
            self.inventory.clone().set_stock(request).await.map(|_| ())
        });
        stream::iter(stock).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
        let accounts = (0..plan.accounts).map(async |index| {
            let (account, currency) = (plan::account_name(index), CURRENCY.into());
            let request = OpenAccountRequest { account, currency, balance_minor: MONEY };
            self.payment.clone().open_account(request).await.map(|_| ())
        });
        stream::iter(accounts).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
        Ok(())
    }

    /// Whether no order was ever placed.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub(crate) async fn is_fresh(&self) -> anyhow::Result<bool> {
        let request = ListOrdersRequest { page_size: 1, ..ListOrdersRequest::default() };
        Ok(self.orders.clone().list_orders(request).await?.into_inner().orders.is_empty())
    }

    /// Waits until the coordinator has finished everything, and no participant has
    /// anything undecided.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub(crate) async fn wait_until_idle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for (name, page) in &self.pages {
            let what = match *name {
                "coordinator" => "dtc_transactions_active",
                _ => "dtc_participant_undecided",
            };
            loop {
                let left = page.read().await?.get(what)?;
                if left == 0.0 {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("{name} still has {what} {left} after {PATIENCE:?}");
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Asks the coordinator what became of transactions that nobody told of.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub(crate) async fn resolve(&self, book: &mut Book) -> anyhow::Result<()> {
        for (plan, number) in std::mem::take(&mut book.unknown) {
            if !plan.keys {
                book.unresolved.push((plan, number));
                continue;
            }
            let by = Some(By::RequestKey(plan.request_key(number)));
            let answer = match self.transactions.clone().get(GetTransactionRequest { by }).await {
                Ok(response) => {
                    let response = response.into_inner();
                    match response.transaction.unwrap_or_default().outcome() {
                        _ if response.committed => Answer::Committed,
                        Outcome::Aborted => Answer::Aborted,
                        other => Answer::Unknown(other.as_str_name().into()),
                    }
                }
                // It has never come.
                Err(error) if error.code() == Code::NotFound => Answer::Aborted,
                Err(error) => return Err(error.into()),
            };
            book.enter(&plan, &plan.order(number), &answer);
        }
        book.unresolved.append(&mut book.unknown);
        Ok(())
    }

    /// What the services show: all stock and accounts, and the orders of `plan`'s
    /// run, either all or those in the book's samples.
    ///
    /// # Errors
    ///
    /// What a service says.
    pub(crate) async fn look(&self, plan: &Plan, book: &Book, all: bool) -> anyhow::Result<Seen> {
        let (mut stock, mut money) = (HashMap::new(), HashMap::new());
        let mut request = ListStockRequest { page_size: PAGE, ..ListStockRequest::default() };
        loop {
            let page = self.inventory.clone().list_stock(request.clone()).await?.into_inner();
            let left = |it: &proto::shop::Stock| Left { left: it.on_hand, promised: it.reserved };
            stock.extend(page.stock.into_iter().map(|it| (it.sku.clone(), left(&it))));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let mut request = ListAccountsRequest { page_size: PAGE, ..ListAccountsRequest::default() };
        loop {
            let page = self.payment.clone().list_accounts(request.clone()).await?.into_inner();
            let left = |it: &proto::shop::Account| Left {
                left: it.balance_minor,
                promised: it.held_minor,
            };
            money.extend(page.accounts.into_iter().map(|it| (it.account.clone(), left(&it))));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let orders = match all {
            true => self.all_orders(&plan.order_prefix()).await?,
            false => self.some_orders(book).await?,
        };
        Ok(Seen { stock, money, orders, all_orders: all })
    }

    async fn all_orders(&self, prefix: &str) -> anyhow::Result<HashMap<String, OrderState>> {
        let mut orders = HashMap::new();
        let mut request = ListOrdersRequest { page_size: PAGE, ..ListOrdersRequest::default() };
        loop {
            let page = self.orders.clone().list_orders(request.clone()).await?.into_inner();
            let ours = page.orders.into_iter().filter(|order| order.order_id.starts_with(prefix));
            orders.extend(ours.map(|order| (order.order_id.clone(), order.state())));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(orders);
            }
        }
    }

    async fn some_orders(&self, book: &Book) -> anyhow::Result<HashMap<String, OrderState>> {
        let ids = book.confirmed.ids.iter().chain(&book.cancelled.ids);
        let found = ids.map(async |id| {
            match self.orders.clone().get_order(GetOrderRequest { order_id: id.clone() }).await {
                Ok(answer) => {
                    let state = answer.into_inner().order.unwrap_or_default().state();
                    Ok(Some((id.clone(), state)))
                }
                Err(error) if error.code() == Code::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found: Vec<_> =
            stream::iter(found).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}
