//! `--keep`: everything stays, with lines to go on by hand.

use super::Environment;
use crate::{Role, Shop};

/// Lets the processes run on, and prints what to do with them.
pub(super) fn explain(mut environment: Environment) {
    let ids: Vec<_> = Role::ALL
        .into_iter()
        .filter_map(|role| environment.cluster.process(role).id())
        .map(|id| id.to_string())
        .collect();
    let addresses = environment.cluster.addresses();
    let folder = environment.cluster.keep();
    println!("\nEverything goes on running. Databases and logs: {}\n", folder.display());
    println!("What the coordinator offers:");
    println!("  grpcurl -plaintext {} list\n", addresses.coordinator);
    println!("Place an order:");
    println!(
        "  grpcurl -plaintext -d '{}' {} dtc.v1.TransactionService/Execute\n",
        Shop::json_example(),
        addresses.coordinator
    );
    println!("The latest transactions, the stock, the accounts, the orders:");
    for (body, address, method) in [
        (r#"{"page_size": 5}"#, addresses.coordinator, "dtc.v1.TransactionService/List"),
        ("{}", addresses.inventory, "shop.v1.InventoryService/ListStock"),
        ("{}", addresses.payment, "shop.v1.PaymentService/ListAccounts"),
        (r#"{"page_size": 5}"#, addresses.order, "shop.v1.OrderService/ListOrders"),
    ] {
        println!("  grpcurl -plaintext -d '{body}' {address} {method}");
    }
    println!("\nMetrics:\n  curl http://{}/metrics", addresses.coordinator);
    println!("\nStop everything:\n  kill {}", ids.join(" "));
}
