//! The three kinds of branches.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a branch does, and at which participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Reserves stock.
    Inventory,
    /// Takes money.
    Payment,
    /// Places an order.
    Order,
}

impl Kind {
    /// All, by their number.
    pub(crate) const ALL: [Self; 3] = [Self::Inventory, Self::Payment, Self::Order];

    /// The participant's name at the coordinator.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Payment => "payment",
            Self::Order => "order",
        }
    }
}
