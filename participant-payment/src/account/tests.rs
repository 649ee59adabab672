use dtc_protocol::{CoordinatorId, TransactionId};
use tempfile::TempDir;

use super::*;

const BRANCH: BranchId = BranchId {
    coordinator: CoordinatorId::from_bytes([1; 16]),
    transaction: TransactionId::from_bytes([2; 16]),
    number: 0,
};

struct Bank {
    connection: Connection,
    _folder: TempDir,
}

impl Bank {
    /// With an account of 10 euros.
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("payment.db")).unwrap();
        connection.execute_batch(Payment::SCHEMA).unwrap();
        open(&connection, "alice", "EUR", 1000).unwrap();
        Self { connection, _folder: folder }
    }

    fn prepare(&mut self, payload: &TakePayment) -> Result<Vote<()>, Refusal> {
        let transaction = self.connection.transaction().unwrap();
        match Payment.prepare(&transaction, &BRANCH, payload) {
            Ok(vote) => {
                transaction.commit().unwrap();
                Ok(vote)
            }
            Err(Error::Refused(refusal)) => Err(refusal),
            Err(error) => panic!("{error}"),
        }
    }

    fn compensate(&mut self, payload: &TakePayment) -> Result<(), Error> {
        let transaction = self.connection.transaction().unwrap();
        Payment.compensate(&transaction, &BRANCH, payload, &())?;
        transaction.commit().unwrap();
        Ok(())
    }

    fn decide(&mut self, commit: bool, payload: &TakePayment) {
        let transaction = self.connection.transaction().unwrap();
        let done = match commit {
            true => Payment.commit(&transaction, &BRANCH, payload, &()),
            false => Payment.rollback(&transaction, &BRANCH, payload, &()),
        };
        done.unwrap();
        transaction.commit().unwrap();
    }

    /// Balance, held, version.
    fn alice(&self) -> (i64, i64, u64) {
        let Held { account, .. } = find(&self.connection, "alice").unwrap().unwrap();
        (account.balance_minor, account.held_minor, account.version)
    }
}

fn take(amount_minor: i64) -> TakePayment {
    let (account, currency) = ("alice".into(), "EUR".into());
    TakePayment { account, amount_minor, currency, expected_version: None }
}

#[test]
fn money_is_held_then_taken_or_given_back() {
    let mut bank = Bank::open();
    bank.prepare(&take(300)).unwrap();
    bank.prepare(&take(400)).unwrap();
    assert_eq!(bank.alice(), (1000, 700, 1));
    bank.decide(true, &take(300));
    assert_eq!(bank.alice(), (700, 400, 2));
    bank.decide(false, &take(400));
    assert_eq!(bank.alice(), (700, 0, 2));
}

#[test]
fn bad_payments_are_refused_with_the_field_and_its_value() {
    let mut bank = Bank::open();
    bank.prepare(&take(100)).unwrap();
    for (payload, code, part) in [
        (take(901), "INSUFFICIENT_FUNDS", "amount_minor is 901"),
        (take(i64::MAX), "INSUFFICIENT_FUNDS", "900 can be spent"),
        (take(0), "INVALID_AMOUNT", "amount_minor is 0"),
        (take(-5), "INVALID_AMOUNT", "amount_minor is -5"),
        (TakePayment { account: "bob".into(), ..take(1) }, "UNKNOWN_ACCOUNT", "'bob'"),
        (TakePayment { account: String::new(), ..take(1) }, "INVALID_ARGUMENT", "account is empty"),
        (TakePayment { currency: "USD".into(), ..take(1) }, "WRONG_CURRENCY", "is in EUR"),
        (TakePayment { currency: "eur".into(), ..take(1) }, "INVALID_CURRENCY", "'eur'"),
        (TakePayment { expected_version: Some(9), ..take(1) }, "VERSION_CHANGED", "is 9"),
        (TakePayment { expected_version: Some(1), ..take(1) }, "VERSION_HELD", "not decided yet"),
    ] {
        let refusal = bank.prepare(&payload).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(part), "{refusal}");
    }
    assert_eq!(bank.alice(), (1000, 100, 1));
}

#[test]
fn a_checked_version_is_held_until_the_decision() {
    let mut bank = Bank::open();
    let checked = TakePayment { expected_version: Some(1), ..take(10) };
    bank.prepare(&checked).unwrap();
    assert_eq!(bank.prepare(&take(1)).unwrap_err().code, "VERSION_HELD");
    assert!(open(&bank.connection, "alice", "EUR", 5000).is_err());
    bank.decide(true, &checked);
    assert_eq!(bank.alice(), (990, 0, 2));
    bank.prepare(&take(1)).unwrap();
}

#[test]
fn an_open_account_gets_a_new_balance_in_its_own_currency() {
    let mut bank = Bank::open();
    bank.prepare(&take(300)).unwrap();
    let refusal = open(&bank.connection, "alice", "USD", 5000).unwrap_err().to_string();
    assert!(refusal.contains("in EUR"), "{refusal}");
    let refusal = open(&bank.connection, "alice", "EUR", 299).unwrap_err().to_string();
    assert!(refusal.contains("balance_minor is 299"), "{refusal}");
    open(&bank.connection, "alice", "EUR", i64::MAX).unwrap();
    bank.decide(true, &take(300));
    assert_eq!(bank.alice(), (i64::MAX - 300, 0, 3));
}

#[test]
fn a_payment_that_is_undone_is_refunded_once_nobody_relies_on_the_version() {
    let mut bank = Bank::open();
    let payment = take(300);
    bank.prepare(&payment).unwrap();
    bank.decide(true, &payment);
    assert_eq!(bank.alice(), (700, 0, 2));
    let relies = TakePayment { expected_version: Some(2), ..take(100) };
    bank.prepare(&relies).unwrap();
    let not_yet = bank.compensate(&payment).unwrap_err();
    assert!(matches!(not_yet, Error::Refused(it) if it.code == "VERSION_HELD"));
    bank.decide(true, &relies);
    bank.compensate(&payment).unwrap();
    assert_eq!(bank.alice(), (900, 0, 4));
}
