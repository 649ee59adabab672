//! A true history is found good, and each false one bad, for the right reason.

use super::*;
use crate::workload::{
    witness::{KeyUse, Remembered, Witness},
    work::{Errand, MoneyPart, OrderPart, StockPart, Work},
};

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);

/// Two purchases of three teapots for 300: the first committed, the second aborted.
struct Environment {
    cases: Vec<Case>,
    opening: Opening,
    books: Books,
    journals: Journals,
}

fn purchase(kind: Kind, name: &str) -> Case {
    let order =
        OrderPart { id: format!("order-{name}"), customer: "ada".into(), quantity: 3, total: 300 };
    let work = Work {
        stock: Some(StockPart::of("teapot", 3)),
        money: Some(MoneyPart::of("ada", 300)),
        order: Some(order),
        ..Work::default()
    };
    let with_key = kind == Kind::Order || kind == Kind::OverAsking;
    Case::new(kind, with_key.then(|| name.into()), work)
}

fn told(committed: bool, id: Uuid) -> Told {
    Told::Outcome { committed, id }
}

fn unknown(id: Uuid) -> Told {
    Told::Unknown { id: Some(id) }
}

fn row(amount: i64, version: i64) -> Row {
    Row { amount, promised: 0, version, checks: 0 }
}

fn good() -> Environment {
    let mut cases = vec![purchase(Kind::Order, "a"), purchase(Kind::Order, "b")];
    cases[0].told.push(told(true, FIRST));
    cases[1].told.push(told(false, SECOND));
    let books = Books {
        stock: [("teapot".into(), row(7, 2))].into(),
        accounts: [("ada".into(), row(700, 2))].into(),
        orders: [
            ("order-a".into(), (OrderState::Confirmed, 1)),
            ("order-b".into(), (OrderState::Cancelled, 0)),
        ]
        .into(),
        undecided: vec![("inventory", 0), ("payment", 0), ("order", 0)],
        unfinished: 0,
    };
    let journals = Journals {
        branches: [(FIRST, (3, 0)), (SECOND, (0, 2))].into(),
        decisions: [(FIRST, (true, 3)), (SECOND, (false, 3))].into(),
        ..Journals::default()
    };
    let opening =
        Opening { stock: [("teapot".into(), 10)].into(), accounts: [("ada".into(), 1000)].into() };
    Environment { cases, opening, books, journals }
}

/// What the checker finds once `change` has made it false.
fn found(change: impl FnOnce(&mut Environment)) -> Vec<Violation> {
    let mut environment = good();
    change(&mut environment);
    let mut found: Vec<_> = environment
        .cases
        .iter()
        .flat_map(|case| check_case(case, environment.journals.witness.as_ref()))
        .collect();
    found.extend(check_books(
        &environment.cases,
        &environment.opening,
        &environment.books,
        &environment.journals,
    ));
    found.extend(check_journals(&environment.cases, &environment.journals));
    found
}

/// One violation at least, and all of this kind.
macro_rules! assert_only {
    ($found:expr, $kind:ident) => {{
        let found = $found;
        assert!(!found.is_empty(), "nothing was found");
        for violation in &found {
            assert!(matches!(violation, Violation::$kind(_)), "{found:#?}");
        }
    }};
}

#[test]
fn a_true_history_is_good() {
    assert_eq!(found(|_| {}), []);
    // What was told twice, and what nobody was told about.
    assert_eq!(found(|environment| environment.cases[0].told.push(told(true, FIRST))), []);
    let without_key = |environment: &mut Environment| {
        environment.cases[0] = purchase(Kind::WithoutKey, "a");
        environment.cases[1] = purchase(Kind::WithoutKey, "b");
    };
    assert_eq!(found(without_key), []);
    // Aborted and unknown later: presumed abort, for want of a key.
    let forgotten = |environment: &mut Environment| {
        environment.cases[1] = purchase(Kind::WithoutKey, "b");
        environment.cases[1].told = vec![told(false, SECOND), unknown(SECOND)];
    };
    assert_eq!(found(forgotten), []);
}

#[test]
fn one_answer_against_another() {
    assert_only!(found(|it| it.cases[0].told.push(told(false, FIRST))), Contradiction);
    assert_only!(found(|it| it.cases[1].told.push(told(true, SECOND))), Contradiction);
    // Another run of the same key.
    assert_only!(found(|it| it.cases[0].told.push(told(true, SECOND))), Contradiction);
}

#[test]
fn an_outcome_that_is_known_no_more() {
    assert_only!(found(|it| it.cases[0].told.push(unknown(FIRST))), Forgotten);
    assert_only!(found(|it| it.cases[1].told.push(unknown(SECOND))), Forgotten);
}

#[test]
fn broken_promises_reused_keys_and_nonsense() {
    assert_only!(found(|it| it.cases[0].told.push(Told::Heuristic("mixed".into()))), Heuristic);
    assert_only!(found(|it| it.cases[0].told.push(Told::OtherBodyAccepted)), KeyReused);
    assert_only!(found(|it| it.cases[0].told.push(Told::Nonsense("?".into()))), Nonsense);
}

