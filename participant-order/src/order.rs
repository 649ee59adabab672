//! Orders.
//!
//! Invariants:
//! - An order is pending exactly while its branch is prepared and undecided; so
//!   one branch at most has it.
//! - A cancelled order may be placed again, a confirmed one never.

use dtc_participant::{BranchId, Descriptors, Error, Refusal, ResourceManager, Vote, fields};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Type};
use shop_proto::{Order, OrderState, PlaceOrder};

const LINES: usize = 100;
const LARGEST_QUANTITY: i64 = 1_000_000_000;

/// The domain of orders.
#[derive(Debug)]
pub(crate) struct Orders;

impl ResourceManager for Orders {
    const NAME: &'static str = "order";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS orders (
            order_id TEXT PRIMARY KEY NOT NULL,
            customer TEXT NOT NULL,
            -- A shop.v1.Order with its lines alone.
            lines BLOB NOT NULL,
            total_minor INTEGER NOT NULL,
            currency TEXT NOT NULL,
            -- As shop.v1.OrderState numbers them.
            state INTEGER NOT NULL,
            version INTEGER NOT NULL
        ) WITHOUT ROWID;
    ";
    type Payload = PlaceOrder;
    type Output = ();
    const COMPENSATES: bool = true;

    fn descriptors() -> &'static Descriptors {
        &shop_proto::DESCRIPTORS
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &PlaceOrder,
    ) -> Result<Vote<()>, Error> {
        validate(payload)?;
        let known = find(transaction, &payload.order_id)?;
        check_state(&payload.order_id, known.map(|(state, _)| state))?;
        let version = known.map_or(0, |(_, version)| version);
        if payload.expected_version.is_some_and(|expected| expected != version) {
            let message = format!(
                "expected_version is {}, but order '{}' has version {version}",
                payload.expected_version.unwrap_or_default(),
                payload.order_id
            );
            return Err(Refusal::new("VERSION_CHANGED", message).into());
        }
        let lines = Order { lines: payload.lines.clone(), ..Order::default() };
        let write = match known {
            None => "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            Some(_) => {
                "UPDATE orders SET customer = ?2, lines = ?3, total_minor = ?4, currency = ?5,
                                   state = ?6, version = ?7 WHERE order_id = ?1"
            }
        };
        transaction.prepare_cached(write)?.execute(params![
            payload.order_id,
            payload.customer,
            lines.encode_to_vec(),
            payload.total_minor,
            payload.currency,
            OrderState::Pending as i32,
            version.cast_signed(),
        ])?;
        Ok(Vote::Commit(()))
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &PlaceOrder,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE orders SET state = ?2, version = version + 1
                   WHERE order_id = ?1 AND state = ?3";
        settle(transaction, sql, payload, (OrderState::Pending, OrderState::Confirmed))
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &PlaceOrder,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE orders SET state = ?2 WHERE order_id = ?1 AND state = ?3";
        settle(transaction, sql, payload, (OrderState::Pending, OrderState::Cancelled))
    }

    fn compensate(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &PlaceOrder,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE orders SET state = ?2, version = version + 1
                   WHERE order_id = ?1 AND state = ?3";
        settle(transaction, sql, payload, (OrderState::Confirmed, OrderState::Cancelled))
    }
}

/// From a row of `order_id, customer, lines, total_minor, currency, state, version`.
pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Order> {
    let lines: Vec<u8> = row.get(2)?;
    let lines = Order::decode(&lines[..]).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, Type::Blob, Box::new(error))
    })?;
    Ok(Order {
        order_id: row.get(0)?,
        customer: row.get(1)?,
        total_minor: row.get(3)?,
        currency: row.get(4)?,
        state: row.get(5)?,
        version: row.get::<_, i64>(6)?.cast_unsigned(),
        ..lines
    })
}

fn validate(payload: &PlaceOrder) -> Result<(), Refusal> {
    fields::name("order_id", &payload.order_id)?;
    fields::name("customer", &payload.customer)?;
    fields::count("lines", payload.lines.len(), 1..=LINES)?;
    for (index, line) in payload.lines.iter().enumerate() {
        fields::name(format_args!("lines[{index}].sku"), &line.sku)?;
        let field = format_args!("lines[{index}].quantity");
        fields::number("INVALID_QUANTITY", field, line.quantity, 1..=LARGEST_QUANTITY)?;
    }
    fields::number("INVALID_AMOUNT", "total_minor", payload.total_minor, 1..=i64::MAX)?;
    shop_proto::check_currency("currency", &payload.currency)
        .map_err(|problem| Refusal::new("INVALID_CURRENCY", problem))
}

fn check_state(order_id: &str, state: Option<OrderState>) -> Result<(), Refusal> {
    let is = match state {
        None | Some(OrderState::Cancelled) => return Ok(()),
        Some(OrderState::Pending) => "being placed by a branch that is not decided yet",
        Some(OrderState::Confirmed | OrderState::Unspecified) => "confirmed",
    };
    Err(Refusal::new("ORDER_EXISTS", format!("order_id: order '{order_id}' is {is}")))
}

fn settle(
    connection: &Connection,
    sql: &str,
    payload: &PlaceOrder,
    (from, to): (OrderState, OrderState),
) -> Result<(), Error> {
    let values = params![payload.order_id, to as i32, from as i32];
    match connection.prepare_cached(sql)?.execute(values)? {
        1 => Ok(()),
        _ => Err(Error::Inconsistent("the order of a branch is not there as it was left")),
    }
}

fn find(connection: &Connection, order_id: &str) -> rusqlite::Result<Option<(OrderState, u64)>> {
    connection
        .prepare_cached("SELECT state, version FROM orders WHERE order_id = ?1")?
        .query_row([order_id], |row| {
            let state = OrderState::try_from(row.get::<_, i32>(0)?).unwrap_or_default();
            Ok((state, row.get::<_, i64>(1)?.cast_unsigned()))
        })
        .optional()
}

#[cfg(test)]
mod tests;
