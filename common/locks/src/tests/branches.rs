//! Branches of transactions: one manager alone, and several of which none sees what the
//! others do.

use std::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};

use dtc_protocol::{BranchId, CoordinatorId};
use proptest::prelude::*;

use super::{super::deadlock::blockers, Acquired::*, *};

type Table = Locks<BranchId>;

fn transaction(number: usize) -> TransactionId {
    id(number as u64)
}

fn branch_of(number: usize, branch: u32) -> BranchId {
    let coordinator = CoordinatorId::from_bytes([0xC0; 16]);
    BranchId { coordinator, transaction: transaction(number), number: branch }
}

fn branch(number: usize) -> BranchId {
    branch_of(number, 0)
}

fn table() -> Table {
    Locks::new(Deadlocks::WaitDie, usize::MAX, 0)
}

impl Table {
    fn want(&mut self, branch: BranchId, keys: &str) -> Acquired<BranchId> {
        self.acquire(NOW, branch, branch.transaction, &exclusive(keys))
    }

    fn gets(&mut self, branch: BranchId, keys: &str) {
        assert!(matches!(self.want(branch, keys), Granted(_)), "{branch} {keys}");
    }

    fn stands(&mut self, branch: BranchId, keys: &str) {
        assert_eq!(self.want(branch, keys), Waiting, "{branch} {keys}");
    }

    fn dies(&mut self, branch: BranchId, keys: &str, key: &str, by: BranchId, holds: bool) {
        let blocked = Blocked { key: key.into(), by, holds, policy: Deadlocks::WaitDie };
        assert_eq!(self.want(branch, keys), Deadlock(blocked), "{branch} {keys}");
    }

    fn over(&mut self, branch: BranchId) -> Vec<BranchId> {
        self.release_all(NOW, branch);
        let granted = self.take_ended().into_iter().map(|(owner, end)| {
            assert!(matches!(end, WaitEnd::Granted(_)), "{end:?}");
            owner
        });
        granted.collect()
    }
}

fn exclusive(keys: &str) -> Vec<(LockKey, LockMode)> {
    keys.split(' ').map(|key| (key.into(), LockMode::Exclusive)).collect()
}

#[test]
fn an_older_branch_waits_and_a_younger_one_dies() {
    let mut table = table();
    table.gets(branch(5), "a b");
    table.dies(branch(6), "c b", "b", branch(5), true);
    table.stands(branch(4), "b c");
    assert_eq!((table.held, table.figures.waiting), (2, 1));
    assert_eq!(table.over(branch(5)), [branch(4)]);
    assert_eq!((table.held, table.figures.waiting), (2, 0));
    assert_eq!(table.over(branch(4)), []);
    table.gets(branch(6), "c b");
}

#[test]
fn a_retry_has_the_age_of_the_first_try() {
    let mut table = table();
    table.gets(branch(5), "a");
    let retry = |number| (branch(number), transaction(4), exclusive("a"));
    let (nine, age, keys) = retry(9);
    assert_eq!(table.acquire(NOW, nine, age, &keys), Waiting);
    // Of one age, the one that came first is older.
    let (ten, ..) = retry(10);
    assert!(matches!(table.acquire(NOW, ten, age, &keys), Deadlock(it) if it.by == nine));
    let (eight, ..) = retry(8);
    assert_eq!(table.acquire(NOW, eight, age, &keys), Waiting);
}

#[test]
fn nobody_overtakes_who_waits_for_all_of_its_keys() {
    let mut table = table();
    table.gets(branch(5), "a");
    table.stands(branch(3), "a b");
    // b is free, and somebody was there before.
    table.dies(branch(4), "b", "b", branch(3), false);
    table.stands(branch(2), "b");
    assert_eq!(table.over(branch(5)), [branch(3)]);
    assert_eq!(table.over(branch(3)), [branch(2)]);
}

#[test]
fn a_branch_that_leaves_the_queue_lets_others_on() {
    let mut table = table();
    table.gets(branch(5), "a");
    table.stands(branch(3), "a b");
    table.stands(branch(2), "b");
    assert_eq!(table.over(branch(3)), [branch(2)]);
    assert_eq!((table.held, table.figures.waiting), (2, 0));
}

#[test]
fn branches_of_one_transaction_share_their_keys() {
    let mut table = table();
    table.gets(branch_of(5, 0), "a");
    table.stands(branch(3), "a");
    table.gets(branch_of(5, 1), "a");
    table.gets(branch_of(5, 2), "a");
    assert_eq!(table.over(branch_of(5, 0)), []);
    assert_eq!(table.over(branch_of(5, 2)), []);
    assert_eq!(table.over(branch_of(5, 1)), [branch(3)]);
}

