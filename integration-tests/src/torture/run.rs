//! A run, from the first process to the last check.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use dtc_proto::dtc::{
    admin_service_client::AdminServiceClient, transaction_service_client::TransactionServiceClient,
};
use rand::{SeedableRng, rngs::StdRng};
use shop_proto::{
    inventory_service_client::InventoryServiceClient, payment_service_client::PaymentServiceClient,
};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tonic::transport::{Channel, Endpoint};

use super::{
    Args,
    environment::Environment,
    fault_injector::{self, Counts},
    plan::{self, Plan, Round, Wire},
    report::{self, Resolved},
    terms,
};
use crate::{
    Binaries, Role, Shop, build, channel,
    classes::{Class, Classes},
    eventually,
    neighbour::Neighbour,
    wall_clock,
    workload::{
        books::{Books, Journals},
        caretaker, catalog,
        checker::{self, Violation},
        client::{Catalog, Client},
        registrar::Registrar,
        witness::Remembered,
    },
};

/// Violations that are printed; the first are the ones to look at.
const SHOWN: usize = 40;
const PROGRESS: Duration = Duration::from_secs(5);
const BEFORE_BACKUP: Duration = Duration::from_secs(3);
const AFTER_BACKUP: Duration = Duration::from_secs(4);
const KEEP_ALIVE: Duration = Duration::from_secs(2);

struct Run {
    begun: Instant,
    environment: Arc<Environment>,
    catalog: Arc<Catalog>,
    gate: watch::Sender<bool>,
    counts: Counts,
    resolved: Vec<Resolved>,
    violations: BTreeSet<Violation>,
    resolve_within: Duration,
    neighbours: Vec<Neighbour>,
    remembered: Remembered,
}

/// True if nothing was wrong.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    println!("Building the services, and those that can lose power (release) ...");
    let (release, with_vfs) = (build::real()?, build::with_vfs()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            ran = torture(args, &release, &with_vfs) => ran,
            // What it started ends with it.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

fn catalog_of(
    begun: Instant,
    length: Duration,
    rest: Duration,
    extras: catalog::Extras,
) -> Catalog {
    let progress = move || (begun.elapsed().as_secs_f64() / length.as_secs_f64()).min(1.0);
    Catalog {
        history: Default::default(),
        tally: Default::default(),
        progress: Box::new(progress),
        busy: Default::default(),
        rest,
        now: wall_clock::now,
        extras,
    }
}

async fn torture(args: &Args, release: &Binaries, with_vfs: &Binaries) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..100_000));
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let extras = terms::extras(seed, &args.classes);
    let neighbours = terms::neighbours(seed, &extras, &args.classes).await?;
    let others: Vec<_> =
        neighbours.iter().map(|(it, address)| (it.name, address.clone())).collect();
    let remembered = terms::remembered(seed, &args.classes);
    let changing = args.classes.has(Class::Flags).then_some(seed);
    let small = (!args.no_small_disk).then(|| plan::small_disk(seed));
    let flags = terms::flags(seed, &args.classes);
    let environment = Environment::new(small, &others, &flags, changing).await?;
    let small = environment.small_disk();
    println!(
        "Seed {seed}: {} clients for {}; small file system: {}",
        args.clients,
        humantime::format_duration(length),
        small.map_or("left out", Role::name)
    );
    let mut plan = Plan::new(seed, args.power, small.is_some(), args.classes.clone());
    let begun = Instant::now();
    let mut run = Run {
        begun,
        environment: Arc::new(environment),
        catalog: Arc::new(catalog_of(begun, length, args.rest, extras)),
        gate: watch::Sender::new(false),
        counts: Counts::default(),
        resolved: Vec::new(),
        violations: BTreeSet::new(),
        resolve_within: args.resolve_within,
        neighbours: neighbours.into_iter().map(|(it, _)| it).collect(),
        remembered,
    };
    let environment = Arc::clone(&run.environment);
    let mut tasks = JoinSet::new();
    let mut round = plan.next(length);
    run.environment.change_binaries(release, false)?;
    tasks.spawn(async move { environment.supervise().await });
    stock_up(&run.environment).await?;
    run.environment.install_witness()?;
    let first = if round.power { with_vfs } else { release };
    run.environment.change_binaries(first, round.power)?;
    run.employ(&args.classes, seed, &mut tasks)?;
    for number in 0..args.clients as usize {
        tasks.spawn(run.client(number, seed)?.run());
    }
    let end = run.begun + length;
    let finished = loop {
        run.round(&round).await?;
        if !run.violations.is_empty() || Instant::now() >= end {
            break run.violations.is_empty();
        }
        let before = round.power;
        round = plan.next(end.saturating_duration_since(Instant::now()));
        if round.power != before {
            let binaries = if round.power { with_vfs } else { release };
            run.environment.change_binaries(binaries, round.power)?;
        }
    };
    run.end(args, seed, finished, release, tasks).await
}

