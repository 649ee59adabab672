//! The table alone, and several tables that transactions with branches at several
//! participants wait at.

use std::collections::BTreeMap;

use proptest::prelude::*;

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
type Table = Locks<BranchId>;

impl Table {
    fn want(&mut self, branch: BranchId, text: &str) -> Result<Claimed, ClaimError> {
        let claimed = self.claim(&branch, branch.transaction, keys(text));
        if claimed == Ok(Waits) {
            assert_eq!(self.park(&branch, branch, 1, |_, _| {}), None);
        }
        claimed
    }
}

fn deadlock(key: &str, with: BranchId, holds: bool) -> Result<Claimed, ClaimError> {
    Err(ClaimError::Deadlock(Obstacle { key: key.into(), branch: with, holds }))
}

#[test]
fn an_older_branch_waits_and_a_younger_one_dies() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a b"), Ok(Granted));
    assert_eq!(table.want(branch(6), "c b"), deadlock("b", branch(5), true));
    assert_eq!(table.want(branch(4), "b c"), Ok(Waits));
    assert_eq!((table.held(), table.waiting()), (2, 1));
    assert_eq!(table.release(&branch(5)), [branch(4)]);
    assert_eq!((table.held(), table.waiting()), (2, 0));
    assert_eq!(table.release(&branch(4)), []);
    assert_eq!(table.want(branch(6), "c b"), Ok(Granted));
}

#[test]
fn a_retry_has_the_age_of_the_first_try() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    assert_eq!(table.claim(&branch(9), transaction(4), keys("a")), Ok(Waits));
    // Of one age, the one that came first is older.
    let younger = table.claim(&branch(10), transaction(4), keys("a"));
    assert_eq!(younger, deadlock("a", branch(9), false));
    assert_eq!(table.claim(&branch(8), transaction(4), keys("a")), Ok(Waits));
}

#[test]
fn nobody_overtakes_who_waits_for_all_of_its_keys() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    assert_eq!(table.want(branch(3), "a b"), Ok(Waits));
    // b is free, and somebody was there before.
    assert_eq!(table.want(branch(4), "b"), deadlock("b", branch(3), false));
    assert_eq!(table.want(branch(2), "b"), Ok(Waits));
    assert_eq!(table.release(&branch(5)), [branch(3)]);
    assert_eq!(table.release(&branch(3)), [branch(2)]);
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
fn branches_of_one_transaction_share_their_keys() {
    let mut table = Table::default();
    assert_eq!(table.want(branch_of(5, 0), "a"), Ok(Granted));
    assert_eq!(table.want(branch(3), "a"), Ok(Waits));
    assert_eq!(table.want(branch_of(5, 1), "a"), Ok(Granted));
    assert_eq!(table.release(&branch_of(5, 0)), []);
    assert_eq!(table.release(&branch_of(5, 1)), [branch(3)]);
}

#[test]
fn branches_of_one_transaction_wait_and_go_on_together() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    assert_eq!(table.want(branch_of(3, 0), "a b"), Ok(Waits));
    assert_eq!(table.want(branch(2), "a"), Ok(Waits));
    assert_eq!(table.want(branch_of(3, 1), "a"), Ok(Waits), "and not behind the older one");
    assert_eq!(table.release(&branch(5)), [branch_of(3, 0), branch_of(3, 1)]);
    assert_eq!(table.release(&branch_of(3, 0)), []);
    assert_eq!(table.release(&branch_of(3, 1)), [branch(2)]);
}

#[test]
fn whoever_is_decided_may_be_waited_for() {
    let mut table = Table::default();
    assert_eq!(table.want(branch(5), "a"), Ok(Granted));
    table.decide(&branch(5));
    assert_eq!(table.want(branch(6), "a"), Ok(Waits));
    assert_eq!(table.want(branch(7), "a"), deadlock("a", branch(6), false));
    assert_eq!(table.release(&branch(5)), [branch(6)]);
}

