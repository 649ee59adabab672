//! What the four databases hold.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use dtc::{
    api::{BranchState, Transaction},
    journal::Stored,
};
use dtc_protocol::TransactionId;
use rusqlite::{Connection, OpenFlags};
use shop_proto::OrderState;
use uuid::Uuid;

use super::witness::{self, Remembered, Witness};

/// Bytes after each body in the coordinator's journal.
const CHECKSUM: usize = 4;

/// A SKU or an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// On hand, or the balance.
    pub(crate) amount: i64,
    /// Reserved, or held.
    pub(crate) promised: i64,
    pub(crate) version: i64,
    /// Undecided branches that rely on the version.
    pub(crate) checks: i64,
}

/// What is in the tables of the shop, and what is still open anywhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    pub(crate) stock: BTreeMap<String, Row>,
    pub(crate) accounts: BTreeMap<String, Row>,
    /// State and version.
    pub(crate) orders: BTreeMap<String, (OrderState, i64)>,
    /// Branches in doubt, by participant.
    pub(crate) undecided: Vec<(&'static str, i64)>,
    /// At the coordinator.
    pub(crate) unfinished: i64,
}

/// Every decision of every journal. Large: read at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journals {
    /// At the participants: how many branches of a transaction were committed,
    /// and how many rolled back.
    pub(crate) branches: BTreeMap<Uuid, (usize, usize)>,
    /// At the coordinator: whether committed, and by how many branches.
    pub(crate) decisions: BTreeMap<Uuid, (bool, usize)>,
    /// Files that SQLite's own check finds damaged, with what it says.
    pub(crate) damaged: Vec<String>,
    /// What the files went through, where that was taken down.
    pub(crate) witness: Option<Witness>,
    /// What other participants' books have against what they were sent.
    pub(crate) complaints: Vec<String>,
}

/// The four files, the coordinator's first.
pub(crate) type Files<'a> = [&'a Path; 4];

impl Books {
    /// All of it.
    pub(crate) fn read(files: Files<'_>) -> anyhow::Result<Self> {
        Self::read_where(files, ["TRUE"; 3])
    }

    /// Only what is still open: little, however long the history is.
    pub(crate) fn read_open(files: Files<'_>) -> anyhow::Result<Self> {
        let pending = format!("state = {}", OrderState::Pending as i32);
        let held = ["reserved <> 0 OR checks <> 0", "held <> 0 OR checks <> 0", &pending];
        Self::read_where(files, held)
    }

    fn read_where(
        [coordinator, inventory, payment, order]: Files<'_>,
        [in_stock, in_accounts, placed]: [&str; 3],
    ) -> anyhow::Result<Self> {
        let count = |path: &Path, sql: &str| -> anyhow::Result<i64> {
            Ok(open(path)?.query_row(sql, [], |row| row.get(0))?)
        };
        let undecided = "SELECT count(*) FROM undecided";
        let stock = "SELECT sku, on_hand, reserved, version, checks FROM stock";
        let accounts = "SELECT account, balance, held, version, checks FROM accounts";
        Ok(Self {
            stock: rows(inventory, &format!("{stock} WHERE {in_stock}"))?,
            accounts: rows(payment, &format!("{accounts} WHERE {in_accounts}"))?,
            orders: orders(order, placed)?,
            undecided: vec![
                ("inventory", count(inventory, undecided)?),
                ("payment", count(payment, undecided)?),
                ("order", count(order, undecided)?),
            ],
            unfinished: count(coordinator, "SELECT count(*) FROM unfinished")?,
        })
    }

    /// What is not over yet; none when everything is.
    pub(crate) fn open(&self) -> Option<String> {
        let mut open: Vec<_> = self
            .undecided
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} branches undecided at {name}"))
            .collect();
        if self.unfinished > 0 {
            open.push(format!("{} transactions unfinished at the coordinator", self.unfinished));
        }
        for (what, rows) in [("stock", &self.stock), ("accounts", &self.accounts)] {
            let held = rows.values().filter(|row| row.promised != 0 || row.checks != 0).count();
            if held > 0 {
                open.push(format!("{held} rows of {what} are reserved or checked"));
            }
        }
        let pending =
            self.orders.values().filter(|(state, _)| *state == OrderState::Pending).count();
        if pending > 0 {
            open.push(format!("{pending} orders are pending"));
        }
        (!open.is_empty()).then(|| open.join(", "))
    }
}

