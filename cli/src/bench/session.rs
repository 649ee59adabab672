//! Connections, clients and books of one `dtc bench`: it measures, and checks the books.

use std::{sync::Arc, time::Duration};

use shop_proto::{
    inventory_service_client::InventoryServiceClient, payment_service_client::PaymentServiceClient,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::transport::Channel;

use super::{
    addresses::Addresses,
    args::Args,
    book::Book,
    check,
    choice::Control,
    lane::Numbers,
    load::{Clients, Load},
    plan::Plan,
    report::{CheckReport, Point},
    shop::{Shop, connect},
    tally::Tally,
    template::Templates,
    usage::Reading,
    versions::Versions,
};

const SECOND: Duration = Duration::from_secs(1);
/// More orders than this are not listed to check them.
const LISTED: u64 = 200_000;

/// What is driven, and what is known of it.
pub(crate) struct Session<'a> {
    pub(crate) args: &'a Args,
    pub(crate) shop: Shop,
    pub(crate) clients: Clients,
    /// A connection that they don't use.
    pub(crate) beside: Channel,
    pub(crate) book: Book,
}

impl<'a> Session<'a> {
    /// Connects and fills stock and accounts.
    pub(crate) async fn open(
        args: &'a Args,
        addresses: &Addresses,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        let shop = Shop::open(addresses).await?;
        shop.wait_for_links().await?;
        shop.set_up(&plan).await?;
        let mut channels = Vec::new();
        for _ in 0..args.load.lanes() {
            channels.push(connect(&addresses.coordinator, "coordinator").await?);
        }
        let versions = match args.load.control {
            Control::Versions => Some(Versions {
                inventory: InventoryServiceClient::new(
                    connect(&addresses.inventory, "inventory").await?,
                ),
                payment: PaymentServiceClient::new(connect(&addresses.payment, "payment").await?),
            }),
            Control::Escrow | Control::Locks => None,
        };
        let clients = Clients {
            mode: args.load.mode,
            channels,
            templates: Arc::new(Templates::new(plan)),
            versions,
            numbers: Numbers::default(),
        };
        let beside = connect(&addresses.coordinator, "coordinator").await?;
        Ok(Self { args, shop, beside, book: Book::new(clients.templates.plan()), clients })
    }

    /// Measures with so many in flight.
    pub(crate) async fn measure(&mut self, in_flight: u32, run: u32) -> anyhow::Result<Point> {
        self.warm_up(in_flight).await?;
        let before = Reading::take(&self.shop.pages).await?;
        let started = Instant::now();
        let mut load = self.clients.start(in_flight, self.args.load.transactions);
        let label = format!("{in_flight} in flight");
        let end = match self.args.load.transactions {
            Some(_) => None,
            None => Some(started + self.args.load.seconds),
        };
        self.watch(&mut load, &label, end).await?;
        let (tally, took) = (load.take(), started.elapsed());
        let after = Reading::take(&self.shop.pages).await?;
        self.book.merge(load.stop().await?);
        point(in_flight, run, &tally, took, &before, &after)
    }

    pub(crate) async fn warm_up(&mut self, in_flight: u32) -> anyhow::Result<()> {
        if self.args.load.warm_up.is_zero() {
            return Ok(());
        }
        let mut load = self.clients.start(in_flight, None);
        let end = Instant::now() + self.args.load.warm_up;
        self.watch(&mut load, "warm-up", Some(end)).await?;
        self.book.merge(load.stop().await?);
        Ok(())
    }

    /// Lets the load run until then, or until it has ended by itself, and prints its
    /// progress.
    pub(crate) async fn watch(
        &self,
        load: &mut Load,
        label: &str,
        end: Option<Instant>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut ticks = interval_at(started + SECOND, SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = 0;
        loop {
            let ended = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ended => return Ok(()),
                done = load.wait() => return done,
                _ = ticks.tick(), if !self.args.quiet => {
                    let tally = load.look();
                    let seconds = started.elapsed().as_secs();
                    let p99 = tally.latency.value_at_quantile(0.99) as f64 / 1e3;
                    let decided = tally.decided();
                    eprintln!("{label}: {seconds:>3} s  {:>7} tx/s  p99 {p99:.1} ms", decided - last);
                    last = decided;
                }
            }
        }
    }

    /// Waits until all is done, and checks the books.
    pub(crate) async fn check(mut self, fresh: bool) -> anyhow::Result<CheckReport> {
        if !self.args.quiet {
            eprintln!("checking the books ...");
        }
        self.shop.wait_until_idle().await?;
        self.shop.resolve(&mut self.book).await?;
        let all = fresh && self.book.orders < LISTED;
        let seen = self.shop.look(self.clients.templates.plan(), &self.book, all).await?;
        let asked = self.book.confirmed.ids.len() + self.book.cancelled.ids.len();
        Ok(CheckReport {
            committed: self.book.committed,
            unresolved: self.book.unresolved.len() as u64,
            orders_checked: if all { seen.orders.len() } else { asked } as u64,
            all_orders: all,
            violations: check::violations(&self.book, &seen),
        })
    }
}

/// What was measured.
pub(crate) fn point(
    in_flight: u32,
    run: u32,
    tally: &Tally,
    took: Duration,
    before: &Reading,
    after: &Reading,
) -> anyhow::Result<Point> {
    let decided = tally.decided();
    let seconds = took.as_secs_f64();
    Ok(Point {
        in_flight,
        run,
        seconds,
        tried: decided + tally.errors + tally.unknown,
        committed: tally.committed,
        aborted: tally.aborted,
        errors: tally.errors,
        unknown: tally.unknown,
        first_error: tally.first_error.clone(),
        committed_per_second: tally.committed as f64 / seconds,
        aborted_per_second: tally.aborted as f64 / seconds,
        latency_us: tally.into(),
        processes: after.since(before, decided)?,
        generator_cpu_us_per_transaction: after.own_cpu_since(before, decided),
        fault: None,
    })
}