#[test]
fn a_duplicate_takes_the_place_of_the_earlier_attempt() {
    let mut table = Locks::<&str>::default();
    let claim = |table: &mut Locks<_>, number, text| {
        table.claim(&branch(number), transaction(number), keys(text))
    };
    assert_eq!(claim(&mut table, 5, "a"), Ok(Granted));
    assert_eq!(claim(&mut table, 5, "a a"), Ok(Granted));
    assert_eq!(claim(&mut table, 5, "b"), Err(ClaimError::OtherKeys));
    assert_eq!(claim(&mut table, 4, "a"), Ok(Waits));
    assert_eq!(table.park(&branch(4), "first", 10, |_, _| {}), None);
    assert_eq!(claim(&mut table, 4, "a"), Ok(Waits));
    assert_eq!(table.park(&branch(4), "second", 20, |_, _| {}), None);
    assert_eq!(table.bytes, 20);
    assert_eq!(table.release(&branch(5)), ["second"]);
    assert_eq!(table.bytes, 0);
    assert_eq!(
        table.park(&branch(4), "late", 30, |_, _| {}),
        Some("late"),
        "it need not wait any more"
    );
    assert_eq!(table.park(&branch(9), "gone", 30, |_, _| {}), Some("gone"));
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
    assert_eq!(table.park(&branch(8), branch(8), BYTES, |_, _| {}), None);
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
    let on = |number, holds| Obstacle { key: "a".into(), branch: branch(number), holds };
    let overdue = table.overdue(|_| true);
    assert_eq!(overdue, [(branch(2), on(5, true)), (branch(3), on(5, true))]);
    assert_eq!(table.overdue(|parked| *parked == branch(3)), [(branch(3), on(5, true))]);
    assert_eq!(table.waiting(), 2, "looking changes nothing");
}

const PARTICIPANTS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Unsent,
    Waiting,
    Voted,
    Refused,
    /// The decision has come, and is not durable yet.
    Told,
    Over,
}

#[derive(Debug, Clone)]
struct Parts {
    age: TransactionId,
    /// At which participant, which keys, and how far it is.
    parts: Vec<(usize, Vec<String>, Part)>,
    committed: Option<bool>,
}

/// Transactions with branches at several participants, and messages that arrive
/// in any order.
struct World {
    tables: [Table; PARTICIPANTS],
    transactions: BTreeMap<TransactionId, Parts>,
}

fn id(number: usize) -> TransactionId {
    TransactionId::from_bytes((number as u128).to_be_bytes())
}

impl World {
    fn new(plans: &[Vec<(usize, Vec<u8>)>]) -> Self {
        let parts = |plan: &Vec<(usize, Vec<u8>)>| {
            let keys = |keys: &[u8]| keys.iter().map(|key| format!("k{key}")).collect();
            plan.iter().map(|(at, wants)| (*at, keys(wants), Part::Unsent)).collect()
        };
        let transactions = plans.iter().enumerate().map(|(number, plan)| {
            (id(number), Parts { age: id(number), parts: parts(plan), committed: None })
        });
        Self { tables: Default::default(), transactions: transactions.collect() }
    }

    fn branch(transaction: TransactionId, number: usize) -> BranchId {
        BranchId { transaction, number: number as u32, ..branch(0) }
    }

    fn part(&mut self, branch: &BranchId) -> &mut Part {
        let parts = &mut self.transactions.get_mut(&branch.transaction).unwrap().parts;
        &mut parts[branch.number as usize].2
    }

    /// All that may happen next.
    fn next(&self) -> Vec<BranchId> {
        let mut next = Vec::new();
        for (transaction, it) in &self.transactions {
            for (number, (.., part)) in it.parts.iter().enumerate() {
                let may = match part {
                    Part::Unsent | Part::Told => true,
                    Part::Waiting | Part::Voted | Part::Refused => it.committed.is_some(),
                    Part::Over => false,
                };
                if may {
                    next.push(Self::branch(*transaction, number));
                }
            }
        }
        next
    }

    /// Something happens to a branch: its prepare arrives, its decision does, or
    /// that is durable.
    fn step(&mut self, branch: BranchId) {
        let it = &self.transactions[&branch.transaction];
        let (at, keys, part) = it.parts[branch.number as usize].clone();
        let (age, decided) = (it.age, it.committed.is_some());
        match part {
            // A tombstone refuses it.
            Part::Unsent if decided => *self.part(&branch) = Part::Over,
            Part::Unsent => {
                *self.part(&branch) = match self.tables[at].claim(&branch, age, keys) {
                    Ok(Granted) => {
                        assert!(self.tables[at].promise(&branch));
                        Part::Voted
                    }
                    Ok(Waits) => {
                        assert_eq!(self.tables[at].park(&branch, branch, 1, |_, _| {}), None);
                        Part::Waiting
                    }
                    Err(ClaimError::Deadlock(obstacle)) => {
                        let other = &self.transactions[&obstacle.branch.transaction];
                        let own = rank(&branch, age);
                        assert!(rank(&obstacle.branch, other.age) < own, "only by an older one");
                        Part::Refused
                    }
                    Err(other) => panic!("{other:?}"),
                };
                self.decide(branch.transaction);
            }
            Part::Waiting | Part::Voted | Part::Refused => {
                self.tables[at].decide(&branch);
                *self.part(&branch) = Part::Told;
            }
            Part::Told => {
                let going_on = self.tables[at].release(&branch);
                *self.part(&branch) = Part::Over;
                for next in going_on.into_iter().filter(|next| *next != branch) {
                    self.goes_on(at, next);
                }
            }
            Part::Over => unreachable!("nothing happens to it"),
        }
    }

