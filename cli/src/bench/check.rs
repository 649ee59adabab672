//! The books against what the services show.

use std::{collections::HashMap, fmt::Display};

use shop_proto::OrderState;

use super::{
    book::Book,
    plan::{MONEY, STOCK, account_name, sku_name},
};

/// What the services show when all is done.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// By SKU.
    pub(crate) stock: HashMap<String, Left>,
    /// By account.
    pub(crate) money: HashMap<String, Left>,
    /// By id.
    pub(crate) orders: HashMap<String, OrderState>,
    /// Whether these are all orders of the run, or the books' samples only.
    pub(crate) all_orders: bool,
}

/// What is left of something, and what of that is promised to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) left: i64,
    pub(crate) promised: i64,
}

/// What is wrong.
pub(crate) fn violations(book: &Book, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    let most = book.most();
    let kinds = [
        (&book.stock, &most.stock, &seen.stock, STOCK, sku_name as fn(u32) -> String),
        (&book.money, &most.money, &seen.money, MONEY, account_name),
    ];
    for (least, most, seen, initial, name) in kinds {
        for (index, (least, most)) in least.iter().zip(most).enumerate() {
            let name = name(index as u32);
            let Some(Left { left, promised }) = seen.get(&name) else {
                found.push(format!("{name} is gone"));
                continue;
            };
            if *promised != 0 {
                found.push(format!("{name}: {promised} are still reserved"));
            }
            if !(*least..=*most).contains(&(initial - left)) {
                let taken = initial - left;
                found.push(format!(
                    "{name}: {taken} were taken, but {} committed",
                    range(*least, *most)
                ));
            }
        }
    }
    orders(book, &most, seen, &mut found);
    if let Some((plan, number)) = book.unresolved.iter().find(|(plan, _)| plan.keys) {
        let key = plan.request_key(*number);
        found
            .push(format!("the coordinator has no outcome for some transactions, such as '{key}'"));
    }
    found
}

fn orders(book: &Book, most: &Book, seen: &Seen, found: &mut Vec<String>) {
    for (id, _) in seen.orders.iter().filter(|(_, state)| **state == OrderState::Pending) {
        found.push(format!("order {id} is still pending"));
    }
    if seen.all_orders {
        let confirmed = seen.orders.values().filter(|state| **state == OrderState::Confirmed);
        let confirmed = confirmed.count() as u64;
        if !(book.orders..=most.orders).contains(&confirmed) {
            let expected = range(book.orders, most.orders);
            found.push(format!("{confirmed} orders are confirmed, but {expected} committed"));
        }
    }
    let is_confirmed = |id: &&String| seen.orders.get(*id) == Some(&OrderState::Confirmed);
    for id in book.confirmed.ids.iter().filter(|id| !is_confirmed(id)) {
        found.push(format!("order {id} was committed, but is not confirmed"));
    }
    for id in book.cancelled.ids.iter().filter(is_confirmed) {
        found.push(format!("order {id} was not committed, but is confirmed"));
    }
}

