//! The alternatives that flags choose between; reports name them too.

use clap::ValueEnum;
use dtc_proto::dtc::AnswerAt;
use serde::{Deserialize, Serialize};

/// What keeps orders apart that want the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Control {
    /// Reservations: nobody waits, nobody aborts.
    #[default]
    Escrow,
    /// Exclusive locks of the SKU and the account: one after the other.
    Locks,
    /// Versions that were read: of those that saw the same one, one commits.
    Versions,
}

/// Which method is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// `ExecuteStream`.
    Stream,
    /// `Execute`.
    Unary,
}

/// When a transaction is answered.
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

/// What is done to the order participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP: it keeps its connections but does nothing; SIGCONT at the end.
    Stop,
}