#[test]
fn branches_of_one_transaction_wait_and_go_on_together() {
    let mut table = table();
    table.gets(branch(5), "a");
    table.gets(branch(6), "b");
    table.stands(branch_of(3, 0), "a b");
    table.stands(branch(2), "a");
    // Not behind the older one.
    table.stands(branch_of(3, 1), "a");
    table.stands(branch_of(3, 2), "a");
    assert_eq!(table.over(branch_of(3, 1)), []);
    table.stands(branch_of(3, 1), "a");
    assert_eq!(table.over(branch(5)), [branch_of(3, 2), branch_of(3, 1)], "they need no b");
    assert_eq!(table.over(branch(6)), [branch_of(3, 0)]);
    for number in [0, 1] {
        assert_eq!(table.over(branch_of(3, number)), []);
    }
    assert_eq!(table.over(branch_of(3, 2)), [branch(2)]);
}

#[test]
fn a_branch_whose_sibling_holds_a_key_waits_for_nobody_behind_it() {
    let mut table = table();
    table.gets(branch(6), "b");
    table.gets(branch_of(5, 0), "a");
    table.stands(branch(3), "a");
    table.stands(branch_of(5, 1), "a b");
    assert_eq!(table.over(branch_of(5, 0)), []);
    assert_eq!(table.over(branch(6)), [branch_of(5, 1)]);
    assert_eq!(table.over(branch_of(5, 1)), [branch(3)]);
}

#[test]
fn a_branch_whose_decision_has_come_may_be_waited_for_by_all() {
    let mut table = table();
    table.gets(branch(5), "a");
    table.decide(branch(5));
    table.stands(branch(6), "a");
    table.dies(branch(7), "a", "a", branch(6), false);
    table.gets(branch_of(4, 0), "b");
    table.stands(branch_of(4, 1), "a b");
    table.decide(branch_of(4, 0));
    table.dies(branch(7), "b", "b", branch_of(4, 1), false);
    // It goes before who waits, and refuses nobody that waits already.
    table.gets(branch_of(5, 1), "a");
    assert_eq!(table.over(branch(5)), []);
    assert_eq!(table.over(branch_of(5, 1)), [branch(6)]);
    assert_eq!(table.over(branch(6)), [branch_of(4, 1)]);
}

#[test]
fn what_is_restored_is_held_even_where_it_disagrees() {
    let mut table = table();
    let held = |key: &str| [HeldLock { key: key.into(), mode: LockMode::Exclusive, token: 0 }];
    table.restore(NOW, branch(5), transaction(5), &held("a"));
    table.restore(NOW, branch(6), transaction(6), &held("a"));
    assert_eq!(table.held, 2);
    table.stands(branch(4), "a");
    assert_eq!(table.over(branch(5)), []);
    assert_eq!(table.over(branch(6)), [branch(4)]);
}

#[test]
fn siblings_that_share_a_key_do_not_wait_for_one_that_wants_it_alone() {
    let mut table = table();
    let share = |table: &mut Table, branch: BranchId| {
        let wants = [(LockKey::from("a"), LockMode::Shared)];
        table.acquire(NOW, branch, branch.transaction, &wants)
    };
    table.gets(branch_of(9, 0), "a");
    assert!(matches!(share(&mut table, branch_of(9, 1)), Granted(_)));
    assert_eq!(share(&mut table, branch(5)), Waiting, "one of them holds it alone");
    table.stands(branch_of(3, 0), "a");
    assert_eq!(share(&mut table, branch_of(3, 1)), Waiting);
    assert_eq!(table.over(branch_of(9, 0)), [branch(5), branch_of(3, 1)]);
    assert!(matches!(share(&mut table, branch_of(3, 2)), Granted(_)));
    assert_eq!(table.over(branch(5)), []);
    assert_eq!(table.over(branch_of(9, 1)), [branch_of(3, 0)]);
}

const PARTICIPANTS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Unsent,
    Waiting,
    Voted,
    Refused,
    /// The decision has come, and is not durable yet.
    Decided,
    Over,
}

#[derive(Debug, Clone)]
struct Parts {
    age: TransactionId,
    /// At which participant, which keys, and how far it is.
    parts: Vec<(usize, String, Part)>,
    committed: Option<bool>,
}

/// Transactions with branches at several participants, and messages that arrive
/// in any order.
struct World {
    tables: [Table; PARTICIPANTS],
    transactions: BTreeMap<TransactionId, Parts>,
}

