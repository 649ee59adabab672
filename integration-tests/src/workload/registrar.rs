//! Somebody who gives participants second names, moves them, lets their leases run
//! out and takes the names away again, whatever is owed under them.

use std::time::Duration;

use dtc_proto::dtc::{
    DeregisterRequest, Participant, RegisterRequest, registry_service_client::RegistryServiceClient,
};
use rand::{RngExt, rngs::StdRng};
use tokio::{sync::watch, time::sleep};
use tonic::transport::Channel;

use super::client::within;

const PATIENCE: Duration = Duration::from_secs(2);

/// Second names of inventory and payment.
pub(crate) const NAMES: [&str; 2] = ["inventory-b", "payment-b"];

/// The registry, and the addresses of each of [`NAMES`]: the first is the usual one.
pub(crate) struct Registrar {
    pub(crate) registry: Channel,
    pub(crate) addresses: [[String; 2]; 2],
    pub(crate) random: StdRng,
}

impl Registrar {
    /// Goes on while something new is begun, and leaves all names good.
    pub(crate) async fn run(self, mut open: watch::Receiver<bool>) {
        let Self { registry, addresses, mut random } = self;
        let mut registry = RegistryServiceClient::new(registry);
        loop {
            while *open.borrow_and_update() {
                change(&mut registry, &addresses, &mut random).await;
                sleep(Duration::from_millis(random.random_range(50..1_500))).await;
            }
            for (name, [usual, _]) in NAMES.into_iter().zip(&addresses) {
                while !register(&mut registry, name, usual, None).await {
                    sleep(Duration::from_millis(200)).await;
                }
            }
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
        }
    }
}

async fn change(
    registry: &mut RegistryServiceClient<Channel>,
    addresses: &[[String; 2]; 2],
    random: &mut StdRng,
) {
    let number = random.random_range(0..NAMES.len());
    let name = NAMES[number];
    if random.random_bool(0.7) {
        let lease = random.random_bool(0.4).then(|| random.random_range(1..3));
        let address = &addresses[number][usize::from(random.random::<bool>())];
        register(registry, name, address, lease).await;
    } else {
        let request = DeregisterRequest { name: name.into(), drain: random.random() };
        // It may have work, or be gone.
        let _ = within(PATIENCE, registry.deregister(request)).await;
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