fn range<T: PartialEq + Display>(least: T, most: T) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::bench::{
        args::Args,
        plan::{Order, Plan, RunId},
        tally::Answer,
    };

    const ORDERS: u64 = 40;

    /// Fulfils orders as the services would.
    struct World {
        plan: Arc<Plan>,
        book: Book,
        seen: Seen,
    }

    impl World {
        fn new(flags: &[&str]) -> Self {
            let flags = ["bench", "--items", "5", "--accounts", "3"].iter().chain(flags);
            let load = Args::parse_from(flags).load;
            let plan = Arc::new(Plan::new(&load, load.kinds(), RunId::random()));
            let full = |count, name: fn(u32) -> String, left| {
                (0..count).map(|index| (name(index), Left { left, promised: 0 })).collect()
            };
            let seen = Seen {
                stock: full(plan.items, sku_name, STOCK),
                money: full(plan.accounts, account_name, MONEY),
                orders: HashMap::new(),
                all_orders: true,
            };
            Self { book: Book::new(&plan), plan, seen }
        }

        fn fulfil(&mut self, order: &Order) {
            self.seen.stock.get_mut(&sku_name(order.sku)).unwrap().left -= 1;
            self.seen.money.get_mut(&account_name(order.account)).unwrap().left -= 250;
            let id = self.plan.order_id(order.number, 0);
            self.seen.orders.insert(id, OrderState::Confirmed);
        }

        fn tell(&mut self, order: &Order, answer: &Answer) {
            self.book.enter(&self.plan.clone(), order, answer);
        }

        /// Some committed, some aborted.
        fn busy(flags: &[&str]) -> Self {
            let mut world = Self::new(flags);
            for number in 0..ORDERS {
                let order = world.plan.order(number);
                if number % 4 == 0 {
                    world.tell(&order, &Answer::Aborted);
                } else {
                    world.fulfil(&order);
                    world.tell(&order, &Answer::Committed);
                }
            }
            world
        }

        fn violations(&self) -> Vec<String> {
            violations(&self.book, &self.seen)
        }
    }

    #[test]
    fn right_books_are_right() {
        assert_eq!(World::new(&[]).violations(), Vec::<String>::new());
        assert_eq!(World::busy(&[]).violations(), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        type Break = fn(&mut World);
        let cases: [(Break, &str); 10] = [
            (|it| it.seen.stock.get_mut(&sku_name(2)).unwrap().left += 1, "bench-sku-0000002"),
            (|it| it.seen.stock.get_mut(&sku_name(2)).unwrap().left -= 1, "bench-sku-0000002"),
            (|it| it.seen.stock.get_mut(&sku_name(0)).unwrap().promised = 1, "still reserved"),
            (|it| it.seen.stock.retain(|sku, _| *sku != sku_name(1)), "bench-sku-0000001 is gone"),
            (|it| it.seen.money.get_mut(&account_name(1)).unwrap().left -= 250, "account-0000001"),
            (
                |it| it.seen.money.get_mut(&account_name(1)).unwrap().promised = 250,
                "still reserved",
            ),
            (|it| set_order(it, 1, OrderState::Cancelled), "29 orders are confirmed, but 30"),
            (|it| set_order(it, 0, OrderState::Confirmed), "31 orders are confirmed, but 30"),
            (|it| set_order(it, 0, OrderState::Pending), "still pending"),
            (|it| it.fulfil(&it.plan.order(ORDERS)), "were taken"),
        ];
        for (index, (break_it, said)) in cases.into_iter().enumerate() {
            let mut world = World::busy(&[]);
            break_it(&mut world);
            let found = world.violations();
            assert!(found.iter().any(|it| it.contains(said)), "{index}: {found:?}");
        }
    }

    fn set_order(world: &mut World, number: u64, state: OrderState) {
        world.seen.orders.insert(world.plan.order_id(number, 0), state);
    }

    #[test]
    fn a_sample_of_orders_is_enough_to_see_them_wrong() {
        for (number, state, said) in [
            (1, OrderState::Cancelled, "was committed, but is not confirmed"),
            (0, OrderState::Confirmed, "was not committed, but is confirmed"),
        ] {
            let mut world = World::busy(&[]);
            world.seen.all_orders = false;
            set_order(&mut world, number, state);
            let found = world.violations();
            assert!(found.len() == 1 && found[0].contains(said), "{found:?}");
        }
    }

    #[test]
    fn what_nobody_told_may_have_been_committed_or_not_but_nothing_else() {
        let mut world = World::busy(&["--no-keys", "--skew", "1"]);
        let lost = world.plan.order(ORDERS);
        world.book.unresolved.push((world.plan.clone(), lost.number));
        assert_eq!(world.violations(), Vec::<String>::new());
        world.fulfil(&lost);
        assert_eq!(world.violations(), Vec::<String>::new());
        world.fulfil(&world.plan.order(ORDERS + 1));
        assert!(world.violations().iter().any(|it| it.contains("but 30 to 31")));
    }

    #[test]
    fn with_keys_the_coordinator_has_to_know_every_outcome() {
        let mut world = World::busy(&[]);
        world.book.unresolved.push((world.plan.clone(), ORDERS));
        let found = world.violations();
        assert!(found.len() == 1 && found[0].contains("no outcome"), "{found:?}");
    }
}
