//! Tables at the end of the demo.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets::UTF8_FULL_CONDENSED,
};
use shop_proto::{Order, OrderState};

use crate::{CURRENCY, Shop};

/// Columns; longer outcomes are wrapped.
const OUTCOME_WIDTH: u16 = 60;

/// More orders than this of one customer are shown as a sum.
const SHOWN: usize = 10;

/// What happened, and how long it took.
pub(super) struct Report {
    steps: Table,
    count: usize,
}

impl Report {
    pub(super) fn new() -> Self {
        let mut steps = table(&["", "Step", "Outcome", "Took"]);
        align_right(&mut steps, &[0, 3]);
        if let Some(outcomes) = steps.column_mut(2) {
            outcomes.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(OUTCOME_WIDTH)));
        }
        Self { steps, count: 0 }
    }

    pub(super) fn add(&mut self, title: &str, outcome: String, took: Duration) {
        let took = format!("{:.1} ms", took.as_secs_f64() * 1e3);
        println!("   => {outcome} ({took})");
        self.count += 1;
        self.steps.add_row([self.count.to_string(), title.into(), outcome, took]);
    }

    /// Prints the steps, and what the services say now.
    pub(super) async fn print(self, shop: &Shop) -> anyhow::Result<()> {
        let mut stock = table(&["Stock", "On hand", "Reserved"]);
        align_right(&mut stock, &[1, 2]);
        for item in shop.all_stock().await? {
            stock.add_row([item.sku, item.on_hand.to_string(), item.reserved.to_string()]);
        }
        let mut accounts = table(&["Account", "Balance", "Held"]);
        align_right(&mut accounts, &[1, 2]);
        for account in shop.all_accounts().await? {
            accounts.add_row([
                account.account,
                money(account.balance_minor),
                money(account.held_minor),
            ]);
        }
        let orders = orders(shop.all_orders().await?);
        println!("\n{}\n{stock}\n{accounts}\n{orders}", self.steps);
        println!("Every order happened whole or not at all.");
        Ok(())
    }
}

fn orders(all: Vec<Order>) -> Table {
    let mut table = table(&["Order", "Customer", "State", "Items", "Total"]);
    align_right(&mut table, &[3, 4]);
    let mut by_customer = BTreeMap::<(String, OrderState), Vec<Order>>::new();
    for order in all {
        let key = (order.customer.clone(), order.state());
        by_customer.entry(key).or_default().push(order);
    }
    for ((customer, state), orders) in by_customer {
        let items = |order: &Order| order.lines.iter().map(|line| line.quantity).sum::<i64>();
        let mut add = |id: String, items: i64, total: i64| {
            table.add_row([id, customer.clone(), name(state), items.to_string(), money(total)]);
        };
        if orders.len() > SHOWN {
            let total = orders.iter().map(|order| order.total_minor).sum();
            add(format!("({} orders)", orders.len()), orders.iter().map(items).sum(), total);
        } else {
            for order in &orders {
                add(order.order_id.clone(), items(order), order.total_minor);
            }
        }
    }
    table
}

fn name(state: OrderState) -> String {
    state.as_str_name().trim_start_matches("ORDER_STATE_").to_lowercase()
}

fn money(minor: i64) -> String {
    format!("{}.{:02} {CURRENCY}", minor / 100, minor.rem_euclid(100))
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
