//! What the services' files hold when a run begins: made once by the services
//! themselves, without faults, and copied for every run. From then on each takes down
//! what happens to its journal.

use std::{cell::RefCell, fs, path::Path, rc::Rc, time::Duration};

use anyhow::{Context, bail};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shop_proto::{
    OpenAccountRequest, SetStockRequest, inventory_service_client::InventoryServiceClient,
    payment_service_client::PaymentServiceClient,
};
use turmoil::Builder;

use super::{
    node::{Configuration, Node},
    run::channel,
};
use crate::{
    CURRENCY, Role,
    workload::{catalog, witness},
};

/// Makes a file for each participant in `folder`, by its name.
pub(super) fn make(folder: &Path) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(0);
    let mut sim = Builder::new()
        .rng_seed(0)
        .simulation_duration(Duration::from_secs(600))
        .max_message_latency(Duration::from_millis(1))
        .build();
    let nodes = Role::ALL.map(|role| {
        let at = folder.join(format!("{}-made", role.name()));
        Node::add(&mut sim, role, &at, Configuration::default(), random.random())
    });
    let done = Rc::new(RefCell::new(None));
    let told = Rc::clone(&done);
    sim.client("bookkeeper", async move {
        *told.borrow_mut() = Some(stock_up().await);
        Ok(())
    });
    sim.run().map_err(|error| anyhow::anyhow!("{error}"))?;
    done.take().context("the bookkeeper has finished")??;
    for node in &nodes {
        node.stop();
    }
    for node in &nodes {
        while node.ended().is_none() {
            sim.step().map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        match node.ended() {
            Some((0, _)) => fs::copy(node.database(), folder.join(node.role.name()))?,
            ended => bail!("{} did not stop cleanly: {ended:?}", node.role.name()),
        };
        let is_coordinator = node.role == Role::Coordinator;
        witness::install(&folder.join(node.role.name()), is_coordinator)?;
        node.disk().remove();
    }
    Ok(())
}

async fn stock_up() -> anyhow::Result<()> {
    let opening = catalog::opening();
    let mut inventory = InventoryServiceClient::new(channel(Role::Inventory)?);
    for (sku, on_hand) in opening.stock {
        inventory.set_stock(SetStockRequest { sku, on_hand }).await?;
    }
    let mut payment = PaymentServiceClient::new(channel(Role::Payment)?);
    for (account, balance_minor) in opening.accounts {
        let currency = CURRENCY.into();
        payment.open_account(OpenAccountRequest { account, currency, balance_minor }).await?;
    }
    Ok(())
}
