use dtc_protocol::{CoordinatorId, TransactionId};
use tempfile::TempDir;

use super::*;

const BRANCH: BranchId = BranchId {
    coordinator: CoordinatorId::from_bytes([1; 16]),
    transaction: TransactionId::from_bytes([2; 16]),
    number: 0,
};

struct Shop {
    connection: Connection,
    _folder: TempDir,
}

impl Shop {
    /// With ten apples and ten pears.
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("inventory.db")).unwrap();
        connection.execute_batch(Inventory::SCHEMA).unwrap();
        set(&connection, "apple", 10).unwrap();
        set(&connection, "pear", 10).unwrap();
        Self { connection, _folder: folder }
    }

    fn prepare(&mut self, lines: &[StockLine]) -> Result<Vote<()>, Refusal> {
        let transaction = self.connection.transaction().unwrap();
        let payload = ReserveStock { lines: lines.to_vec() };
        match Inventory.prepare(&transaction, &BRANCH, &payload) {
            Ok(vote) => {
                transaction.commit().unwrap();
                Ok(vote)
            }
            Err(Error::Refused(refusal)) => Err(refusal),
            Err(error) => panic!("{error}"),
        }
    }

    fn decide(&mut self, commit: bool, lines: &[StockLine]) {
        let transaction = self.connection.transaction().unwrap();
        let payload = ReserveStock { lines: lines.to_vec() };
        let done = match commit {
            true => Inventory.commit(&transaction, &BRANCH, &payload, &()),
            false => Inventory.rollback(&transaction, &BRANCH, &payload, &()),
        };
        done.unwrap();
        transaction.commit().unwrap();
    }

    fn compensate(&mut self, lines: &[StockLine]) -> Result<(), Error> {
        let transaction = self.connection.transaction().unwrap();
        let payload = ReserveStock { lines: lines.to_vec() };
        Inventory.compensate(&transaction, &BRANCH, &payload, &())?;
        transaction.commit().unwrap();
        Ok(())
    }

    /// On hand, reserved, version.
    fn apples(&self) -> (i64, i64, u64) {
        let Held { stock, .. } = find(&self.connection, "apple").unwrap().unwrap();
        (stock.on_hand, stock.reserved, stock.version)
    }
}

fn line(sku: &str, quantity: i64) -> StockLine {
    StockLine { sku: sku.into(), quantity, ..StockLine::default() }
}

fn checked(sku: &str, quantity: i64, version: u64) -> StockLine {
    StockLine { expected_version: Some(version), ..line(sku, quantity) }
}

fn check_only(line: StockLine) -> StockLine {
    StockLine { check_only: true, ..line }
}

#[test]
fn stock_is_reserved_then_taken_or_given_back() {
    let mut shop = Shop::open();
    assert_eq!(shop.prepare(&[line("apple", 3)]), Ok(Vote::Commit(())));
    assert_eq!(shop.prepare(&[line("apple", 4)]), Ok(Vote::Commit(())));
    assert_eq!(shop.apples(), (10, 7, 1));
    shop.decide(true, &[line("apple", 3)]);
    assert_eq!(shop.apples(), (7, 4, 2));
    shop.decide(false, &[line("apple", 4)]);
    assert_eq!(shop.apples(), (7, 0, 2));
}

#[test]
fn what_cannot_be_had_is_refused_and_nothing_stays_reserved() {
    let mut shop = Shop::open();
    let refusal = shop.prepare(&[line("apple", 8), line("pear", 11)]).unwrap_err();
    assert_eq!(refusal.code, "OUT_OF_STOCK");
    assert!(refusal.message.contains("lines[1].quantity is 11"), "{refusal}");
    assert_eq!(shop.apples(), (10, 0, 1));
    shop.prepare(&[line("apple", 8)]).unwrap();
    assert_eq!(shop.prepare(&[line("apple", 3)]).unwrap_err().code, "OUT_OF_STOCK");
}