impl Run {
    /// The last looks, when no round comes any more.
    async fn end(
        mut self,
        args: &Args,
        seed: u64,
        finished: bool,
        release: &Binaries,
        mut tasks: JoinSet<()>,
    ) -> anyhow::Result<bool> {
        if finished {
            self.last_look(seed).await?;
            self.check_journals();
        }
        let restores = self.violations.is_empty() && terms::restores(seed, &args.classes);
        if restores {
            self.environment.change_binaries(release, false)?;
            self.restore().await?;
        }
        tasks.shutdown().await;
        if finished && let Err(error) = self.environment.stop().await {
            self.violations.insert(Violation::Crashed(format!("{error:#}")));
        }
        match restores {
            true => self.check_restored(),
            false => self.check_journals(),
        }
        self.finish(args, seed)
    }

    /// A round's faults, then healing, then a look at everything but the journals.
    async fn round(&mut self, round: &Round) -> anyhow::Result<()> {
        self.gate.send_replace(true);
        self.neighbours.iter().for_each(|it| it.heal(false));
        {
            let mut playing =
                std::pin::pin!(fault_injector::play(&self.environment, round, &self.counts));
            loop {
                tokio::select! {
                    played = &mut playing => break played?,
                    () = sleep(PROGRESS) => self.market_line(),
                }
            }
        }
        self.gate.send_replace(false);
        self.environment.heal()?;
        self.neighbours.iter().for_each(|it| it.heal(true));
        let healed = Instant::now();
        let open = self.resolve(healed).await;
        self.resolved.push(Resolved { power: round.power, took: healed.elapsed() });
        let resolved = self.resolved.last().map_or(Duration::ZERO, |it| it.took);
        println!(
            "  healed; resolved {:.1} s later{}",
            resolved.as_secs_f64(),
            open.as_ref().map_or(String::new(), |open| format!(", but not all: {open}"))
        );
        if let Some(open) = open {
            let text = format!("{open}, {:?} after healing", self.resolve_within);
            self.violations.insert(Violation::Open(text));
        }
        self.check_books()
    }

