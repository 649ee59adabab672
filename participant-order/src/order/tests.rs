use dtc_protocol::{CoordinatorId, TransactionId};
use shop_proto::OrderLine;
use tempfile::TempDir;

use super::*;

const BRANCH: BranchId = BranchId {
    coordinator: CoordinatorId::from_bytes([1; 16]),
    transaction: TransactionId::from_bytes([2; 16]),
    number: 0,
};

struct Book {
    connection: Connection,
    _folder: TempDir,
}

impl Book {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("order.db")).unwrap();
        connection.execute_batch(Orders::SCHEMA).unwrap();
        Self { connection, _folder: folder }
    }

    fn prepare(&mut self, payload: &PlaceOrder) -> Result<Vote<()>, Refusal> {
        let transaction = self.connection.transaction().unwrap();
        match Orders.prepare(&transaction, &BRANCH, payload) {
            Ok(vote) => {
                transaction.commit().unwrap();
                Ok(vote)
            }
            Err(Error::Refused(refusal)) => Err(refusal),
            Err(error) => panic!("{error}"),
        }
    }

    fn decide(&mut self, commit: bool, payload: &PlaceOrder) {
        let transaction = self.connection.transaction().unwrap();
        let done = match commit {
            true => Orders.commit(&transaction, &BRANCH, payload, &()),
            false => Orders.rollback(&transaction, &BRANCH, payload, &()),
        };
        done.unwrap();
        transaction.commit().unwrap();
    }

    fn order(&self) -> Order {
        let sql = "SELECT order_id, customer, lines, total_minor, currency, state, version
                   FROM orders WHERE order_id = 'o1'";
        self.connection.query_row(sql, [], from_row).unwrap()
    }
}

fn place() -> PlaceOrder {
    PlaceOrder {
        order_id: "o1".into(),
        customer: "alice".into(),
        lines: vec![OrderLine { sku: "apple".into(), quantity: 2 }],
        total_minor: 500,
        currency: "EUR".into(),
        expected_version: None,
    }
}

#[test]
fn an_order_is_pending_then_confirmed() {
    let mut book = Book::open();
    book.prepare(&place()).unwrap();
    let pending = Order {
        order_id: "o1".into(),
        customer: "alice".into(),
        lines: place().lines,
        total_minor: 500,
        currency: "EUR".into(),
        state: OrderState::Pending.into(),
        version: 0,
    };
    assert_eq!(book.order(), pending);
    assert_eq!(book.prepare(&place()).unwrap_err().code, "ORDER_EXISTS");
    book.decide(true, &place());
    let confirmed = Order { state: OrderState::Confirmed.into(), version: 1, ..pending };
    assert_eq!(book.order(), confirmed);
    assert_eq!(book.prepare(&place()).unwrap_err().code, "ORDER_EXISTS");
}

#[test]
fn a_cancelled_order_may_be_placed_again() {
    let mut book = Book::open();
    book.prepare(&place()).unwrap();
    book.decide(false, &place());
    assert_eq!(book.order().state(), OrderState::Cancelled);
    let other = PlaceOrder { total_minor: 700, expected_version: Some(0), ..place() };
    book.prepare(&other).unwrap();
    book.decide(true, &other);
    let order = book.order();
    assert_eq!((order.state(), order.total_minor), (OrderState::Confirmed, 700));
}

#[test]
fn bad_orders_are_refused_with_the_field_and_its_value() {
    let mut book = Book::open();
    let line = |sku: &str, quantity| vec![OrderLine { sku: sku.into(), quantity }];
    for (payload, code, part) in [
        (PlaceOrder { order_id: String::new(), ..place() }, "INVALID_ARGUMENT", "order_id is"),
        (PlaceOrder { customer: "x".repeat(65), ..place() }, "INVALID_ARGUMENT", "customer has 65"),
        (PlaceOrder { lines: vec![], ..place() }, "INVALID_ARGUMENT", "lines has 0"),
        (PlaceOrder { lines: line("", 1), ..place() }, "INVALID_ARGUMENT", "lines[0].sku"),
        (PlaceOrder { lines: line("a", 0), ..place() }, "INVALID_QUANTITY", "lines[0].quantity"),
        (PlaceOrder { total_minor: 0, ..place() }, "INVALID_AMOUNT", "total_minor is 0"),
        (PlaceOrder { currency: "EURO".into(), ..place() }, "INVALID_CURRENCY", "'EURO'"),
        (PlaceOrder { expected_version: Some(3), ..place() }, "VERSION_CHANGED", "is 3"),
    ] {
        let refusal = book.prepare(&payload).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(part), "{refusal}");
    }
    let orders = "SELECT count(*) FROM orders";
    assert_eq!(book.connection.query_row(orders, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn a_confirmed_order_that_is_undone_is_cancelled_and_can_be_placed_anew() {
    let mut book = Book::open();
    book.prepare(&place()).unwrap();
    book.decide(true, &place());
    let transaction = book.connection.transaction().unwrap();
    Orders.compensate(&transaction, &BRANCH, &place(), &()).unwrap();
    transaction.commit().unwrap();
    let order = book.order();
    assert_eq!((order.state(), order.version), (OrderState::Cancelled, 2));
    assert_eq!(book.prepare(&place()), Ok(Vote::Commit(())));
}
