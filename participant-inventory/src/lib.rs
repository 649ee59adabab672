//! The shop's inventory: how many of a SKU are on hand, and how many of them are
//! promised to branches that are not decided yet.

mod service;
mod stock;

use std::process::ExitCode;

use dtc_participant::{Program, ResourceManager};
use shop_proto::inventory_service_server::{InventoryServiceServer, SERVICE_NAME};
use tonic::service::Routes;

use crate::{service::Service, stock::Inventory};

/// The service, to be run as a process or within one.
pub fn program() -> Program<impl ResourceManager> {
    Program {
        name: env!("CARGO_PKG_NAME"),
        about: "The shop's inventory: a participant that reserves stock in distributed transactions",
        listen: "127.0.0.1:7101",
        service: SERVICE_NAME,
        resource: Inventory,
        own: |handle| Routes::new(InventoryServiceServer::new(Service { handle })),
    }
}

/// Runs the service as the process's flags say, until it is told to stop.
pub fn run_from_args() -> ExitCode {
    program().run_from_args()
}
