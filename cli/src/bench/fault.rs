//! A participant fails under load, and others' orders should not notice.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    args::Mode,
    kind::Kind,
    load::Customers,
    local::Local,
    plan::Plan,
    report::Point,
    session::{Session, point},
    table::{mebibytes, milliseconds},
    tally::Tally,
    template::Templates,
    usage::Reading,
};

/// Orders in flight that need the participant that fails.
const BESIDE: u32 = 32;

/// What is done to the order participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP: it keeps its connections but does nothing; SIGCONT at the end.
    Stop,
}

impl Fault {
    /// What takes part in the orders that are measured.
    pub(crate) const UNHARMED: [Kind; 2] = [Kind::Inventory, Kind::Payment];
}

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
    fn new(tally: &Tally, took: Duration, reading: &Reading) -> anyhow::Result<Self> {
        Ok(Self {
            committed_per_second: tally.committed as f64 / took.as_secs_f64(),
            p99_us: tally.latency.value_at_quantile(0.99),
            coordinator_memory_bytes: reading.coordinator_memory()?,
        })
    }
}

impl FaultReport {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let Self { fault, before, after, beside } = self;
        let done = match fault {
            Fault::Kill => "killed",
            Fault::Stop => "stopped",
        };
        let rate = after.committed_per_second / before.committed_per_second;
        let p99 = after.p99_us as f64 / before.p99_us as f64;
        format!(
            "Halfway, participant-order was {done}. Orders of stock and money: \
             {:.0} committed/s before and {:.0} after ({rate:.2} times as many), \
             p99 {} ms before and {} ms after ({p99:.2} times as long).\n\
             The coordinator's memory: {} MiB at that moment, {} MiB at the end. \
             Beside them, of {BESIDE} full orders at a time: \
             {} committed, {} aborted, {} errors, {} unknown.",
            before.committed_per_second,
            after.committed_per_second,
            milliseconds(before.p99_us),
            milliseconds(after.p99_us),
            mebibytes(before.coordinator_memory_bytes as f64),
            mebibytes(after.coordinator_memory_bytes as f64),
            beside.committed,
            beside.aborted,
            beside.errors,
            beside.unknown
        )
    }
}

impl Session<'_> {
    /// Measures orders of stock and money while the order participant fails
    /// halfway, and mends it at the end.
    pub(crate) async fn measure_fault(
        &mut self,
        local: &mut Local,
        fault: Fault,
        in_flight: u32,
        run: u32,
    ) -> anyhow::Result<Point> {
        self.warm_up(in_flight).await?;
        let pages: Vec<_> = self
            .shop
            .pages
            .iter()
            .filter(|(name, _)| *name != Kind::Order.name())
            .cloned()
            .collect();
        let beside = self.full_orders();
        let half = self.args.load.seconds / 2;

        let start = Reading::take(&pages).await?;
        let started = Instant::now();
        let mut load = self.customers.start(in_flight, None);
        let beside = beside.start(BESIDE, None);
        self.watch(&mut load, "before the fault", Some(started + half)).await?;
        let (mut tally, halfway) = (load.take(), Instant::now());
        let reading = Reading::take(&pages).await?;
        let before = Phase::new(&tally, halfway - started, &reading)?;

        match fault {
            Fault::Kill => local.order().kill(),
            Fault::Stop => local.order().pause()?,
        }
        self.watch(&mut load, "after the fault", Some(started + half * 2)).await?;
        let (second, end) = (load.take(), Instant::now());
        let reading = Reading::take(&pages).await?;
        let after = Phase::new(&second, end - halfway, &reading)?;
        tally.merge(&second);
        let mut point = point(in_flight, run, &tally, end - started, &start, &reading)?;

        self.book.merge(load.stop().await?);
        match fault {
            Fault::Kill => local.order().restart().await?,
            Fault::Stop => local.order().resume()?,
        }
        let Tally { committed, aborted, errors, unknown, .. } = beside.look();
        self.book.merge(beside.stop().await?);
        self.shop.wait_until_idle().await?;
        let beside = Counts { committed, aborted, errors, unknown };
        point.fault = Some(FaultReport { fault, before, after, beside });
        Ok(point)
    }

    /// Who places full orders, on a stream of their own.
    fn full_orders(&self) -> Customers {
        let plan =
            Plan::new(&self.args.load, Kind::ALL.into(), self.customers.templates.plan().run);
        Customers {
            mode: Mode::Stream,
            channels: vec![self.beside.clone()],
            templates: Arc::new(Templates::new(plan)),
            versions: None,
            numbers: self.customers.numbers.clone(),
        }
    }
}