#[test]
fn committed_though_it_had_to_be_refused_or_nobody_asked() {
    assert_only!(found(|it| it.cases[0].kind = Kind::OverAsking), Uncalled);
    let vanished = |it: &mut Environment| {
        it.cases[0].kind = Kind::Vanishing;
        it.cases[0].commit_asked = false;
    };
    assert_only!(found(vanished), Uncalled);
}

#[test]
fn an_outcome_that_never_became_known() {
    assert_only!(found(|it| it.cases[1].told.clear()), NeverKnown);
}

#[test]
fn told_committed_and_not_done() {
    let lost = |it: &mut Environment| {
        it.journals.branches.remove(&FIRST);
        it.journals.decisions.remove(&FIRST);
    };
    assert_only!(found(lost), Untrue);
    let partly = |it: &mut Environment| {
        it.journals.decisions.remove(&FIRST);
        it.journals.branches.insert(FIRST, (2, 0));
    };
    assert_only!(found(partly), Untrue);
}

#[test]
fn told_aborted_and_done() {
    let done = |it: &mut Environment| {
        it.journals.decisions.remove(&SECOND);
        it.journals.branches.insert(SECOND, (3, 0));
    };
    assert_only!(found(done), Untrue);
}

#[test]
fn committed_and_nobody_was_told_who_had_to_be() {
    let untold = |it: &mut Environment| {
        it.journals.branches.insert(Uuid::from_u128(3), (3, 0));
    };
    assert_only!(found(untold), Untrue);
}

#[test]
fn some_branches_committed_and_others_not() {
    let torn = |it: &mut Environment| {
        it.journals.branches.insert(Uuid::from_u128(3), (0, 3));
        it.journals.decisions.insert(Uuid::from_u128(3), (true, 3));
    };
    assert_only!(found(torn), Torn);
    let mixed = found(|it| {
        it.journals.branches.insert(FIRST, (2, 1));
    });
    assert!(mixed.iter().any(|it| matches!(it, Violation::Torn(_))), "{mixed:#?}");
}

#[test]
fn stock_or_money_that_does_not_add_up() {
    for amount in [6, 8, 10, -1] {
        assert_only!(
            found(|it| it.books.stock.get_mut("teapot").unwrap().amount = amount),
            NotConserved
        );
    }
    for amount in [699, 701] {
        assert_only!(
            found(|it| it.books.accounts.get_mut("ada").unwrap().amount = amount),
            NotConserved
        );
    }
    // Twice, the second time with nothing.
    assert_only!(found(|it| it.books.stock.get_mut("teapot").unwrap().version = 3), NotConserved);
    assert_only!(found(|it| it.books.stock.clear()), NotConserved);
    let from_nowhere = |it: &mut Environment| {
        it.books.accounts.insert("bob".into(), row(1, 1));
    };
    assert_only!(found(from_nowhere), NotConserved);
}

#[test]
fn orders_that_are_not_those_of_the_committed() {
    let cancelled = (OrderState::Cancelled, 0);
    let confirmed = (OrderState::Confirmed, 1);
    let set = |it: &mut Environment, id: &str, state| {
        it.books.orders.insert(id.into(), state);
    };
    assert_only!(found(|it| set(it, "order-a", cancelled)), NotConserved);
    assert_only!(found(|it| set(it, "order-b", confirmed)), NotConserved);
    assert_only!(found(|it| set(it, "order-a", (OrderState::Confirmed, 2))), NotConserved);
    assert_only!(
        found(|it| {
            it.books.orders.remove("order-a");
        }),
        NotConserved
    );
    let twice = found(|it| {
        it.cases.push(purchase(Kind::Order, "a"));
        it.cases[2].told.push(told(true, Uuid::from_u128(3)));
        it.journals.branches.insert(Uuid::from_u128(3), (3, 0));
    });
    assert_only!(twice, NotConserved);
}

#[test]
fn something_that_is_not_over() {
    assert_only!(found(|it| it.books.undecided[1].1 = 1), Open);
    assert_only!(found(|it| it.books.unfinished = 1), Open);
    assert_only!(found(|it| it.books.stock.get_mut("teapot").unwrap().promised = 3), Open);
    assert_only!(found(|it| it.books.accounts.get_mut("ada").unwrap().checks = 1), Open);
    let pending = (OrderState::Pending, 0);
    assert_only!(
        found(|it| {
            it.books.orders.insert("order-b".into(), pending);
        }),
        Open
    );
}

#[test]
fn a_damaged_database() {
    assert_only!(found(|it| it.journals.damaged.push("wrong # of entries".into())), Damaged);
}

/// The first transaction, whose key is `a`, ended at 1,000; it was removed or not.
fn witness(removed_at: Option<i64>) -> Witness {
    let usage = KeyUse { id: FIRST, at: 900, removed_at };
    Witness {
        ended: [(FIRST, (1_000, removed_at))].into(),
        keys: [("a".into(), vec![usage])].into(),
        ..Witness::default()
    }
}

