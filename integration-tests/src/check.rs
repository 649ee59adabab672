//! What must be true of the shop when nothing is going on any more.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use rusqlite::{Connection, OpenFlags};
use shop_proto::OrderState;
use uuid::Uuid;

use crate::{Cluster, Process, Shop, eventually};

impl Shop {
    /// Waits until nothing is reserved, held or pending, then checks that stock,
    /// accounts and orders agree: what is on hand and what was sold make up what
    /// there was, and so does the money.
    ///
    /// # Errors
    ///
    /// Says what was lost or half done.
    pub async fn check(&self) -> anyhow::Result<()> {
        eventually("everything is decided and applied", async || self.check_now().await).await
    }

    async fn check_now(&self) -> anyhow::Result<()> {
        let mut sold = BTreeMap::<String, i64>::new();
        let mut paid = BTreeMap::<String, i64>::new();
        for order in self.all_orders().await? {
            ensure!(
                order.state() != OrderState::Pending,
                "order {} is still pending",
                order.order_id
            );
            if order.state() == OrderState::Confirmed {
                for line in &order.lines {
                    *sold.entry(line.sku.clone()).or_default() += line.quantity;
                }
                *paid.entry(order.customer).or_default() += order.total_minor;
            }
        }
        let (stock, balances) =
            self.with_ledger(|ledger| (ledger.stock.clone(), ledger.balances.clone()));
        for item in self.all_stock().await? {
            let (sku, sold) = (&item.sku, sold.remove(&item.sku).unwrap_or(0));
            ensure!(item.reserved == 0, "{} of {sku} are still reserved", item.reserved);
            let initial = stock.get(sku).with_context(|| format!("{sku} came from nowhere"))?;
            ensure!(
                item.on_hand + sold == *initial && item.on_hand >= 0,
                "of {initial} {sku}, {} are on hand and {sold} were sold",
                item.on_hand
            );
        }
        ensure!(sold.is_empty(), "sold but never in stock: {sold:?}");
        for account in self.all_accounts().await? {
            let (name, paid) = (&account.account, paid.remove(&account.account).unwrap_or(0));
            ensure!(account.held_minor == 0, "{} of {name} are still held", account.held_minor);
            let initial = balances.get(name).with_context(|| format!("{name} is unknown"))?;
            ensure!(
                account.balance_minor + paid == *initial && account.balance_minor >= 0,
                "of {initial}, {name} has {} and paid {paid}",
                account.balance_minor
            );
        }
        ensure!(paid.is_empty(), "paid from no account: {paid:?}");
        Ok(())
    }
}

impl Cluster {
    /// [`Shop::check`], and the databases by themselves: whole, nothing undecided
    /// at a participant, and no transaction that one has committed and another
    /// has rolled back.
    ///
    /// # Errors
    ///
    /// Says what was lost or half done.
    pub async fn check(&self, shop: &Shop) -> anyhow::Result<()> {
        shop.check().await?;
        check_whole(&self.coordinator.database())?;
        let mut decisions = BTreeMap::<Vec<u8>, (bool, &Path)>::new();
        let databases = [&self.inventory, &self.payment, &self.order].map(Process::database);
        for database in &databases {
            check_whole(database)?;
            for (transaction, committed) in decided(database)? {
                let (first, where_first) =
                    *decisions.entry(transaction.clone()).or_insert((committed, database));
                ensure!(
                    first == committed,
                    "transaction {} was committed by one and rolled back by the other of {} and {}",
                    Uuid::from_slice(&transaction).unwrap_or_default(),
                    where_first.display(),
                    database.display()
                );
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> anyhow::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("{} cannot be opened", path.display()))
}

fn check_whole(path: &Path) -> anyhow::Result<()> {
    let result: String = open(path)?.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(result == "ok", "{}: integrity_check says {result}", path.display());
    Ok(())
}

/// A participant's decided branches: transaction, and whether committed.
fn decided(path: &Path) -> anyhow::Result<Vec<(Vec<u8>, bool)>> {
    let connection = open(path)?;
    let undecided: i64 =
        connection.query_row("SELECT count(*) FROM undecided", [], |row| row.get(0))?;
    ensure!(undecided == 0, "{undecided} undecided branches in {}", path.display());
    let mut statement = connection.prepare("SELECT transaction_id, committed FROM decided")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
