//! The books: the stock, balances and orders that the services have to show at the end.

use std::sync::Arc;

use rand::RngExt;

use super::{
    kind::Kind,
    plan::{AMOUNT, Order, Plan, QUANTITY},
    tally::Answer,
};

/// Orders of each outcome that are looked at one by one when there are too many
/// to look at all.
const SAMPLE: usize = 1000;

/// What was committed, and what may have been.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    /// Sold, by SKU.
    pub(crate) stock: Vec<i64>,
    /// Paid, by account.
    pub(crate) money: Vec<i64>,
    /// Confirmed orders.
    pub(crate) orders: u64,
    /// Transactions.
    pub(crate) committed: u64,
    /// Some ids of confirmed orders.
    pub(crate) confirmed: Sample,
    /// Some ids of orders that were not placed.
    pub(crate) cancelled: Sample,
    /// Transactions whose outcome is unknown yet.
    pub(crate) unknown: Vec<(Arc<Plan>, u64)>,
    /// Transactions of `unknown` whose outcome stayed unknown.
    pub(crate) unresolved: Vec<(Arc<Plan>, u64)>,
}

/// Ids, each of those offered with the same chance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) ids: Vec<String>,
    offered: usize,
}

impl Sample {
    fn offer(&mut self, id: impl FnOnce() -> String) {
        self.offered += 1;
        if self.ids.len() < SAMPLE {
            self.ids.push(id());
        } else {
            let at = rand::rng().random_range(0..self.offered);
            if let Some(place) = self.ids.get_mut(at) {
                *place = id();
            }
        }
    }

    fn merge(&mut self, other: Self) {
        let offered = self.offered + other.offered;
        // Each side's part of the places, as it has of what was offered.
        let ours = (SAMPLE * self.offered).checked_div(offered).unwrap_or(0);
        if self.ids.len() + other.ids.len() > SAMPLE {
            self.ids.truncate(ours.max(SAMPLE.saturating_sub(other.ids.len())));
        }
        let room = SAMPLE - self.ids.len();
        self.ids.extend(other.ids.into_iter().take(room));
        self.offered = offered;
    }
}

impl Book {
    /// Empty.
    pub(crate) fn new(plan: &Plan) -> Self {
        let zeros = |count: u32| vec![0; count as usize];
        Self { stock: zeros(plan.items), money: zeros(plan.accounts), ..Self::default() }
    }

    /// Enters the answer to an order.
    pub(crate) fn enter(&mut self, plan: &Arc<Plan>, order: &Order, answer: &Answer) {
        match answer {
            Answer::Committed => self.commit(plan, order),
            Answer::Aborted | Answer::Refused(_) => {
                for group in 0..plan.count(Kind::Order) {
                    self.cancelled.offer(|| plan.order_id(order.number, group));
                }
            }
            Answer::Unknown(_) => self.unknown.push((plan.clone(), order.number)),
        }
    }

    fn commit(&mut self, plan: &Plan, order: &Order) {
        self.committed += 1;
        for (kind, group) in plan.branches() {
            match kind {
                Kind::Inventory => self.stock[plan.sku(order, group) as usize] += QUANTITY,
                Kind::Payment => self.money[plan.account(order, group) as usize] += AMOUNT,
                Kind::Order => {
                    self.orders += 1;
                    self.confirmed.offer(|| plan.order_id(order.number, group));
                }
            }
        }
    }

    /// Adds another's entries.
    pub(crate) fn merge(&mut self, other: Self) {
        let add = |ours: &mut Vec<i64>, theirs: Vec<i64>| {
            ours.resize(ours.len().max(theirs.len()), 0);
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        };
        add(&mut self.stock, other.stock);
        add(&mut self.money, other.money);
        self.orders += other.orders;
        self.committed += other.committed;
        self.confirmed.merge(other.confirmed);
        self.cancelled.merge(other.cancelled);
        self.unknown.extend(other.unknown);
        self.unresolved.extend(other.unresolved);
    }

    /// The most that a book could show which had all that is unresolved committed.
    pub(crate) fn most(&self) -> Self {
        let mut most = self.clone();
        for (plan, number) in &self.unresolved {
            most.commit(plan, &plan.order(*number));
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stay_small_when_they_are_merged_and_keep_their_parts() {
        let sample = |name: &str, count: usize| {
            let mut sample = Sample::default();
            (0..count).for_each(|number| sample.offer(|| format!("{name}{number}")));
            sample
        };
        let mut merged = sample("a", 9 * SAMPLE);
        merged.merge(sample("b", 3 * SAMPLE));
        assert_eq!((merged.ids.len(), merged.offered), (SAMPLE, 12 * SAMPLE));
        let ours = merged.ids.iter().filter(|id| id.starts_with('a')).count();
        assert_eq!(ours, SAMPLE * 3 / 4);
        let mut few = sample("a", 3);
        few.merge(sample("b", 2));
        assert_eq!(few.ids, ["a0", "a1", "a2", "b0", "b1"]);
    }
}
