//! Addresses that nobody else uses, and channels to them.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};

const FIRST_PORT: u16 = 7100;

/// Where the four processes of one cluster are.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Of the coordinator.
    pub coordinator: SocketAddr,
    /// Of participant-inventory.
    pub inventory: SocketAddr,
    /// Of participant-payment.
    pub payment: SocketAddr,
    /// Of participant-order.
    pub order: SocketAddr,
}

impl Addresses {
    /// Four that are free, and stay so while a process is down: on Linux, which
    /// has all of 127.0.0.0/8, an address that no other cluster uses.
    pub fn pick() -> Self {
        if cfg!(target_os = "linux") { Self::on_own_address() } else { Self::on_localhost() }
    }

    /// On 127.0.0.1, ports next to each other that nothing uses at the moment,
    /// below those that outgoing connections take.
    pub fn on_localhost() -> Self {
        const RANGES: u16 = 20;
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let range = FIRST_PORT + 100 + std::process::id() as u16 % RANGES * 1024;
        loop {
            let number = u16::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let addresses = Self::from_port(Ipv4Addr::LOCALHOST, range + number * 4);
            let free = |address| TcpListener::bind(address).is_ok();
            if addresses.all().into_iter().all(free) {
                return addresses;
            }
        }
    }

    fn on_own_address() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let [.., high, low] = std::process::id().to_be_bytes();
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 200 + 20;
        Self::from_port(Ipv4Addr::new(127, number, high, low), FIRST_PORT)
    }

    fn from_port(address: Ipv4Addr, first: u16) -> Self {
        let at = |offset| SocketAddr::from((address, first + offset));
        Self { coordinator: at(0), inventory: at(1), payment: at(2), order: at(3) }
    }

    fn all(&self) -> [SocketAddr; 4] {
        [self.coordinator, self.inventory, self.payment, self.order]
    }
}

/// A channel that connects when it is used, and again after a loss.
pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a URI")
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .connect_lazy()
}
