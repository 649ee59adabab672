//! gRPC at the edge: `dtc.v1`'s services over [`dtc::api`]. Requests are converted here once,
//! answers are shown here, and every error becomes a status in one place.

mod admin;
mod execute;
mod lock;
mod read;
mod recovery;
mod registry;
mod show;
mod status;
mod stream;
mod transaction;

use dtc::api::{Coordinator, MAX_REQUEST};
use dtc_proto::dtc::{
    admin_service_server::{self as admin_service, AdminServiceServer},
    lock_service_server::{self as lock_service, LockServiceServer},
    recovery_service_server::{self as recovery_service, RecoveryServiceServer},
    registry_service_server::{self as registry_service, RegistryServiceServer},
    transaction_service_server::{self as transaction_service, TransactionServiceServer},
};
use tonic::service::Routes;

/// All of them, for health.
pub(crate) const SERVICE_NAMES: [&str; 5] = [
    transaction_service::SERVICE_NAME,
    recovery_service::SERVICE_NAME,
    registry_service::SERVICE_NAME,
    admin_service::SERVICE_NAME,
    lock_service::SERVICE_NAME,
];

/// The services, each of which is the coordinator.
#[derive(Clone)]
struct Grpc(Coordinator);

pub(crate) fn routes(coordinator: &Coordinator) -> Routes {
    let grpc = Grpc(coordinator.clone());
    let transactions = TransactionServiceServer::new(grpc.clone());
    Routes::new(transactions.max_decoding_message_size(MAX_REQUEST))
        .add_service(RecoveryServiceServer::new(grpc.clone()))
        .add_service(RegistryServiceServer::new(grpc.clone()))
        .add_service(AdminServiceServer::new(grpc.clone()))
        .add_service(LockServiceServer::new(grpc))
}
