//! Stock as escrow.
//!
//! Invariants:
//! - `0 <= reserved <= on_hand`; what can be had is `on_hand - reserved`.
//! - A prepared branch's quantity is in `reserved` until its decision.
//! - `checks` counts the undecided branches that rely on the row's version; while
//!   there is one, no other branch may change the row.

use dtc_participant::{
    BranchId, Descriptors, Error, Refusal, ResourceManager, RowVersion, Vote, fields,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use shop_proto::{ReserveStock, Stock, StockLine};

const LINES: usize = 100;
const LARGEST_QUANTITY: i64 = 1_000_000_000;

/// The domain of the inventory.
#[derive(Debug)]
pub(crate) struct Inventory;

struct Held {
    stock: Stock,
    checks: i64,
}

impl ResourceManager for Inventory {
    const NAME: &'static str = "inventory";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS stock (
            sku TEXT PRIMARY KEY NOT NULL,
            on_hand INTEGER NOT NULL,
            reserved INTEGER NOT NULL CHECK (reserved BETWEEN 0 AND on_hand),
            version INTEGER NOT NULL,
            checks INTEGER NOT NULL CHECK (checks >= 0)
        ) WITHOUT ROWID;
    ";
    type Payload = ReserveStock;
    type Output = ();
    const COMPENSATES: bool = true;

    fn descriptors() -> &'static Descriptors {
        &shop_proto::DESCRIPTORS
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &ReserveStock,
    ) -> Result<Vote<()>, Error> {
        let lines = &payload.lines;
        validate(lines)?;
        for (index, line) in lines.iter().enumerate() {
            reserve(transaction, index, line)?;
        }
        let holds_something = lines.iter().any(holds);
        Ok(if holds_something { Vote::Commit(()) } else { Vote::ReadOnly })
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &ReserveStock,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE stock SET on_hand = on_hand - ?2, reserved = reserved - ?2,
                   version = version + (?2 > 0), checks = checks - ?3 WHERE sku = ?1";
        settle(transaction, sql, &payload.lines)
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &ReserveStock,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE stock SET reserved = reserved - ?2, checks = checks - ?3 WHERE sku = ?1";
        settle(transaction, sql, &payload.lines)
    }

    fn compensate(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &ReserveStock,
        (): &(),
    ) -> Result<(), Error> {
        payload.lines.iter().filter(|line| !line.check_only).try_for_each(|line| {
            let held = find(transaction, &line.sku)?;
            let held = held.ok_or(Error::Inconsistent("a SKU of a branch is missing"))?;
            held.versioned(&describe(&line.sku)).change()?;
            let on_hand = held.stock.on_hand.checked_add(line.quantity);
            let on_hand = on_hand.ok_or(Error::Inconsistent("more stock than can be counted"))?;
            let sql = "UPDATE stock SET on_hand = ?2, version = version + 1 WHERE sku = ?1";
            transaction.prepare_cached(sql)?.execute(params![line.sku, on_hand])?;
            Ok(())
        })
    }
}

/// Sets what is on hand; creates the SKU.
pub(crate) fn set(connection: &Connection, sku: &str, on_hand: i64) -> Result<Stock, Error> {
    let mut stock = match find(connection, sku)? {
        None => Stock { sku: sku.into(), ..Stock::default() },
        Some(held) => {
            held.versioned(&describe(sku)).change()?;
            held.stock
        }
    };
    if on_hand < stock.reserved {
        let message = format!(
            "on_hand is {on_hand}, but {} are promised to branches that are not decided yet",
            stock.reserved
        );
        return Err(Refusal::new("INVALID_QUANTITY", message).into());
    }
    stock.on_hand = on_hand;
    stock.version += 1;
    connection
        .prepare_cached(
            "INSERT INTO stock VALUES (?1, ?2, 0, ?3, 0)
             ON CONFLICT (sku) DO UPDATE SET on_hand = ?2, version = ?3",
        )?
        .execute(params![sku, on_hand, stock.version.cast_signed()])?;
    Ok(stock)
}

/// From a row of `sku, on_hand, reserved, version`.
pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Stock> {
    Ok(Stock {
        sku: row.get(0)?,
        on_hand: row.get(1)?,
        reserved: row.get(2)?,
        version: row.get::<_, i64>(3)?.cast_unsigned(),
    })
}