impl Journals {
    /// All of it; finished work had to be `remembered` for so long.
    pub(crate) fn read(files: Files<'_>, remembered: Option<Remembered>) -> anyhow::Result<Self> {
        let mut journals = Self::default();
        for path in files {
            let result: String =
                open(path)?.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            if result != "ok" {
                journals.damaged.push(format!("{}: {result}", path.display()));
            }
        }
        let [coordinator, participants @ ..] = files;
        let mut witness = Witness::read(coordinator)?;
        let unfinished = unfinished(coordinator)?;
        for (path, name) in participants.into_iter().zip(["inventory", "payment", "order"]) {
            let decided = witness::decided(path)?;
            for (id, is_committed, ..) in &decided {
                journals.add_branch(*id, *is_committed);
            }
            if let (Some(witness), Some(remembered)) = (&mut witness, remembered) {
                witness.check_participant(name, &decided, &unfinished, remembered);
            }
        }
        if let (Some(witness), Some(remembered)) = (&mut witness, remembered) {
            witness.check_coordinator(remembered);
        }
        let connection = open(coordinator)?;
        let sql = "SELECT id, decision FROM finished WHERE decision IS NOT NULL
                   UNION ALL SELECT id, decision FROM unfinished WHERE decision IS NOT NULL";
        let mut statement = connection.prepare(sql)?;
        let rows =
            statement.query_map([], |row| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?)))?;
        let rows = rows.collect::<Result<Vec<(_, Vec<u8>)>, _>>()?;
        let forgotten = witness.as_ref().map_or(&[][..], |witness| &witness.decisions);
        for (id, sealed) in forgotten.iter().chain(&rows) {
            let decided = decoded(*id, sealed)?;
            let mut branches = decided.branches;
            branches.retain(|branch| branch.state != BranchState::ReadOnly);
            journals.decisions.insert(*id, (decided.committed, branches.len()));
        }
        journals.witness = witness;
        Ok(journals)
    }

    /// Takes in what a participant's own books say of a branch.
    pub(crate) fn add_branch(&mut self, id: Uuid, is_committed: bool) {
        let (committed, rolled_back) = self.branches.entry(id).or_default();
        *(if is_committed { committed } else { rolled_back }) += 1;
    }
}

/// A decision as the journal has it, sealed.
pub(crate) fn decoded(id: Uuid, sealed: &[u8]) -> anyhow::Result<Transaction> {
    let body = &sealed[..sealed.len().saturating_sub(CHECKSUM)];
    let id = TransactionId::from_bytes(id.into_bytes());
    let stored = Stored { id, begin: None, decision: Some(body.into()), end: None };
    Ok(Transaction::in_journal(&stored)?)
}

fn unfinished(coordinator: &Path) -> anyhow::Result<Vec<Uuid>> {
    let connection = open(coordinator)?;
    let mut statement = connection.prepare("SELECT id FROM unfinished")?;
    let rows = statement.query_map([], |row| row.get(0).map(Uuid::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn open(path: &Path) -> anyhow::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("{} cannot be opened", path.display()))
}

fn rows(path: &Path, sql: &str) -> anyhow::Result<BTreeMap<String, Row>> {
    let connection = open(path)?;
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let (amount, promised) = (row.get(1)?, row.get(2)?);
        let values = Row { amount, promised, version: row.get(3)?, checks: row.get(4)? };
        Ok((row.get(0)?, values))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn orders(path: &Path, which: &str) -> anyhow::Result<BTreeMap<String, (OrderState, i64)>> {
    let connection = open(path)?;
    let sql = format!("SELECT order_id, state, version FROM orders WHERE {which}");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| {
        let state = OrderState::try_from(row.get::<_, i32>(1)?).unwrap_or_default();
        Ok((row.get(0)?, (state, row.get(2)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
