//! Alternatives that flags choose between; reports name them too.

use clap::ValueEnum;
use dtc_proto::dtc::AnswerAt;
use serde::{Deserialize, Serialize};

/// Concurrency control between orders for the same SKU or account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Control {
    /// Reservations: no waits, no aborts.
    #[default]
    Escrow,
    /// Exclusive locks on the SKU and the account: one order after the other.
    Locks,
    /// Versions that were read before: of orders that read the same one, one commits.
    Versions,
}

/// The method that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// `ExecuteStream`.
    Stream,
    /// `Execute`.
    Unary,
}

/// The moment at which a transaction is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum When {
    /// All branches have committed.
    Completion,
    /// The decision is durable.
    Decision,
}

impl From<When> for AnswerAt {
    fn from(when: When) -> Self {
        match when {
            When::Completion => Self::Completion,
            When::Decision => Self::Decision,
        }
    }
}

/// The fault of the order participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP: it keeps its connections but does nothing; SIGCONT at the end.
    Stop,
}
