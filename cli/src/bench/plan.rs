//! What is ordered. Each order follows from its number alone, so nothing has to
//! be kept of it.

use std::fmt;

use dtc_proto::dtc::AnswerAt;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{args::Load, choice::Control, kind::Kind};

/// In every stock: less than one order may ask for, more than all will get.
pub(crate) const STOCK: i64 = 900_000_000;
/// The largest quantity that a line may have.
pub(crate) const TOO_MUCH_STOCK: i64 = 1_000_000_000;
/// On every account, in minor units.
pub(crate) const MONEY: i64 = 1_000_000_000_000_000;
pub(crate) const TOO_MUCH_MONEY: i64 = 2_000_000_000_000_000;
/// What one order takes of one SKU.
pub(crate) const QUANTITY: i64 = 1;
/// And of one account, in minor units.
pub(crate) const AMOUNT: i64 = 250;
pub(crate) const CURRENCY: &str = "EUR";

/// One run of the program: in the names of everything that it makes, so that
/// runs on the same data don't collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId(u32);

impl RunId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What the orders of a run look like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) run: RunId,
    /// Of each branch.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) keys: bool,
    /// Whether SKUs and accounts are locked.
    pub(crate) locks: bool,
    pub(crate) answer_at: AnswerAt,
    pub(crate) items: u32,
    pub(crate) accounts: u32,
    skew: f64,
    aborts: f64,
}

/// One order. Its branches are in groups, with a SKU, an account and an order id
/// each: those of group `n` are the `n`th after the first group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) number: u64,
    pub(crate) sku: u32,
    pub(crate) account: u32,
    pub(crate) excess: Option<Excess>,
}

/// What an order asks too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Stock,
    Money,
}

impl Plan {
    pub(crate) fn new(load: &Load, kinds: Vec<Kind>, run: RunId) -> Self {
        Self {
            run,
            kinds,
            keys: load.has_keys(),
            locks: load.control == Control::Locks,
            answer_at: load.answer_at.into(),
            items: load.items,
            accounts: load.accounts,
            skew: load.skew,
            aborts: load.aborts,
        }
    }

    /// The order with this number.
    pub(crate) fn order(&self, number: u64) -> Order {
        let mut random = SmallRng::seed_from_u64(u64::from(self.run.0) << 32 ^ number);
        let hot = random.random_bool(self.skew);
        let mut pick = |count| if hot { 0 } else { random.random_range(0..count) };
        let (sku, account) = (pick(self.items), pick(self.accounts));
        let excess = random.random_bool(self.aborts).then(|| self.excess(number)).flatten();
        Order { number, sku, account, excess }
    }

    /// Stock and money in turn, where there are both.
    fn excess(&self, number: u64) -> Option<Excess> {
        let has = |kind| self.kinds.contains(&kind);
        match (has(Kind::Inventory), has(Kind::Payment)) {
            (true, true) if number.is_multiple_of(2) => Some(Excess::Stock),
            (true, false) => Some(Excess::Stock),
            (_, true) => Some(Excess::Money),
            (false, false) => None,
        }
    }

    /// Each branch's kind and the group it is in.
    pub(crate) fn branches(&self) -> impl Iterator<Item = (Kind, u32)> {
        let mut seen = [0; 3];
        self.kinds.iter().map(move |kind| {
            let next = &mut seen[*kind as usize];
            *next += 1;
            (*kind, *next - 1)
        })
    }

    /// How many branches are of this kind.
    pub(crate) fn count(&self, kind: Kind) -> u32 {
        self.kinds.iter().filter(|it| **it == kind).count() as u32
    }

    /// The SKU of one group of an order, by its index.
    pub(crate) fn sku(&self, order: &Order, group: u32) -> u32 {
        (order.sku + group) % self.items
    }

    /// The account of one group of an order, by its index.
    pub(crate) fn account(&self, order: &Order, group: u32) -> u32 {
        (order.account + group) % self.accounts
    }

    /// Every order id of the run begins with it.
    pub(crate) fn order_prefix(&self) -> String {
        format!("{}-", self.run)
    }

    /// The id of one group's order.
    pub(crate) fn order_id(&self, number: u64, group: u32) -> String {
        format!("{}-{number:012x}-{group:02x}", self.run)
    }

    /// The key of a transaction.
    pub(crate) fn request_key(&self, number: u64) -> String {
        format!("bench-{}-{number:012x}", self.run)
    }
}

/// A SKU's name.
pub(crate) fn sku_name(index: u32) -> String {
    format!("bench-sku-{index:07}")
}

/// An account's name.
pub(crate) fn account_name(index: u32) -> String {
    format!("bench-account-{index:07}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::args::Args;

    const ORDERS: u64 = 20_000;

    fn plan(flags: &[&str]) -> Plan {
        let flags = ["bench", "--items", "100", "--accounts", "50"].iter().chain(flags);
        let load = Args::parse_from(flags).load;
        Plan::new(&load, load.kinds(), RunId(7))
    }

    fn share(plan: &Plan, what: impl Fn(&Order) -> bool) -> f64 {
        let count = (0..ORDERS).filter(|number| what(&plan.order(*number))).count();
        count as f64 / ORDERS as f64
    }

    fn is_about(share: f64, expected: f64) {
        assert!((share - expected).abs() < 0.015, "{share} instead of {expected}");
    }

    #[test]
    fn the_skew_is_the_share_that_goes_to_one_sku_and_one_account() {
        for (skew, sku, both) in [("0", 0.01, 0.0002), ("0.4", 0.406, 0.4), ("1", 1.0, 1.0)] {
            let plan = plan(&["--skew", skew]);
            is_about(share(&plan, |order| order.sku == 0), sku);
            is_about(share(&plan, |order| order.sku == 0 && order.account == 0), both);
        }
        let even = plan(&[]);
        for index in 0..100 {
            is_about(share(&even, |order| order.sku == index), 0.01);
        }
    }

    #[test]
    fn so_many_orders_ask_for_too_much_of_what_there_is() {
        let both = plan(&["--aborts", "0.5"]);
        is_about(share(&both, |order| order.excess == Some(Excess::Stock)), 0.25);
        is_about(share(&both, |order| order.excess == Some(Excess::Money)), 0.25);
        let money = plan(&["--aborts", "0.5", "--participants", "order,payment"]);
        is_about(share(&money, |order| order.excess == Some(Excess::Money)), 0.5);
        is_about(share(&money, |order| order.excess == Some(Excess::Stock)), 0.0);
    }

    #[test]
    fn an_order_is_always_the_same_and_its_groups_differ() {
        let plan = plan(&["--branches", "7"]);
        for number in 0..1000 {
            let order = plan.order(number);
            assert_eq!(order, plan.order(number));
            let mut skus: Vec<u32> = (0..3).map(|group| plan.sku(&order, group)).collect();
            skus.sort_unstable();
            skus.dedup();
            assert_eq!(skus.len(), 3);
        }
        use Kind::{Inventory as I, Order as O, Payment as P};
        let branches: Vec<_> = plan.branches().collect();
        assert_eq!(branches, [(I, 0), (P, 0), (O, 0), (I, 1), (P, 1), (O, 1), (I, 2)]);
    }
}