    fn goes_on(&mut self, at: usize, branch: BranchId) {
        // Its tombstone may be there already.
        match *self.part(&branch) {
            Part::Waiting => {
                assert!(self.tables[at].promise(&branch));
                *self.part(&branch) = Part::Voted;
                self.decide(branch.transaction);
            }
            Part::Told => {
                let going_on = self.tables[at].give_back(&branch);
                for next in going_on {
                    self.goes_on(at, next);
                }
            }
            part => panic!("{branch} was parked and is {part:?}"),
        }
    }

    fn decide(&mut self, transaction: TransactionId) {
        let it = self.transactions.get_mut(&transaction).unwrap();
        if it.parts.iter().any(|(.., part)| *part == Part::Refused) {
            it.committed = Some(false);
        } else if it.parts.iter().all(|(.., part)| *part == Part::Voted) {
            it.committed = Some(true);
        }
    }

    fn check(&self) {
        let mut waits: BTreeMap<TransactionId, BTreeSet<TransactionId>> = BTreeMap::new();
        for table in &self.tables {
            for (key, line) in &table.lines {
                let holds = |it: &&BranchId| table.claims[*it].standing != Standing::Waiting;
                let holders: BTreeSet<_> =
                    line.iter().filter(holds).map(|it| it.transaction).collect();
                assert!(holders.len() <= 1, "{key} is held by {holders:?}");
            }
            for branch in &table.waiting {
                assert!(table.waits_for(branch).is_some(), "{branch} is forgotten in its line");
                let claim = &table.claims[branch];
                for other in claim.keys.iter().flat_map(|key| table.ahead(key, branch)) {
                    // A decision ends a wait, whoever is waited for.
                    let open =
                        |it: &BranchId| self.transactions[&it.transaction].committed.is_none();
                    if !open(branch) || !open(other) {
                        continue;
                    }
                    let older = rank(branch, claim.age) < rank(other, table.claims[other].age);
                    assert!(older, "{branch} waits for {other}, which is older");
                    waits.entry(branch.transaction).or_default().insert(other.transaction);
                }
            }
        }
        // Whoever waits for nobody is taken away, until nobody is left.
        while !waits.is_empty() {
            let waiting: BTreeSet<_> = waits.keys().copied().collect();
            waits.values_mut().for_each(|others| others.retain(|other| waiting.contains(other)));
            let before = waits.len();
            waits.retain(|_, others| !others.is_empty());
            assert!(waits.len() < before, "a circle: {waits:?}");
        }
    }

    /// Runs to the end by these choices, which begin anew when they are used up.
    fn run(&mut self, choices: &[usize]) {
        for choice in choices.iter().cycle() {
            let next = self.next();
            if next.is_empty() {
                return;
            }
            self.step(next[choice % next.len()]);
            self.check();
        }
    }
}

fn plans() -> impl Strategy<Value = Vec<Vec<(usize, Vec<u8>)>>> {
    let part = (0..PARTICIPANTS, prop::collection::vec(0..4_u8, 1..4));
    prop::collection::vec(prop::collection::vec(part, 1..4), 2..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_circle_lasts_and_nobody_is_forgotten(
        plans in plans(),
        choices in prop::collection::vec(any::<usize>(), 1..60),
    ) {
        let mut world = World::new(&plans);
        world.run(&choices);
        for (transaction, it) in &world.transactions {
            prop_assert!(it.committed.is_some(), "{} is not decided: {:?}", transaction, it);
        }
        for table in &world.tables {
            prop_assert_eq!((table.held, table.bytes, table.waiting.len()), (0, 0, 0));
            prop_assert!(table.claims.is_empty() && table.lines.is_empty());
        }
        // The oldest dies of nobody.
        prop_assert_eq!(world.transactions[&id(0)].committed, Some(true));
    }

    #[test]
    fn all_come_to_an_end_who_try_again_with_their_age(
        plans in plans(),
        choices in prop::collection::vec(any::<usize>(), 1..60),
    ) {
        let mut world = World::new(&plans);
        for round in 1.. {
            world.run(&choices);
            let aborted: Vec<_> = world.transactions.values()
                .filter(|it| it.committed == Some(false)).cloned().collect();
            // Each round at least the oldest of those that are left ends.
            prop_assert!(aborted.len() + round <= plans.len());
            if aborted.is_empty() {
                break;
            }
            world.transactions.retain(|_, it| it.committed == Some(true));
            for it in aborted {
                let parts = it.parts.into_iter().map(|(at, keys, _)| (at, keys, Part::Unsent));
                let again = Parts { parts: parts.collect(), committed: None, ..it };
                world.transactions.insert(id(1000 * round + world.transactions.len()), again);
            }
        }
    }
}
