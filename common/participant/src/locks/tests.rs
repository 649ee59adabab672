//! What stands beside the lock manager, which has tests of its own.

use dtc_protocol::CoordinatorId;

use super::{Claimed::*, *};

fn transaction(number: u8) -> TransactionId {
    TransactionId::from_bytes([number; 16])
}

fn branch_of(transaction_number: u8, number: u32) -> BranchId {
    let coordinator = CoordinatorId::from_bytes([0xC0; 16]);
    BranchId { coordinator, transaction: transaction(transaction_number), number }
}

fn branch(number: u8) -> BranchId {
    branch_of(number, 0)
}

fn keys(text: &str) -> Vec<String> {
    text.split(' ').map(Into::into).collect()
}

/// Whom what is parked belongs to.
type Table = BranchLocks<BranchId>;

impl Table {
    fn want(&mut self, branch: BranchId, text: &str) -> Result<Claimed, ClaimError> {
        let claimed = self.claim(&branch, branch.transaction, keys(text));
        if claimed == Ok(Waits) {
            assert_eq!(self.park(&branch, branch, 1), None);
        }
        claimed
    }
}

#[test]
fn a_branch_that_leaves_the_line_lets_others_on() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    assert_eq!(table.want(branch(3), "a b"), Ok(Waits));
    assert_eq!(table.want(branch(2), "b"), Ok(Waits));
    assert_eq!(table.release(&branch(3)), [branch(3), branch(2)], "what it left goes first");
    assert_eq!((table.held(), table.waiting()), (2, 0));
}

#[test]
fn a_duplicate_takes_the_place_of_the_earlier_attempt() {
    let mut table = BranchLocks::<&str>::default();
    let claim = |table: &mut BranchLocks<_>, number, text| {
        table.claim(&branch(number), transaction(number), keys(text))
    };
    assert_eq!(claim(&mut table, 5, "a"), Ok(Granted));
    assert_eq!(claim(&mut table, 5, "a a"), Ok(Granted));
    assert_eq!(claim(&mut table, 5, "b"), Err(ClaimError::OtherKeys));
    assert_eq!(claim(&mut table, 4, "a"), Ok(Waits));
    assert_eq!(table.park(&branch(4), "first", 10), None);
    assert_eq!(claim(&mut table, 4, "a"), Ok(Waits));
    assert_eq!(table.park(&branch(4), "second", 20), None);
    assert_eq!(table.bytes, 20);
    assert_eq!(table.release(&branch(5)), ["second"]);
    assert_eq!(table.bytes, 0);
    assert_eq!(table.park(&branch(4), "late", 30), Some("late"), "it need not wait any more");
    assert_eq!(table.park(&branch(9), "gone", 30), Some("gone"));
}

#[test]
fn what_was_granted_goes_back_unless_it_was_used_for_a_promise() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    assert_eq!(table.want(branch(4), "a"), Ok(Waits));
    assert_eq!(table.give_back(&branch(4)), [], "it was granted nothing");
    assert_eq!(table.claim(&branch(3), transaction(3), keys("a")), Ok(Waits));
    assert_eq!(table.waiting(), 2);
    assert_eq!(table.give_back(&branch(3)), []);
    assert_eq!(table.waiting(), 1, "nothing was parked there");
    assert_eq!(table.give_back(&branch(5)), [branch(4)]);
    assert!(table.promise(&branch(4)) && !table.promise(&branch(4)));
    assert!(!table.promise(&branch(5)));
    assert_eq!(table.give_back(&branch(4)), []);
    assert_eq!(table.held(), 1);
    assert_eq!(table.release(&branch(4)), []);
    assert_eq!(table.held(), 0);
}

#[test]
fn promises_of_the_journal_are_held_even_where_they_disagree() {
    let mut table = Table::default();
    table.restore(&branch(5), transaction(5), keys("a"));
    table.restore(&branch(6), transaction(6), keys("a b"));
    assert_eq!(table.held(), 3);
    assert_eq!(table.want(branch(4), "a"), Ok(Waits));
    assert_eq!(table.release(&branch(5)), []);
    assert_eq!(table.release(&branch(6)), [branch(4)]);
}

#[test]
fn who_waits_is_bounded_in_number_and_bytes() {
    let mut table = Table::default();
    let old = TransactionId::from_bytes([0; 16]);
    let nth = |number: usize| branch_of(1, number as u32);
    let wants = |number: usize| BranchId {
        transaction: TransactionId::from_bytes((u128::MAX - number as u128).to_be_bytes()),
        ..nth(0)
    };
    assert_eq!(table.want(wants(0), "a"), Ok(Granted));
    for number in 1..=WAITING {
        assert_eq!(table.claim(&wants(number), wants(number).transaction, keys("a")), Ok(Waits));
    }
    let full = ClaimError::Full { waiting: WAITING, bytes: 0 };
    assert_eq!(table.claim(&branch(0), old, keys("a")), Err(full));
    assert_eq!(table.claim(&branch(0), old, keys("b")), Ok(Granted), "it need not wait");

    let mut table = Table::default();
    assert_eq!(table.want(branch(9), "a"), Ok(Granted));
    assert_eq!(table.claim(&branch(8), transaction(8), keys("a")), Ok(Waits));
    assert_eq!(table.park(&branch(8), branch(8), BYTES), None);
    let full = ClaimError::Full { waiting: 1, bytes: BYTES };
    assert_eq!(table.want(branch(7), "a"), Err(full));
    assert_eq!(table.dismiss(&branch(8)), Some((branch(8), vec![])));
    assert_eq!(table.want(branch(7), "a"), Ok(Waits), "there is room again");
}

#[test]
fn who_has_waited_for_too_long_is_told_for_what() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    assert_eq!(table.want(branch(3), "a"), Ok(Waits));
    assert_eq!(table.want(branch(2), "a"), Ok(Waits));
    let five = Blocked { key: "a".into(), by: branch(5), holds: true, policy: Deadlocks::WaitDie };
    let overdue = table.overdue(Duration::ZERO, |_| false);
    assert_eq!(overdue, [(branch(2), five.clone()), (branch(3), five.clone())]);
    let gone = table.overdue(Duration::MAX, |parked| *parked == branch(3));
    assert_eq!(gone, [(branch(3), five)]);
    assert_eq!(table.waiting(), 2, "looking changes nothing");
}
