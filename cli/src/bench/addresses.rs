//! Where the four services are.

use super::{args::Services, kind::Kind};

/// URLs without a slash at the end.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) coordinator: String,
    pub(crate) inventory: String,
    pub(crate) payment: String,
    pub(crate) order: String,
}

impl Addresses {
    /// As flags have them.
    pub(crate) fn given(services: &Services) -> Self {
        Self {
            coordinator: services.coordinator.clone(),
            inventory: services.inventory.clone(),
            payment: services.payment.clone(),
            order: services.order.clone(),
        }
    }

    /// Each with its name, the coordinator first.
    pub(crate) fn named(&self) -> [(&'static str, &str); 4] {
        [
            ("coordinator", &self.coordinator),
            (Kind::Inventory.name(), &self.inventory),
            (Kind::Payment.name(), &self.payment),
            (Kind::Order.name(), &self.order),
        ]
    }
}
