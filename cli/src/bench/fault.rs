//! A participant fails under load, and others' orders should not notice.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    choice::{Fault, Mode},
    fault_report::{BESIDE, Counts, FaultReport, Phase},
    kind::Kind,
    load::Clients,
    local::Local,
    plan::Plan,
    report::Point,
    session::{Session, point},
    tally::Tally,
    template::Templates,
    usage::Reading,
};

/// The branches of the orders that are measured.
pub(crate) const UNHARMED: [Kind; 2] = [Kind::Inventory, Kind::Payment];

impl Session<'_> {
    /// Measures orders of stock and money while the order participant fails
    /// halfway, and restarts or continues it at the end.
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
        let mut load = self.clients.start(in_flight, None);
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

    /// Clients that place full orders, on a stream of their own.
    fn full_orders(&self) -> Clients {
        let plan = Plan::new(&self.args.load, Kind::ALL.into(), self.clients.templates.plan().run);
        Clients {
            mode: Mode::Stream,
            channels: vec![self.beside.clone()],
            templates: Arc::new(Templates::new(plan)),
            versions: None,
            numbers: self.clients.numbers.clone(),
        }
    }
}
