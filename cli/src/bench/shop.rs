//! Clients of the four services, for everything but the load.

use std::{mem, time::Duration};

use anyhow::{Context, bail};
use dtc_proto::dtc::{
    GetTransactionRequest, LinkState, ListParticipantsRequest, Outcome,
    get_transaction_request::By, registry_service_client::RegistryServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use futures::{StreamExt, TryStreamExt, stream};
use shop_proto::{
    Account, GetOrderRequest, ListAccountsRequest, ListOrdersRequest, ListStockRequest,
    OpenAccountRequest, OrderState, SetStockRequest, Stock,
    inventory_service_client::InventoryServiceClient, order_service_client::OrderServiceClient,
    payment_service_client::PaymentServiceClient,
};
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
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

/// Clients that set up stock and accounts, and read the results.
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
        format!("no service answers at {url} (--{flag}): start it there, give another address, or use --local")
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
        for kind in Kind::ALL {
            let name = kind.name();
            loop {
                let request = ListParticipantsRequest::default();
                let known = self.registry.clone().list_participants(request).await?.into_inner();
                let status = known
                    .participants
                    .into_iter()
                    .find(|status| status.participant.as_ref().is_some_and(|it| it.name == name));
                let status = status.with_context(|| {
                    format!("the coordinator knows no participant '{name}': start it with --participant {name}=http://host:port")
                })?;
                if status.link() != LinkState::Disconnected {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("the coordinator cannot reach '{name}': {}", status.last_error);
                }
                sleep(POLL).await;
            }
        }
        Ok(())
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
        let unknown = mem::take(&mut book.unknown);
        let asked = unknown.into_iter().map(async |(plan, number)| {
            let answer = self.outcome(&plan, number).await?;
            Ok::<_, Status>((plan, number, answer))
        });
        let mut answers = stream::iter(asked).buffer_unordered(SIDE_BY_SIDE);
        while let Some((plan, number, answer)) = answers.try_next().await? {
            book.enter(&plan, &plan.order(number), &answer);
        }
        book.unresolved.append(&mut book.unknown);
        Ok(())
    }

    async fn outcome(&self, plan: &Plan, number: u64) -> Result<Answer, Status> {
        if !plan.keys {
            return Ok(Answer::Unknown("it has no request key".into()));
        }
        let by = Some(By::RequestKey(plan.request_key(number)));
        match self.transactions.clone().get(GetTransactionRequest { by }).await {
            Ok(response) => {
                let response = response.into_inner();
                Ok(match response.transaction.unwrap_or_default().outcome() {
                    _ if response.committed => Answer::Committed,
                    Outcome::Aborted => Answer::Aborted,
                    other => Answer::Unknown(other.as_str_name().into()),
                })
            }
            // It has never come.
            Err(error) if error.code() == Code::NotFound => Ok(Answer::Aborted),
            Err(error) => Err(error),
        }
    }

    /// What the services show: all stock and accounts, and the orders of `plan`'s
    /// run, either all or those in the book's samples.
    ///
    /// # Errors
    ///
    /// What a service says.
    pub(crate) async fn look(&self, plan: &Plan, book: &Book, all: bool) -> anyhow::Result<Seen> {
        let stock = pages(async |page_token| {
            let request = ListStockRequest { page_size: PAGE, page_token };
            let page = self.inventory.clone().list_stock(request).await?.into_inner();
            let left = |it: Stock| (it.sku, Left { left: it.on_hand, promised: it.reserved });
            Ok((page.stock.into_iter().map(left).collect(), page.next_page_token))
        });
        let money = pages(async |page_token| {
            let request = ListAccountsRequest { page_size: PAGE, page_token };
            let page = self.payment.clone().list_accounts(request).await?.into_inner();
            let left = |it: Account| {
                (it.account, Left { left: it.balance_minor, promised: it.held_minor })
            };
            Ok((page.accounts.into_iter().map(left).collect(), page.next_page_token))
        });
        let orders = match all {
            true => self.all_orders(&plan.order_prefix()).await?,
            false => self.some_orders(book).await?,
        };
        Ok(Seen {
            stock: stock.await?.into_iter().collect(),
            money: money.await?.into_iter().collect(),
            orders: orders.into_iter().collect(),
            all_orders: all,
        })
    }

    async fn all_orders(&self, prefix: &str) -> Result<Vec<(String, OrderState)>, Status> {
        pages(async |page_token| {
            let request = ListOrdersRequest { page_size: PAGE, page_token };
            let page = self.orders.clone().list_orders(request).await?.into_inner();
            let ours = page.orders.into_iter().filter(|order| order.order_id.starts_with(prefix));
            let ours = ours.map(|order| (order.order_id.clone(), order.state()));
            Ok((ours.collect(), page.next_page_token))
        })
        .await
    }

    async fn some_orders(&self, book: &Book) -> Result<Vec<(String, OrderState)>, Status> {
        let ids = book.confirmed.ids.iter().chain(&book.cancelled.ids).cloned();
        let found = ids.map(async |order_id| {
            let request = GetOrderRequest { order_id: order_id.clone() };
            match self.orders.clone().get_order(request).await {
                Ok(answer) => {
                    let order = answer.into_inner().order.unwrap_or_default();
                    Ok(Some((order_id, order.state())))
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

/// All pages of a list; `fetch` gets one and the token of the next.
async fn pages<T>(
    fetch: impl AsyncFn(String) -> Result<(Vec<T>, String), Status>,
) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (page, next) = fetch(token).await?;
        all.extend(page);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}