#[test]
fn bad_lines_are_refused_with_the_field_and_its_value() {
    let mut shop = Shop::open();
    let long = "x".repeat(65);
    let many = vec![line("apple", 1); 101];
    for (lines, code, part) in [
        (&[][..], "INVALID_ARGUMENT", "lines has 0 entries"),
        (&many, "INVALID_ARGUMENT", "lines has 101 entries"),
        (&[line("", 1)], "INVALID_ARGUMENT", "lines[0].sku is empty"),
        (&[line(&long, 1)], "INVALID_ARGUMENT", "lines[0].sku has 65 characters"),
        (&[line("apple", 0)], "INVALID_QUANTITY", "lines[0].quantity is 0"),
        (&[line("apple", -1)], "INVALID_QUANTITY", "lines[0].quantity is -1"),
        (&[line("apple", 1_000_000_001)], "INVALID_QUANTITY", "is 1000000001"),
        (&[line("apple", 1), line("apple", 1)], "INVALID_ARGUMENT", "lines[1].sku is 'apple'"),
        (&[line("apple", 1), line("melon", 1)], "UNKNOWN_SKU", "lines[1].sku: SKU 'melon'"),
    ] {
        let refusal = shop.prepare(lines).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(part), "{refusal}");
    }
    assert_eq!(shop.apples(), (10, 0, 1));
}

#[test]
fn a_check_without_a_version_holds_nothing() {
    let mut shop = Shop::open();
    assert_eq!(shop.prepare(&[check_only(line("apple", 10))]), Ok(Vote::ReadOnly));
    let refusal = shop.prepare(&[check_only(line("apple", 11))]).unwrap_err();
    assert_eq!(refusal.code, "OUT_OF_STOCK");
    let mixed = [check_only(line("pear", 1)), line("apple", 1)];
    assert_eq!(shop.prepare(&mixed), Ok(Vote::Commit(())));
    shop.decide(true, &mixed);
    assert_eq!(shop.apples(), (9, 0, 2));
}

#[test]
fn a_checked_version_is_held_until_the_decision() {
    let mut shop = Shop::open();
    let refusal = shop.prepare(&[checked("apple", 1, 7)]).unwrap_err();
    assert_eq!(refusal.code, "VERSION_CHANGED");
    assert!(refusal.message.contains("lines[0].expected_version is 7"), "{refusal}");

    let check = [check_only(checked("apple", 1, 1))];
    assert_eq!(shop.prepare(&check), Ok(Vote::Commit(())));
    // Others may check it too, but not change it.
    assert_eq!(shop.prepare(&check), Ok(Vote::Commit(())));
    assert_eq!(shop.prepare(&[line("apple", 1)]).unwrap_err().code, "VERSION_HELD");
    assert!(set(&shop.connection, "apple", 20).is_err());
    shop.decide(true, &check);
    shop.decide(false, &check);
    assert_eq!(shop.apples(), (10, 0, 1));
    shop.prepare(&[line("apple", 1)]).unwrap();
}

#[test]
fn a_version_is_refused_that_an_undecided_branch_would_change() {
    let mut shop = Shop::open();
    shop.prepare(&[line("apple", 1)]).unwrap();
    assert_eq!(shop.prepare(&[checked("apple", 1, 1)]).unwrap_err().code, "VERSION_HELD");
    shop.decide(false, &[line("apple", 1)]);
    let change = [checked("apple", 1, 1)];
    shop.prepare(&change).unwrap();
    assert_eq!(shop.prepare(&[line("apple", 1)]).unwrap_err().code, "VERSION_HELD");
    shop.decide(true, &change);
    assert_eq!(shop.apples(), (9, 0, 2));
    shop.prepare(&[checked("apple", 1, 2)]).unwrap();
}

#[test]
fn stock_is_not_set_below_what_is_reserved() {
    let mut shop = Shop::open();
    shop.prepare(&[line("apple", 4)]).unwrap();
    let refusal = set(&shop.connection, "apple", 3).unwrap_err().to_string();
    assert!(refusal.contains("on_hand is 3"), "{refusal}");
    set(&shop.connection, "apple", 4).unwrap();
    assert_eq!(shop.apples(), (4, 4, 2));
}

#[test]
fn what_was_taken_is_put_back_once_nobody_relies_on_the_version() {
    let mut shop = Shop::open();
    let lines = [line("apple", 3), check_only(checked("pear", 1, 1))];
    shop.prepare(&lines).unwrap();
    shop.decide(true, &lines);
    assert_eq!(shop.apples(), (7, 0, 2));
    let relies = [check_only(checked("apple", 1, 2))];
    shop.prepare(&relies).unwrap();
    let not_yet = shop.compensate(&lines).unwrap_err();
    assert!(matches!(not_yet, Error::Refused(it) if it.code == "VERSION_HELD"));
    shop.decide(true, &relies);
    shop.compensate(&lines).unwrap();
    assert_eq!(shop.apples(), (10, 0, 3));
}
