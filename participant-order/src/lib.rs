//! The shop's orders: pending while their transaction is undecided, then
//! confirmed or cancelled.

mod order;
mod service;

use std::process::ExitCode;

use dtc_participant::{Program, ResourceManager};
use shop_proto::order_service_server::{OrderServiceServer, SERVICE_NAME};
use tonic::service::Routes;

use crate::{order::Orders, service::Service};

/// The service, to be run as a process or within one.
pub fn program() -> Program<impl ResourceManager> {
    Program {
        name: env!("CARGO_PKG_NAME"),
        about: "The shop's orders: a participant that records orders in distributed transactions",
        listen: "127.0.0.1:7103",
        service: SERVICE_NAME,
        resource: Orders,
        own: |handle| Routes::new(OrderServiceServer::new(Service { handle })),
    }
}

/// Runs the service as the process's flags say, until it is told to stop.
pub fn run_from_args() -> ExitCode {
    program().run_from_args()
}
