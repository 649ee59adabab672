//! Accounts as escrow. Amounts are in minor units (cents).
//!
//! Invariants:
//! - `0 <= held <= balance`; what can be spent is `balance - held`.
//! - A prepared branch's amount is in `held` until its decision.
//! - `checks` counts the undecided branches that rely on the row's version; while
//!   there is one, no other branch may change the row.

use dtc_participant::{
    BranchId, Descriptors, Error, Refusal, ResourceManager, RowVersion, Vote, fields,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use shop_proto::{Account, TakePayment};

/// The domain of payments.
#[derive(Debug)]
pub(crate) struct Payment;

struct Held {
    account: Account,
    checks: i64,
}

impl ResourceManager for Payment {
    const NAME: &'static str = "payment";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS accounts (
            account TEXT PRIMARY KEY NOT NULL,
            currency TEXT NOT NULL,
            balance INTEGER NOT NULL,
            held INTEGER NOT NULL CHECK (held BETWEEN 0 AND balance),
            version INTEGER NOT NULL,
            checks INTEGER NOT NULL CHECK (checks >= 0)
        ) WITHOUT ROWID;
    ";
    type Payload = TakePayment;
    type Output = ();
    const COMPENSATES: bool = true;

    fn descriptors() -> &'static Descriptors {
        &shop_proto::DESCRIPTORS
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
    ) -> Result<Vote<()>, Error> {
        fields::name("account", &payload.account)?;
        fields::number("INVALID_AMOUNT", "amount_minor", payload.amount_minor, 1..=i64::MAX)?;
        shop_proto::check_currency("currency", &payload.currency)
            .map_err(|problem| Refusal::new("INVALID_CURRENCY", problem))?;
        if hold_simply(transaction, payload)? {
            return Ok(Vote::Commit(()));
        }
        let Some(held) = find(transaction, &payload.account)? else {
            let message = format!("account '{}' is unknown", payload.account);
            return Err(Refusal::new("UNKNOWN_ACCOUNT", message).into());
        };
        check_currency(&held.account, &payload.currency)?;
        let what = describe(&payload.account);
        let versioned = held.versioned(&what);
        if let Some(expected) = payload.expected_version {
            versioned.check("expected_version", expected)?;
        }
        versioned.change()?;
        let Account { balance_minor, held_minor, .. } = held.account;
        let available = balance_minor
            .checked_sub(held_minor)
            .ok_or(Error::Inconsistent("more money is held than can be counted"))?;
        if available < payload.amount_minor {
            let message = format!(
                "amount_minor is {}, but on {what} {available} can be spent ({balance_minor} less {held_minor} held)",
                payload.amount_minor
            );
            return Err(Refusal::new("INSUFFICIENT_FUNDS", message).into());
        }
        let sql = "UPDATE accounts SET held = held + ?2, checks = checks + ?3 WHERE account = ?1";
        update(transaction, sql, payload)?;
        Ok(Vote::Commit(()))
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE accounts SET balance = balance - ?2, held = held - ?2,
                   version = version + 1, checks = checks - ?3 WHERE account = ?1";
        update(transaction, sql, payload)
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        (): &(),
    ) -> Result<(), Error> {
        let sql = "UPDATE accounts SET held = held - ?2, checks = checks - ?3 WHERE account = ?1";
        update(transaction, sql, payload)
    }

    fn compensate(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        (): &(),
    ) -> Result<(), Error> {
        let held = find(transaction, &payload.account)?;
        let held = held.ok_or(Error::Inconsistent("the account of a branch is missing"))?;
        held.versioned(&describe(&payload.account)).change()?;
        let balance = held.account.balance_minor.checked_add(payload.amount_minor);
        let balance = balance.ok_or(Error::Inconsistent("more money than can be counted"))?;
        let sql = "UPDATE accounts SET balance = ?2, version = version + 1 WHERE account = ?1";
        transaction.prepare_cached(sql)?.execute(params![payload.account, balance])?;
        Ok(())
    }
}

/// Sets an account's balance; opens the account.
pub(crate) fn open(
    connection: &Connection,
    name: &str,
    currency: &str,
    balance: i64,
) -> Result<Account, Error> {
    let mut account = match find(connection, name)? {
        None => Account { account: name.into(), currency: currency.into(), ..Account::default() },
        Some(held) => {
            check_currency(&held.account, currency)?;
            held.versioned(&describe(name)).change()?;
            held.account
        }
    };
    if balance < account.held_minor {
        let message = format!(
            "balance_minor is {balance}, but {} are promised to branches that are not decided yet",
            account.held_minor
        );
        return Err(Refusal::new("INVALID_AMOUNT", message).into());
    }
    account.balance_minor = balance;
    account.version += 1;
    connection
        .prepare_cached(
            "INSERT INTO accounts VALUES (?1, ?2, ?3, 0, ?4, 0)
             ON CONFLICT (account) DO UPDATE SET balance = ?3, version = ?4",
        )?
        .execute(params![name, currency, balance, account.version.cast_signed()])?;
    Ok(account)
}

/// From a row of `account, currency, balance, held, version`.
pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        account: row.get(0)?,
        currency: row.get(1)?,
        balance_minor: row.get(2)?,
        held_minor: row.get(3)?,
        version: row.get::<_, i64>(4)?.cast_unsigned(),
    })
}

fn check_currency(account: &Account, currency: &str) -> Result<(), Refusal> {
    if account.currency == currency {
        return Ok(());
    }
    let Account { account, currency: own, .. } = account;
    let message = format!("currency is '{currency}', but account '{account}' is in {own}");
    Err(Refusal::new("WRONG_CURRENCY", message))
}

/// What most payments need, in one statement; false if it is not so simple.
fn hold_simply(connection: &Connection, payload: &TakePayment) -> rusqlite::Result<bool> {
    if payload.expected_version.is_some() {
        return Ok(false);
    }
    let sql = "UPDATE accounts SET held = held + ?2
               WHERE account = ?1 AND balance - held >= ?2 AND currency = ?3 AND checks = 0";
    let values = params![payload.account, payload.amount_minor, payload.currency];
    Ok(connection.prepare_cached(sql)?.execute(values)? == 1)
}

/// With the amount as `?2`, and whether the branch holds the version as `?3`.
fn update(connection: &Connection, sql: &str, payload: &TakePayment) -> Result<(), Error> {
    let checks = i64::from(payload.expected_version.is_some());
    let values = params![payload.account, payload.amount_minor, checks];
    match connection.prepare_cached(sql)?.execute(values)? {
        1 => Ok(()),
        _ => Err(Error::Inconsistent("the account of a branch is missing")),
    }
}

fn find(connection: &Connection, account: &str) -> rusqlite::Result<Option<Held>> {
    connection
        .prepare_cached(
            "SELECT account, currency, balance, held, version, checks FROM accounts
             WHERE account = ?1",
        )?
        .query_row([account], |row| Ok(Held { account: from_row(row)?, checks: row.get(5)? }))
        .optional()
}

fn describe(account: &str) -> String {
    format!("account '{account}'")
}

impl Held {
    fn versioned<'a>(&self, what: &'a str) -> RowVersion<'a> {
        RowVersion {
            what,
            version: self.account.version,
            is_changing: self.account.held_minor > 0,
            checks: self.checks,
        }
    }
}

#[cfg(test)]
mod tests;
