//! What there is to be had, and what a client wants of it.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{
    checker::Opening,
    history::{Case, Kind},
    work::{Errand, MoneyPart, OrderPart, StockPart, Work},
};

/// Plenty, wanted by everybody.
const HOT: i64 = 4;
/// A few of each: they run out.
const SCARCE: i64 = 60;
const SCARCE_STOCK: i64 = 40;
const PLENTY: i64 = 1_000_000_000;
/// More than a quantity may be, and than any account has.
const TOO_MUCH: i64 = 1_000_000_000;
const POOR_BALANCE: i64 = 20_000;

/// How far the run has come, from 0 to 1: other scarce things at other times.
pub(crate) type Progress = f64;

/// What a run's transactions may have beside the usual.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    /// Participants that are called, by their names, and the largest payload that
    /// each is sent.
    pub(crate) neighbours: Vec<(&'static str, u32)>,
    /// Other names for inventory, payment and order.
    pub(crate) names: [Vec<&'static str>; 3],
    /// Whether finished work is forgotten within the run.
    pub(crate) forgets: bool,
    /// Whether somebody often resolves, retries and forgets.
    pub(crate) operators: bool,
    /// Whether decisions may be lost, so that none may be compensated.
    pub(crate) loses: bool,
    /// Whether a call may be refused for what has changed since another.
    pub(crate) refuses: bool,
}

impl Extras {
    /// Draws what a transaction has of them.
    pub(crate) fn change(&self, case: &mut Case, random: &mut impl Rng) {
        if self.loses {
            case.work.compensate_after = 0;
        }
        for &(name, largest) in &self.neighbours {
            if case.kind != Kind::Compensable && random.random_bool(0.4) {
                let longest = if random.random_bool(0.05) { largest } else { 100 };
                let bytes = random.random_range(0..=longest);
                case.work.errands.push(Errand { participant: name, bytes });
            }
        }
        for (name, others) in case.work.names.iter_mut().zip(&self.names) {
            if !others.is_empty() && random.random_bool(0.5) {
                *name = Some(others[random.random_range(0..others.len())]);
            }
        }
    }
}

/// Stock and accounts before the first transaction.
pub(crate) fn opening() -> Opening {
    let mut opening = Opening::default();
    for number in 0..HOT {
        opening.stock.insert(format!("hot-{number}"), PLENTY - 1);
        opening.accounts.insert(format!("rich-{number}"), PLENTY * 1_000);
    }
    for number in 0..SCARCE {
        opening.stock.insert(format!("scarce-{number}"), SCARCE_STOCK);
        opening.accounts.insert(format!("poor-{number}"), POOR_BALANCE);
    }
    opening
}

/// A transaction of a kind; `name` is nobody else's.
pub(crate) fn case(kind: Kind, name: &str, progress: Progress, random: &mut impl Rng) -> Case {
    let mut work = purchase(name, progress, random);
    match kind {
        Kind::OneBranch => match random.random_range(0..3) {
            0 => (work.money, work.order) = (None, None),
            1 => (work.stock, work.order) = (None, None),
            _ => (work.stock, work.money) = (None, None),
        },
        Kind::WithoutKey if random.random_bool(0.3) => (work.stock, work.money) = (None, None),
        Kind::Reading => {
            if let Some(stock) = &mut work.stock {
                stock.check_only = true;
            }
            if random.random_bool(0.3) {
                (work.money, work.order) = (None, None);
            }
        }
        Kind::SameOrder => {
            if let Some(order) = &mut work.order {
                order.id = format!("same-{}", (progress * 300.0) as u64);
            }
        }
        Kind::OverAsking => over_ask(&mut work, random),
        Kind::Compensable => work.compensate_after = random.random_range(1..4),
        Kind::Locked => work.locks = work.contents(),
        _ => {}
    }
    let with_key = !matches!(kind, Kind::WithoutKey | Kind::Interactive | Kind::Vanishing);
    Case::new(kind, with_key.then(|| name.into()), work)
}

fn purchase(name: &str, progress: Progress, random: &mut impl Rng) -> Work {
    let current = |count: i64| ((progress * count as f64) as i64).clamp(0, count - 1);
    let sku = match random.random_bool(0.7) {
        true => format!("hot-{}", random.random_range(0..HOT)),
        false => format!("scarce-{}", current(SCARCE)),
    };
    let account = match random.random_bool(0.7) {
        true => format!("rich-{}", random.random_range(0..HOT)),
        false => format!("poor-{}", current(SCARCE)),
    };
    let quantity = random.random_range(1..4);
    let total = quantity * random.random_range(100..400);
    let order =
        OrderPart { id: format!("order-{name}"), customer: account.clone(), quantity, total };
    Work {
        stock: Some(StockPart::of(&sku, quantity)),
        money: Some(MoneyPart::of(&account, total)),
        order: Some(order),
        errands: Vec::new(),
        names: [None; 3],
        locks: Vec::new(),
        compensate_after: 0,
        prepare_timeout: Duration::from_millis(random.random_range(300..6_000)),
    }
}

fn over_ask(work: &mut Work, random: &mut impl Rng) {
    match random.random_range(0..6) {
        0 => work.stock = Some(StockPart::of("hot-0", TOO_MUCH)),
        1 => work.stock = Some(StockPart::of("nothing-like-it", 1)),
        2 => work.money = Some(MoneyPart::of("rich-0", TOO_MUCH * 2_000)),
        3 => work.money = Some(MoneyPart::of("nobody", 1)),
        4 => {
            if let Some(money) = &mut work.money {
                money.currency = "USD";
            }
        }
        _ => {
            if let Some(stock) = &mut work.stock {
                stock.quantity = 0;
            }
        }
    }
}