impl World {
    fn new(plans: &[Vec<(usize, Vec<u8>)>]) -> Self {
        let keys = |keys: &[u8]| keys.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        let parts = |plan: &Vec<(usize, Vec<u8>)>| {
            plan.iter().map(|(at, wants)| (*at, keys(wants), Part::Unsent)).collect()
        };
        let transactions = plans.iter().enumerate().map(|(number, plan)| {
            let age = transaction(number);
            (age, Parts { age, parts: parts(plan), committed: None })
        });
        Self { tables: [(); PARTICIPANTS].map(|()| table()), transactions: transactions.collect() }
    }

    fn part(&mut self, branch: &BranchId) -> &mut Part {
        let parts = &mut self.transactions.get_mut(&branch.transaction).unwrap().parts;
        &mut parts[branch.number as usize].2
    }

    /// All that may happen next.
    fn next(&self) -> Vec<BranchId> {
        let mut next = Vec::new();
        for (transaction, it) in &self.transactions {
            for (number, (.., part)) in (0..).zip(&it.parts) {
                let may = match part {
                    Part::Unsent | Part::Decided => true,
                    Part::Waiting | Part::Voted | Part::Refused => it.committed.is_some(),
                    Part::Over => false,
                };
                if may {
                    next.push(BranchId { transaction: *transaction, number, ..branch(0) });
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
        let next = match part {
            // A tombstone refuses it.
            Part::Unsent if decided => Part::Over,
            Part::Unsent => match self.tables[at].acquire(NOW, branch, age, &exclusive(&keys)) {
                Granted(_) => Part::Voted,
                Waiting => Part::Waiting,
                Deadlock(blocked) => {
                    let other = &self.transactions[&blocked.by.transaction];
                    assert!((other.age, blocked.by) < (age, branch), "only by an older one");
                    Part::Refused
                }
                Full => panic!("there is room"),
            },
            Part::Waiting | Part::Voted | Part::Refused => {
                self.tables[at].decide(branch);
                Part::Decided
            }
            Part::Decided => Part::Over,
            Part::Over => unreachable!("nothing happens to it"),
        };
        *self.part(&branch) = next;
        self.decide(branch.transaction);
        if part == Part::Decided {
            self.release(at, branch);
        }
    }

    fn release(&mut self, at: usize, branch: BranchId) {
        for next in self.tables[at].over(branch) {
            match *self.part(&next) {
                Part::Waiting => {
                    *self.part(&next) = Part::Voted;
                    self.decide(next.transaction);
                }
                // A tombstone refuses it.
                Part::Decided => self.release(at, next),
                part => panic!("{next} waited and is {part:?}"),
            }
        }
    }

    fn decide(&mut self, transaction: TransactionId) {
        let it = self.transactions.get_mut(&transaction).unwrap();
        if it.committed.is_some() {
        } else if it.parts.iter().any(|(.., part)| *part == Part::Refused) {
            it.committed = Some(false);
        } else if it.parts.iter().all(|(.., part)| *part == Part::Voted) {
            it.committed = Some(true);
        }
    }

    fn check(&self) {
        let mut waits: BTreeMap<TransactionId, BTreeSet<TransactionId>> = BTreeMap::new();
        for table in &self.tables {
            for (name, key) in &table.keys {
                let holders: BTreeSet<_> =
                    key.holders.iter().map(|(it, _)| it.transaction).collect();
                assert!(holders.len() <= 1, "{name} is held by {holders:?}");
                assert!(!key.is_unused(), "'{name}' is left over");
            }
            for (branch, known) in &table.owners {
                let Some(request) = &known.waits else { continue };
                assert!(table.blocked(*branch).is_some(), "{branch} is forgotten in its queue");
                for want in &request.wants {
                    for (other, _) in blockers(&table.keys[&want.key], *branch, want) {
                        // A decision ends a wait, whoever is waited for.
                        let open =
                            |it: &BranchId| self.transactions[&it.transaction].committed.is_none();
                        if !open(branch) || !open(&other) {
                            continue;
                        }
                        let older = (known.age, *branch) < (table.owners[&other].age, other);
                        assert!(older, "{branch} waits for {other}, which is older");
                        waits.entry(branch.transaction).or_default().insert(other.transaction);
                    }
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
            prop_assert_eq!((table.held, table.wanted, table.figures.waiting), (0, 0, 0));
            prop_assert!(table.owners.is_empty() && table.keys.is_empty());
        }
        // The oldest dies of nobody.
        prop_assert_eq!(world.transactions[&transaction(0)].committed, Some(true));
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
                world.transactions.insert(transaction(1000 * round + world.transactions.len()), again);
            }
        }
    }
}
