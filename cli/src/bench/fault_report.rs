//! The effect of a participant's failure, as a report has it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{choice::Fault, tally::Tally, usage::Reading};

/// Full orders in flight beside the load; they need the participant that fails.
pub(crate) const BESIDE: u32 = 32;

/// How a fault was felt by orders of stock and money only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FaultReport {
    pub(crate) fault: Fault,
    pub(crate) before: Phase,
    pub(crate) after: Phase,
    /// What became of full orders, over the whole time.
    pub(crate) beside: Counts,
}

/// Before or after the fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) committed_per_second: f64,
    pub(crate) p99_us: u64,
    /// At its end.
    pub(crate) coordinator_memory_bytes: u64,
}

/// Outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) committed: u64,
    pub(crate) aborted: u64,
    pub(crate) errors: u64,
    pub(crate) unknown: u64,
}

impl Phase {
    pub(crate) fn new(tally: &Tally, took: Duration, reading: &Reading) -> anyhow::Result<Self> {
        Ok(Self {
            committed_per_second: tally.committed as f64 / took.as_secs_f64(),
            p99_us: tally.latency.value_at_quantile(0.99),
            coordinator_memory_bytes: reading.coordinator_memory()?,
        })
    }
}