    /// Waits until no client is in doubt and nothing is open anywhere. What still is
    /// at the deadline, if anything.
    async fn resolve(&self, healed: Instant) -> Option<String> {
        loop {
            let busy = self.catalog.busy.load(Relaxed);
            let files = self.files();
            let open = match Books::read_open(files.each_ref().map(PathBuf::as_path)) {
                _ if busy > 0 => format!("{busy} clients don't know an outcome"),
                Err(error) => format!("{error:#}"),
                Ok(books) => self.with_neighbours(books).open()?,
            };
            if healed.elapsed() > self.resolve_within {
                return Some(open);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn check_books(&mut self) -> anyhow::Result<()> {
        let (books, journals) = (self.books()?, self.journals()?);
        let cases = self.catalog.history.lock();
        // All answers again: an old case may have been asked about.
        let witness = journals.witness.as_ref();
        self.violations.extend(cases.iter().flat_map(|case| checker::check_case(case, witness)));
        self.violations.extend(checker::check_books(
            &cases,
            &catalog::opening(),
            &books,
            &journals,
        ));
        let crashes = self.environment.seen().crashes;
        self.violations.extend(crashes.into_iter().map(Violation::Crashed));
        Ok(())
    }

    /// Every known outcome is asked for again, of coordinators that have just been
    /// started.
    async fn last_look(&mut self, seed: u64) -> anyhow::Result<()> {
        for role in Role::ALL {
            self.environment.hold_down(role);
            self.environment.let_up(role);
        }
        let mut client = self.client(usize::MAX, seed)?;
        client.transactions =
            TransactionServiceClient::new(channel(self.environment.addresses().coordinator));
        eventually("the coordinator serves", async || {
            ensure!(client.serves().await, "not yet");
            Ok(())
        })
        .await?;
        if let Err(error) = client.ask_all_again().await {
            self.violations.insert(Violation::NeverKnown(format!("{error:#}")));
        }
        if let Some(open) = self.resolve(Instant::now()).await {
            self.violations.insert(Violation::Open(open));
        }
        self.check_books()
    }

    /// The coordinator loses its disk under way, and goes on with a backup that was taken
    /// before, until clients know what can be known.
    async fn restore(&mut self) -> anyhow::Result<()> {
        println!("  the coordinator's disk will be lost, and a backup restored");
        self.gate.send_replace(true);
        sleep(BEFORE_BACKUP).await;
        let backup = self.environment.back_up()?;
        sleep(AFTER_BACKUP).await;
        self.environment.hold_down(Role::Coordinator);
        self.environment.restore(&backup)?;
        self.environment.let_up(Role::Coordinator);
        sleep(AFTER_BACKUP).await;
        self.gate.send_replace(false);
        let busy = || self.catalog.busy.load(Relaxed);
        let end = Instant::now() + self.resolve_within;
        while busy() > 0 && Instant::now() < end {
            sleep(PROGRESS / 10).await;
        }
        if busy() > 0 {
            let text = format!("{} clients don't know an outcome after the restore", busy());
            self.violations.insert(Violation::Open(text));
        }
        Ok(())
    }

    fn check_restored(&mut self) {
        let crashes = self.environment.seen().crashes;
        self.violations.extend(crashes.into_iter().map(Violation::Crashed));
        match self.journals() {
            Ok(journals) => {
                let cases = self.catalog.history.lock();
                self.violations.extend(checker::check_restored(&cases, &journals));
            }
            Err(error) => {
                self.violations.insert(Violation::Damaged(format!("{error:#}")));
            }
        }
    }

    fn check_journals(&mut self) {
        let found = match self.journals() {
            Ok(journals) => checker::check_journals(&self.catalog.history.lock(), &journals),
            Err(error) => vec![Violation::Damaged(format!("{error:#}"))],
        };
        self.violations.extend(found);
    }

    fn journals(&self) -> anyhow::Result<Journals> {
        let files = self.files();
        let files = files.each_ref().map(PathBuf::as_path);
        let mut journals = Journals::read(files, Some(self.remembered))?;
        self.neighbours.iter().for_each(|it| it.testify(&mut journals));
        Ok(journals)
    }

    /// Operators who change registrations and look after what is forgotten.
    fn employ(&self, classes: &Classes, seed: u64, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
        let addresses = self.environment.addresses();
        let participants = [addresses.inventory, addresses.payment, addresses.order];
        if classes.has(Class::Retention) || classes.has(Class::Bytes) {
            let participants = participants.map(channel).into();
            tasks.spawn(caretaker::run(participants, self.gate.subscribe()));
        }
        if classes.has(Class::Names) {
            let through = |role, address| {
                let proxy = self.environment.wire(Wire::Down(role)).address();
                [format!("http://{proxy}"), format!("http://{address}")]
            };
            let registrar = Registrar {
                registry: wire_channel(&self.environment, Wire::Clients(0))?,
                addresses: [
                    through(Role::Inventory, addresses.inventory),
                    through(Role::Payment, addresses.payment),
                ],
                random: StdRng::seed_from_u64(seed),
            };
            tasks.spawn(registrar.run(self.gate.subscribe()));
        }
        Ok(())
    }

    fn finish(mut self, args: &Args, seed: u64) -> anyhow::Result<bool> {
        let seen = self.environment.seen();
        let numbers = self.catalog.tally.numbers();
        report::print(&self.counts.by_name(), &numbers, &self.resolved, &seen, self.resolve_within);
        let good = self.violations.is_empty();
        for violation in self.violations.iter().take(SHOWN) {
            println!("VIOLATION {violation}");
        }
        if self.violations.len() > SHOWN {
            println!("... and {} more", self.violations.len() - SHOWN);
        }
        if !good || args.keep {
            let environment =
                Arc::get_mut(&mut self.environment).context("nothing else uses the environment")?;
            println!("\nDatabases and logs are kept in {}", environment.keep().display());
        }
        match good {
            true => println!("\nSeed {seed}: nothing was lost, done twice or left half done."),
            false => println!("\nSeed {seed}: FAILED with {} violations.", self.violations.len()),
        }
        Ok(good)
    }

    fn files(&self) -> [PathBuf; 4] {
        Role::ALL.map(|role| self.environment.database(role))
    }

    fn books(&self) -> anyhow::Result<Books> {
        let files = self.files();
        Ok(self.with_neighbours(Books::read(files.each_ref().map(PathBuf::as_path))?))
    }

    fn with_neighbours(&self, mut books: Books) -> Books {
        books.undecided.extend(self.neighbours.iter().map(|it| (it.name, it.undecided())));
        books
    }

    fn market_line(&self) {
        let (begun, total) = (self.begun.elapsed(), self.catalog.tally.numbers().total());
        println!(
            "{:>5.0} s: {} tried, {} committed, {} aborted, {} answers unknown, {} faults",
            begun.as_secs_f64(),
            total.tried,
            total.committed,
            total.aborted,
            total.unknown,
            self.counts.total()
        );
    }

    fn client(&self, number: usize, seed: u64) -> anyhow::Result<Client> {
        let addresses = self.environment.addresses();
        let through =
            |wire| wire_channel(&self.environment, wire).map(TransactionServiceClient::new);
        Ok(Client {
            number,
            random: StdRng::seed_from_u64(seed ^ (number as u64) << 32),
            catalog: Arc::clone(&self.catalog),
            transactions: through(Wire::Clients(number % 2))?,
            admin: wire_channel(&self.environment, Wire::Clients(number % 2))
                .map(AdminServiceClient::new)?,
            other_way: through(Wire::Clients((number + 1) % 2))?,
            inventory: InventoryServiceClient::new(channel(addresses.inventory)),
            payment: PaymentServiceClient::new(channel(addresses.payment)),
            open: self.gate.subscribe(),
        })
    }
}

/// As a careful client connects: it finds out when nobody is at the other end.
fn wire_channel(environment: &Environment, wire: Wire) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", environment.wire(wire).address()))?;
    Ok(endpoint
        .connect_timeout(KEEP_ALIVE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true)
        .connect_lazy())
}

async fn stock_up(environment: &Environment) -> anyhow::Result<()> {
    let shop = Shop::new(environment.addresses());
    let opening = catalog::opening();
    eventually("the participants serve", async || {
        shop.all_stock().await?;
        shop.all_accounts().await?;
        shop.all_orders().await?;
        Ok(())
    })
    .await?;
    for (sku, on_hand) in &opening.stock {
        shop.stock_up(sku, *on_hand).await?;
    }
    for (account, balance) in &opening.accounts {
        shop.open_account(account, *balance).await?;
    }
    Ok(())
}
