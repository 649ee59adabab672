//! A cluster with a stocked shop, ready for orders.

use std::{fs, os::unix::process::ExitStatusExt};

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    AnswerAt, CommitTransactionRequest, CommitTransactionResponse, LinkState,
    ListParticipantsRequest, ListTransactionsRequest, PrepareTransactionRequest, Transaction,
    TransactionState,
};
use rusqlite::Connection;

use crate::{Addresses, Binaries, Cluster, Purchase, Role, Shop, Start, eventually};

/// What goes with a process that dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing but itself.
    Process,
    /// What it had written and not synced.
    Power,
}

/// A cluster, and a shop with teapots and customers with money.
#[derive(Debug)]
pub struct Fixture {
    /// The processes.
    pub cluster: Cluster,
    /// Customer and bookkeeper.
    pub shop: Shop,
}

impl Fixture {
    /// How many teapots there are.
    pub const STOCK: i64 = 1_000_000;
    /// What ada has.
    pub const BALANCE: i64 = 1_000_000_000;
    /// What a teapot costs.
    pub const PRICE: i64 = 100;

    /// All four processes run and are linked.
    ///
    /// # Errors
    ///
    /// When one of them doesn't come to serve.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Role::Coordinator, Start::new()).await
    }

    /// As [`start`](Self::start); one process kills itself at a crash point.
    ///
    /// # Errors
    ///
    /// When one of them doesn't come to serve.
    pub async fn crashing(role: Role, point: &str) -> anyhow::Result<Self> {
        Self::start_with(role, Start::new().crash_at(point)).await
    }

    /// As [`start`](Self::start), with more arguments and variables for one
    /// process's first start.
    ///
    /// # Errors
    ///
    /// When one of them doesn't come to serve.
    pub async fn start_with(role: Role, start: Start) -> anyhow::Result<Self> {
        let mut cluster = Cluster::prepare(Binaries::test()?, Addresses::pick())?;
        cluster.process(role).start_with(start).await?;
        Self::of(cluster).await
    }

    /// In this cluster, where what doesn't run is started.
    ///
    /// # Errors
    ///
    /// When one of its processes doesn't come to serve.
    pub async fn of(mut cluster: Cluster) -> anyhow::Result<Self> {
        cluster.start_all().await?;
        let shop = cluster.shop();
        shop.stock_up("teapot", Self::STOCK).await?;
        shop.open_account("ada", Self::BALANCE).await?;
        let fixture = Self { cluster, shop };
        for participant in ["inventory", "payment", "order"] {
            fixture.linked(participant).await?;
        }
        Ok(fixture)
    }

    /// One teapot for ada.
    pub fn purchase(order_id: &str) -> Purchase {
        Purchase::new(order_id, "ada", "teapot", 1, Self::PRICE)
    }

    /// Waits until the coordinator reaches a participant.
    ///
    /// # Errors
    ///
    /// When it doesn't.
    pub async fn linked(&self, participant: &str) -> anyhow::Result<()> {
        eventually(&format!("the coordinator reaches {participant}"), async || {
            let mut registry = self.shop.registry.clone();
            let known = registry.list_participants(ListParticipantsRequest {}).await?.into_inner();
            let linked = known.participants.iter().any(|status| {
                !matches!(status.link(), LinkState::Disconnected | LinkState::Quarantined)
                    && status.participant.as_ref().is_some_and(|it| it.name == participant)
            });
            ensure!(linked, "not yet");
            Ok(())
        })
        .await
    }

    /// Begins a purchase and has all its branches promised.
    ///
    /// # Errors
    ///
    /// When somebody refuses.
    pub async fn prepare(&self, order_id: &str) -> anyhow::Result<String> {
        let transaction_id = self.shop.begin(&Self::purchase(order_id)).await?;
        let request = PrepareTransactionRequest { transaction_id, wait: None };
        let answer = self.shop.transactions.clone().prepare(request).await?.into_inner();
        ensure!(answer.prepared, "not everybody voted to commit: {answer:?}");
        Ok(answer.transaction.context("an answer without transaction")?.id)
    }

    /// Commits a transaction; answered when the decision is durable.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn commit(&self, id: &str) -> Result<CommitTransactionResponse, tonic::Status> {
        let answer_at = AnswerAt::Decision.into();
        let request = CommitTransactionRequest { transaction_id: id.into(), answer_at, wait: None };
        Ok(self.shop.transactions.clone().commit(request).await?.into_inner())
    }

    /// The only transaction that there is, with its trail.
    ///
    /// # Errors
    ///
    /// When there are none or several.
    pub async fn only_transaction(&self) -> anyhow::Result<Transaction> {
        let request = ListTransactionsRequest::default();
        let list = self.shop.transactions.clone().list(request).await?.into_inner().transactions;
        ensure!(list.len() == 1, "there are {} transactions", list.len());
        Ok(self.shop.transaction(&list[0].id).await?)
    }

    /// Waits until a transaction has come to a state, and returns it.
    ///
    /// # Errors
    ///
    /// When it doesn't.
    pub async fn comes_to(&self, id: &str, state: TransactionState) -> anyhow::Result<Transaction> {
        eventually(&format!("{id} is {state:?}"), async || {
            let transaction = self.shop.transaction(id).await?;
            ensure!(transaction.state() == state, "it is {transaction:?}");
            Ok(transaction)
        })
        .await
    }

    /// Waits until a process has ended by SIGKILL without our doing.
    ///
    /// # Errors
    ///
    /// When it doesn't end, or ends otherwise.
    pub async fn killed_itself(&mut self, role: Role) -> anyhow::Result<()> {
        let status = self.cluster.process(role).wait_exit().await?;
        ensure!(status.signal() == Some(9), "{role:?} ended with {status}");
        Ok(())
    }

    /// Waits until a process has ended by itself with a code.
    ///
    /// # Errors
    ///
    /// When it doesn't end, or ends otherwise.
    pub async fn exits(&mut self, role: Role, code: i32) -> anyhow::Result<()> {
        let status = self.cluster.process(role).wait_exit().await?;
        ensure!(status.code() == Some(code), "{role:?} ended with {status}");
        Ok(())
    }

    /// What a query for one number finds in a process's database, were the
    /// process to be started now: asked of a copy, so that nothing is touched.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    pub fn count(&mut self, role: Role, sql: &str) -> anyhow::Result<i64> {
        let (database, copy) = (self.cluster.process(role).database(), tempfile::tempdir()?);
        let name = database.file_name().context("a database has a name")?.to_string_lossy();
        for suffix in ["", "-wal"] {
            let name = format!("{name}{suffix}");
            let file = database.with_file_name(&name);
            if file.exists() {
                fs::copy(file, copy.path().join(name))?;
            }
        }
        let connection = Connection::open(copy.path().join(&*name))?;
        Ok(connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// Branches in a participant's database: undecided, committed, rolled back.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn branches(&mut self, role: Role) -> anyhow::Result<(i64, i64, i64)> {
        Ok((
            self.count(role, "SELECT count(*) FROM undecided")?,
            self.count(role, "SELECT count(*) FROM decided WHERE committed")?,
            self.count(role, "SELECT count(*) FROM decided WHERE NOT committed")?,
        ))
    }

    /// [`Cluster::check`], and as many teapots sold.
    ///
    /// # Errors
    ///
    /// Says what was lost or half done.
    pub async fn check_sold(&self, sold: i64) -> anyhow::Result<()> {
        self.cluster.check(&self.shop).await?;
        let on_hand = self.shop.stock("teapot").await?.on_hand;
        ensure!(on_hand == Self::STOCK - sold, "{on_hand} are on hand, {sold} should be sold");
        let balance = self.shop.account("ada").await?.balance_minor;
        ensure!(balance == Self::BALANCE - sold * Self::PRICE, "ada has {balance} left");
        Ok(())
    }
}
