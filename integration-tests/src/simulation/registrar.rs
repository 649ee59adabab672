//! Somebody who gives participants second names, moves them, lets their leases run
//! out and takes the names away again, whatever is owed under them.

use std::time::Duration;

use proto::dtc::{
    DeregisterRequest, Participant, RegisterRequest, registry_service_client::RegistryServiceClient,
};
use rand::{RngExt, rngs::StdRng};
use tokio::{sync::watch, time::sleep};
use tonic::transport::Channel;

use super::{node::PORT, run::channel};
use crate::{Role, customers::client::within};

const PATIENCE: Duration = Duration::from_secs(2);

/// Second names, and whose they are.
pub(super) const NAMES: [(&str, Role); 2] =
    [("inventory-b", Role::Inventory), ("payment-b", Role::Payment)];

/// Goes on until nothing new is begun, and then leaves all names good.
pub(super) async fn run(mut random: StdRng, mut open: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut registry = RegistryServiceClient::new(channel(Role::Coordinator)?);
    while *open.borrow_and_update() {
        let (name, role) = NAMES[random.random_range(0..NAMES.len())];
        match random.random_range(0..10) {
            0..7 => {
                let lease = random.random_bool(0.4).then(|| random.random_range(1..3));
                register(&mut registry, name, &address(role, random.random()), lease).await;
            }
            _ => {
                let request = DeregisterRequest { name: name.into(), drain: random.random() };
                // It may have work, or be gone.
                let _ = within(PATIENCE, registry.deregister(request)).await;
            }
        }
        sleep(Duration::from_millis(random.random_range(50..1_500))).await;
    }
    for (name, role) in NAMES {
        while !register(&mut registry, name, &address(role, false), None).await {
            sleep(Duration::from_millis(200)).await;
        }
    }
    std::future::pending().await
}

/// By its name or by its number: two spellings of one place.
fn address(role: Role, by_number: bool) -> String {
    match by_number {
        true => format!("http://{}:{PORT}", turmoil::lookup(role.name())),
        false => format!("http://{}:{PORT}", role.name()),
    }
}

async fn register(
    registry: &mut RegistryServiceClient<Channel>,
    name: &str,
    address: &str,
    lease: Option<i64>,
) -> bool {
    let participant =
        Participant { name: name.into(), address: address.into(), ..Participant::default() };
    let lease = lease.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = RegisterRequest { participant: Some(participant), lease };
    within(PATIENCE, registry.register(request)).await.is_ok()
}