#[test]
fn what_was_forgotten_in_its_time_may_run_again() {
    let third = Uuid::from_u128(3);
    let again = |removed_at| {
        move |it: &mut Environment| {
            let mut witness = witness(removed_at);
            let usage = KeyUse { id: third, at: 9_000, removed_at: None };
            witness.keys.get_mut("a").unwrap().push(usage);
            it.journals.witness = Some(witness);
            it.cases[0].work.order = None;
            it.cases[0].told.push(told(true, third));
            it.books.orders.remove("order-a");
            it.journals.branches = [(FIRST, (2, 0)), (third, (2, 0)), (SECOND, (0, 2))].into();
            let decisions = [(FIRST, (true, 2)), (third, (true, 2)), (SECOND, (false, 3))];
            it.journals.decisions = decisions.into();
            *it.books.stock.get_mut("teapot").unwrap() = row(4, 3);
            *it.books.accounts.get_mut("ada").unwrap() = row(400, 3);
        }
    };
    assert_eq!(found(again(Some(8_000))), []);
    assert_only!(found(again(None)), Contradiction);
    // Somebody asks about the run that is forgotten.
    let late = |it: &mut Environment| {
        again(Some(8_000))(it);
        it.cases[0].told.push(unknown(FIRST));
    };
    assert_eq!(found(late), []);
    let asked = |removed_at| {
        move |it: &mut Environment| {
            it.journals.witness = Some(witness(removed_at));
            it.cases[0].told.push(unknown(FIRST));
        }
    };
    assert_eq!(found(asked(Some(8_000))), []);
    assert_only!(found(asked(None)), Forgotten);
}

#[test]
fn what_was_forgotten_too_early() {
    let second = std::time::Duration::from_secs(1);
    let (coordinator, participants) = (60 * second, 60 * second);
    let minute = Remembered { coordinator, participants, on_its_way: 2 * second };
    let mut early = witness(Some(30_000));
    early.check_coordinator(minute);
    assert_eq!(early.too_early.len(), 1);
    let mut late = witness(Some(61_000));
    late.check_coordinator(minute);
    assert_eq!(late.too_early, [""; 0]);
    // At a participant: too soon after the end, before the end, and in time.
    for (removed_at, unfinished, count) in
        [(30_000, vec![], 1), (90_000, vec![SECOND], 2), (90_000, vec![], 0)]
    {
        let mut witness = witness(None);
        let decided = [FIRST, SECOND].map(|id| (id, true, 500, Some(removed_at)));
        let decided = if count == 1 { &decided[..1] } else { &decided[..] };
        witness.check_participant("inventory", decided, &unfinished, minute);
        assert_eq!(witness.too_early.len(), count.min(1), "{:?}", witness.too_early);
    }
    let told = |it: &mut Environment| {
        let too_early = vec!["a branch".into()];
        it.journals.witness = Some(Witness { too_early, ..witness(None) });
    };
    assert_only!(found(told), TooEarly);
}

#[test]
fn a_repeat_that_is_refused() {
    let refused = |asked_at| {
        move |it: &mut Environment| {
            it.journals.witness = Some(witness(None));
            it.cases[0].told.push(Told::Refused { asked_at, why: "too large".into() });
        }
    };
    assert_only!(found(refused(2_000)), RepeatRefused);
    // The first call was on its way yet.
    assert_eq!(found(refused(800)), []);
    let never = |it: &mut Environment| {
        it.journals.witness = Some(witness(None));
        it.cases.push(purchase(Kind::Order, "c"));
        it.cases[2].told.push(Told::Refused { asked_at: 5_000, why: "too large".into() });
    };
    assert_eq!(found(never), []);
}

#[test]
fn the_branches_of_neighbours_count() {
    let errand = |it: &mut Environment| {
        let errand = Errand { participant: "vouchers", bytes: 3 };
        it.cases[0].work.errands.push(errand);
        it.journals.decisions.insert(FIRST, (true, 4));
    };
    assert!(!found(errand).is_empty());
    let done = |it: &mut Environment| {
        errand(it);
        it.journals.add_branch(FIRST, true);
    };
    assert_eq!(found(done), []);
    assert_only!(found(|it| it.journals.complaints.push("a commit".into())), Untrue);
}

#[test]
fn what_holds_after_a_restored_backup() {
    let found = |change: fn(&mut Environment)| {
        let mut environment = good();
        change(&mut environment);
        check_restored(&environment.cases, &environment.journals)
    };
    // In doubt at one, and the key ran again.
    let lost = |it: &mut Environment| {
        it.journals.branches.insert(FIRST, (2, 0));
        it.cases[0].told.push(told(true, Uuid::from_u128(3)));
    };
    assert_eq!(found(lost), []);
    let torn = |it: &mut Environment| {
        it.journals.branches.insert(Uuid::from_u128(3), (1, 2));
    };
    assert_only!(found(torn), Torn);
    let rolled_back = |it: &mut Environment| {
        it.journals.branches.insert(FIRST, (0, 3));
    };
    assert_only!(found(rolled_back), Untrue);
    let committed = |it: &mut Environment| {
        it.journals.branches.insert(SECOND, (1, 0));
    };
    assert_only!(found(committed), Untrue);
}
