//! What each process used for the load.

use std::time::Duration;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use serde::{Deserialize, Serialize};

use super::metrics::{Page, Sample};

/// Of one service, over a window of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// The process.
    pub(crate) process: String,
    /// Forced writes.
    pub(crate) syncs: u64,
    /// Forced writes, by transactions that were decided.
    pub(crate) syncs_per_transaction: f64,
    /// Moves of the write-ahead log into the file.
    pub(crate) checkpoints: u64,
    /// Requests that share a forced write.
    pub(crate) mean_batch: f64,
    /// CPU time, by transactions that were decided.
    pub(crate) cpu_us_per_transaction: f64,
    /// At the end.
    pub(crate) memory_bytes: u64,
    /// Since the beginning.
    pub(crate) memory_growth_bytes: i64,
}

/// What all services and this program have used so far.
#[derive(Debug)]
pub(crate) struct Reading {
    services: Vec<(&'static str, Sample)>,
    own_cpu: Duration,
}

impl Reading {
    /// Reads all pages.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub(crate) async fn take(pages: &[(&'static str, Page)]) -> anyhow::Result<Self> {
        let samples = pages
            .iter()
            .map(async |(name, page)| Ok::<_, anyhow::Error>((*name, page.read().await?)));
        let services = futures::future::try_join_all(samples).await?;
        Ok(Self { services, own_cpu: own_cpu()? })
    }

    /// The coordinator's resident memory.
    ///
    /// # Errors
    ///
    /// When it does not show it.
    pub(crate) fn coordinator_memory(&self) -> anyhow::Result<u64> {
        let mut samples = self.services.iter().filter(|(name, _)| *name == "coordinator");
        let sample = samples.next().map(|(_, sample)| sample.clone()).unwrap_or_default();
        Ok(sample.get(MEMORY)? as u64)
    }

    /// Each service's part since `before`, for `transactions`.
    ///
    /// # Errors
    ///
    /// When a page does not show what is needed.
    pub(crate) fn since(&self, before: &Self, transactions: u64) -> anyhow::Result<Vec<Usage>> {
        let pairs = self.services.iter().zip(&before.services);
        pairs.map(|((name, after), (_, before))| usage(name, before, after, transactions)).collect()
    }

    /// This program's CPU time since `before`, in microseconds, by transaction.
    pub(crate) fn own_cpu_since(&self, before: &Self, transactions: u64) -> f64 {
        let cpu = self.own_cpu.saturating_sub(before.own_cpu);
        cpu.as_secs_f64() * 1e6 / transactions.max(1) as f64
    }
}

const MEMORY: &str = "process_resident_memory_bytes";

fn usage(name: &str, before: &Sample, after: &Sample, transactions: u64) -> anyhow::Result<Usage> {
    let per_transaction = |value: f64| value / transactions.max(1) as f64;
    let grown = |what: &str| {
        let (before, after) = (before.get(what)?, after.get(what)?);
        // A process that was started again counts from nothing.
        Ok::<_, anyhow::Error>(if after < before { after } else { after - before })
    };
    let syncs = grown("dtc_journal_syncs_total")?;
    let batched = grown("dtc_journal_batch_size_sum")?;
    Ok(Usage {
        process: name.into(),
        syncs: syncs as u64,
        syncs_per_transaction: per_transaction(syncs),
        checkpoints: grown("dtc_journal_checkpoints_total")? as u64,
        mean_batch: if syncs > 0.0 { batched / syncs } else { 0.0 },
        cpu_us_per_transaction: per_transaction(grown("process_cpu_seconds_total")? * 1e6),
        memory_bytes: after.get(MEMORY)? as u64,
        memory_growth_bytes: (after.get(MEMORY)? - before.get(MEMORY)?) as i64,
    })
}

fn own_cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let duration =
        |time: TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}
