//! The shop's payments: what is on an account, and how much of it is promised to
//! branches that are not decided yet.

mod account;
mod service;

use std::process::ExitCode;

use dtc_participant::{Program, ResourceManager};
use shop_proto::payment_service_server::{PaymentServiceServer, SERVICE_NAME};
use tonic::service::Routes;

use crate::{account::Payment, service::Service};

/// The service, to be run as a process or within one.
pub fn program() -> Program<impl ResourceManager> {
    Program {
        name: env!("CARGO_PKG_NAME"),
        about: "The shop's accounts: a participant that takes money in distributed transactions",
        listen: "127.0.0.1:7102",
        service: SERVICE_NAME,
        resource: Payment,
        own: |handle| Routes::new(PaymentServiceServer::new(Service { handle })),
    }
}

/// Runs the service as the process's flags say, until it is told to stop.
pub fn run_from_args() -> ExitCode {
    program().run_from_args()
}