fn validate(lines: &[StockLine]) -> Result<(), Refusal> {
    fields::count("lines", lines.len(), 1..=LINES)?;
    for (index, line) in lines.iter().enumerate() {
        fields::name(format_args!("lines[{index}].sku"), &line.sku)?;
        let field = format_args!("lines[{index}].quantity");
        fields::number("INVALID_QUANTITY", field, line.quantity, 1..=LARGEST_QUANTITY)?;
        if let Some(first) = lines[..index].iter().position(|other| other.sku == line.sku) {
            let message =
                format!("lines[{index}].sku is '{}', as lines[{first}].sku is already", line.sku);
            return Err(Refusal::new("INVALID_ARGUMENT", message));
        }
    }
    Ok(())
}

fn reserve(connection: &Connection, index: usize, line: &StockLine) -> Result<(), Error> {
    if reserve_simply(connection, line)? {
        return Ok(());
    }
    let Some(held) = find(connection, &line.sku)? else {
        let message = format!("lines[{index}].sku: SKU '{}' is unknown", line.sku);
        return Err(Refusal::new("UNKNOWN_SKU", message).into());
    };
    let Stock { on_hand, reserved, .. } = held.stock;
    let what = describe(&line.sku);
    let versioned = held.versioned(&what);
    if let Some(expected) = line.expected_version {
        versioned.check(format_args!("lines[{index}].expected_version"), expected)?;
    }
    if !line.check_only {
        versioned.change()?;
    }
    let available = on_hand
        .checked_sub(reserved)
        .ok_or(Error::Inconsistent("more stock is reserved than can be counted"))?;
    if available < line.quantity {
        let message = format!(
            "lines[{index}].quantity is {}, but of SKU '{}' {available} can be had ({on_hand} on hand, {reserved} reserved)",
            line.quantity, line.sku
        );
        return Err(Refusal::new("OUT_OF_STOCK", message).into());
    }
    if !holds(line) {
        return Ok(());
    }
    let sql = "UPDATE stock SET reserved = reserved + ?2, checks = checks + ?3 WHERE sku = ?1";
    update(connection, sql, line)
}

/// What most lines need, in one statement; false if it is not so simple.
fn reserve_simply(connection: &Connection, line: &StockLine) -> rusqlite::Result<bool> {
    if line.check_only || line.expected_version.is_some() {
        return Ok(false);
    }
    let sql = "UPDATE stock SET reserved = reserved + ?2
               WHERE sku = ?1 AND on_hand - reserved >= ?2 AND checks = 0";
    Ok(connection.prepare_cached(sql)?.execute(params![line.sku, line.quantity])? == 1)
}

fn settle(connection: &Connection, sql: &str, lines: &[StockLine]) -> Result<(), Error> {
    lines.iter().filter(|line| holds(line)).try_for_each(|line| update(connection, sql, line))
}

/// With what the line reserves as `?2`, and whether it holds the version as `?3`.
fn update(connection: &Connection, sql: &str, line: &StockLine) -> Result<(), Error> {
    let quantity = if line.check_only { 0 } else { line.quantity };
    let checks = i64::from(line.expected_version.is_some());
    match connection.prepare_cached(sql)?.execute(params![line.sku, quantity, checks])? {
        1 => Ok(()),
        _ => Err(Error::Inconsistent("a SKU of a branch is missing")),
    }
}

/// Whether a prepared branch has something of the row until its decision.
fn holds(line: &StockLine) -> bool {
    !line.check_only || line.expected_version.is_some()
}

fn find(connection: &Connection, sku: &str) -> rusqlite::Result<Option<Held>> {
    connection
        .prepare_cached("SELECT sku, on_hand, reserved, version, checks FROM stock WHERE sku = ?1")?
        .query_row([sku], |row| Ok(Held { stock: from_row(row)?, checks: row.get(4)? }))
        .optional()
}

fn describe(sku: &str) -> String {
    format!("SKU '{sku}'")
}

impl Held {
    fn versioned<'a>(&self, what: &'a str) -> RowVersion<'a> {
        RowVersion {
            what,
            version: self.stock.version,
            is_changing: self.stock.reserved > 0,
            checks: self.checks,
        }
    }
}

#[cfg(test)]
mod tests;
