//! One run: four machines, their clients, the faults, and the checks.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use dtc_proto::dtc::{
    admin_service_client::AdminServiceClient, transaction_service_client::TransactionServiceClient,
};

use dtc_runtime::Network;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shop_proto::{
    inventory_service_client::InventoryServiceClient, payment_service_client::PaymentServiceClient,
};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use turmoil::{Builder, Sim};

use super::{
    audience::Audience,
    classes::{Drawn, HTTP, UNARY},
    fault_injector::FaultInjector,
    network::Simulated,
    node::{Configuration, Node, PORT},
    plan::{CLIENTS, HEALED, Plan},
};
use crate::{
    Role,
    classes::{Classes, flags_of_start},
    neighbour::{Neighbour, Speech},
    workload::{
        books::{Books, Journals},
        caretaker,
        catalog::{self, Extras},
        checker::{self, Violation},
        client::{Catalog, Client},
        registrar::Registrar,
        tally::Count,
        witness::Remembered,
    },
};

/// How long everything may take to be resolved after healing, in simulated time.
pub(super) const RESOLVED_WITHIN: Duration = Duration::from_secs(90);
/// How long the last questions may take.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// How long is waited where something may stay open for ever.
const SETTLED_WITHIN: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(250);
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) violations: Vec<Violation>,
    pub(super) history: String,
    pub(super) total: Count,
    pub(super) faults: Vec<(&'static str, usize)>,
    /// From healing until nothing was open.
    pub(super) resolved: Duration,
    /// Simulated.
    pub(super) length: Duration,
}

struct Run {
    sim: Sim<'static>,
    fault_injector: FaultInjector,
    catalog: Arc<Catalog>,
    gate: watch::Sender<bool>,
    asked: Rc<RefCell<Option<anyhow::Result<usize>>>>,
    ask: Rc<Cell<bool>>,
    violations: Vec<Violation>,
    neighbours: Vec<Neighbour>,
    remembered: Remembered,
    restores: bool,
}

/// Runs one seed in `folder`, which is made and removed.
pub(super) fn run(
    seed: u64,
    classes: &Classes,
    filter: &str,
    folder: &Path,
    opening: &Path,
) -> anyhow::Result<Outcome> {
    let audience = Audience::new(filter, &folder.display().to_string());
    let mut random = StdRng::seed_from_u64(seed);
    let plan = Plan::draw(seed, classes, &mut random);
    tracing::info!(drawn = ?plan.drawn, "begins");
    let mut run = Run::new(&plan, folder, opening, &mut random)?;
    let resolved = run.play(&plan)?;
    if run.violations.is_empty() && !plan.drawn.restores {
        run.last_look()?;
    }
    let (total, length) = (run.catalog.tally.numbers().total(), run.sim.elapsed());
    let faults = run.fault_injector.counts.clone().into_iter().collect();
    let violations = run.finish()?;
    let history = audience.history();
    fs::remove_dir_all(folder)?;
    Ok(Outcome { seed, violations, history, total, faults, resolved, length })
}

impl Run {
    fn new(
        plan: &Plan,
        folder: &Path,
        opening: &Path,
        random: &mut StdRng,
    ) -> anyhow::Result<Self> {
        let mut sim = Builder::new()
            .rng_seed(random.random())
            .simulation_duration(Duration::from_secs(3600))
            .tick_duration(plan.tick)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(plan.latency)
            .tcp_capacity(65_536)
            .build();
        let nodes = Role::ALL.map(|role| {
            let folder = folder.join(role.name());
            let seed = random.random();
            let changing = (role == Role::Coordinator && plan.drawn.flags).then(|| {
                let changing: Box<dyn Fn(u32) -> Vec<String>> =
                    Box::new(move |start| flags_of_start(seed, start));
                changing
            });
            let retention_floor = plan.drawn.floor;
            let flags = flags(role, plan);
            let configuration = Configuration { flags, changing, retention_floor };
            Node::add(&mut sim, role, &folder, configuration, seed)
        });
        for node in &nodes {
            let database = node.database();
            fs::create_dir_all(database.parent().unwrap_or(folder))?;
            fs::copy(opening.join(node.role.name()), database)?;
        }
        let catalog = Arc::new(Catalog {
            history: Default::default(),
            tally: Default::default(),
            progress: Box::new(|| (super::now().as_secs_f64() / HEALED.as_secs_f64()).min(1.0)),
            busy: Default::default(),
            rest: plan.rest,
            now: || super::clock().unwrap_or_default(),
            extras: extras(&plan.drawn),
        });
        let mut run = Self {
            sim,
            fault_injector: FaultInjector::new(nodes, plan.latency),
            catalog,
            gate: watch::Sender::new(true),
            asked: Rc::default(),
            ask: Rc::default(),
            violations: Vec::new(),
            neighbours: Vec::new(),
            remembered: remembered(&plan.drawn),
            restores: plan.drawn.restores,
        };
        for (host, name) in CLIENTS.into_iter().enumerate() {
            let seeds = (0..plan.clients).map(|_| random.random()).collect();
            run.add_clients(name, host * plan.clients, seeds);
        }
        run.add_auditor(random.random());
        run.add_drawn(&plan.drawn, random);
        Ok(run)
    }

    fn add_clients(&mut self, host: &'static str, first: usize, seeds: Vec<u64>) {
        let (catalog, gate) = (Arc::clone(&self.catalog), self.gate.subscribe());
        self.sim.host(host, move || {
            let (catalog, gate, seeds) = (Arc::clone(&catalog), gate.clone(), seeds.clone());
            async move {
                for (number, seed) in seeds.into_iter().enumerate() {
                    let client = client(first + number, seed, &catalog, &gate)?;
                    tokio::spawn(client.run());
                }
                std::future::pending().await
            }
        });
    }

    /// Participants and people that not every run has.
    fn add_drawn(&mut self, drawn: &Drawn, random: &mut StdRng) {
        if let Some(manners) = drawn.neighbours {
            for (name, speech) in [(HTTP, Speech::Http), (UNARY, Speech::Calls)] {
                let seed = random.random();
                let neighbour = Neighbour::new(name, speech, manners, seed);
                self.neighbours.push(neighbour.clone());
                self.sim.host(name, move || {
                    let neighbour = neighbour.clone();
                    async move {
                        let port = ([0; 4], PORT).into();
                        let port = Simulated::default().bind(port).await?;
                        Ok(neighbour.serve(port).await?)
                    }
                });
            }
        }
        if drawn.retention.or(drawn.floor).is_some() && !drawn.restores {
            let gate = self.gate.subscribe();
            self.sim.host("caretaker", move || {
                let gate = gate.clone();
                async move {
                    let participants = Role::ALL[1..].iter().map(|role| channel(*role));
                    caretaker::run(participants.collect::<Result<_, _>>()?, gate).await;
                    Ok(())
                }
            });
        }
        if drawn.names {
            let (seed, gate) = (random.random(), self.gate.subscribe());
            self.sim.host("registrar", move || {
                let (random, gate) = (StdRng::seed_from_u64(seed), gate.clone());
                async move {
                    let registry = channel(Role::Coordinator)?;
                    let addresses = [Role::Inventory, Role::Payment].map(two_spellings);
                    Registrar { registry, addresses, random }.run(gate).await;
                    Ok(())
                }
            });
        }
    }

    /// Asks for all outcomes once more when it is told to.
    fn add_auditor(&mut self, seed: u64) {
        let (catalog, gate) = (Arc::clone(&self.catalog), self.gate.subscribe());
        let (ask, asked) = (Rc::clone(&self.ask), Rc::clone(&self.asked));
        self.sim.host("auditor", move || {
            let (catalog, gate) = (Arc::clone(&catalog), gate.clone());
            let (ask, asked) = (Rc::clone(&ask), Rc::clone(&asked));
            async move {
                let mut client = client(usize::MAX, seed, &catalog, &gate)?;
                loop {
                    tokio::time::sleep(LOOK).await;
                    if ask.get() {
                        let answer = client.ask_all_again().await;
                        // Right after a start they may not all be there.
                        ask.set(answer.is_err());
                        *asked.borrow_mut() = Some(answer);
                    }
                }
            }
        });
    }

    /// The faults, healing, and the wait until nothing is open; how long that took.
    fn play(&mut self, plan: &Plan) -> anyhow::Result<Duration> {
        let mut coming = plan.faults.iter().peekable();
        while self.sim.elapsed() < HEALED {
            let now = self.step()?;
            while let Some(planned) = coming.next_if(|planned| planned.at <= now) {
                self.fault_injector.strike(&mut self.sim, *planned)?;
            }
        }
        self.gate.send_replace(false);
        let healed = self.sim.elapsed();
        self.neighbours.iter().for_each(|it| it.heal(true));
        self.fault_injector.heal(&mut self.sim, healed)?;
        match plan.drawn.restores {
            true => self.settle(healed),
            false => self.resolve(healed),
        }
    }

    /// Waits until clients know what can be known. What a restored journal has lost
    /// stays in doubt.
    fn settle(&mut self, since: Duration) -> anyhow::Result<Duration> {
        while self.sim.elapsed() < since + SETTLED_WITHIN {
            self.step()?;
        }
        let busy = self.catalog.busy.load(Relaxed);
        if busy > 0 {
            let text = format!("{busy} clients don't know an outcome");
            self.violations.push(Violation::Open(text));
        }
        Ok(SETTLED_WITHIN)
    }

    fn step(&mut self) -> anyhow::Result<Duration> {
        self.sim.step().map_err(|error| anyhow::anyhow!("{error}"))?;
        let now = self.sim.elapsed();
        super::set_now(now);
        self.fault_injector.tend(&mut self.sim, now)?;
        Ok(now)
    }

    fn resolve(&mut self, since: Duration) -> anyhow::Result<Duration> {
        loop {
            let pause = self.sim.elapsed() + LOOK;
            while self.sim.elapsed() < pause {
                self.step()?;
            }
            let took = self.sim.elapsed() - since;
            let busy = self.catalog.busy.load(Relaxed);
            let open = match self.books() {
                _ if busy > 0 => format!("{busy} clients don't know an outcome"),
                Err(error) => format!("{error:#}"),
                Ok(books) => match books.open() {
                    Some(open) => open,
                    None => return Ok(took),
                },
            };
            if took > RESOLVED_WITHIN {
                self.violations.push(Violation::Open(format!("{open}, {took:?} after healing")));
                return Ok(took);
            }
        }
    }

    /// All four start once more, and every known outcome is asked for again.
    fn last_look(&mut self) -> anyhow::Result<()> {
        let now = self.sim.elapsed();
        for index in 0..self.fault_injector.nodes.len() {
            self.fault_injector.kill(index, now, now, false);
        }
        self.ask.set(true);
        let end = self.sim.elapsed() + ASKED_WITHIN;
        while self.ask.get() && self.sim.elapsed() < end {
            self.step()?;
        }
        let unknown = match self.asked.borrow_mut().take() {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(format!("{error:#}")),
            None => Some(format!("not all outcomes were told again within {ASKED_WITHIN:?}")),
        };
        self.violations.extend(unknown.map(Violation::NeverKnown));
        let since = self.sim.elapsed();
        self.resolve(since)?;
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<Vec<Violation>> {
        self.violations.extend(self.fault_injector.crashes.drain(..).map(Violation::Crashed));
        self.violations.extend(super::take_panics().into_iter().map(Violation::Crashed));
        let checked = self.check();
        self.violations.extend(checked);
        for node in &self.fault_injector.nodes {
            node.disk().cut();
            node.bury(&mut self.sim);
            node.disk().remove();
        }
        Ok(self.violations)
    }

    /// Holds the history against the books and the journals.
    fn check(&self) -> Vec<Violation> {
        let cases = self.catalog.history.lock();
        let files = self.files();
        let files = files.each_ref().map(PathBuf::as_path);
        let damaged = |error: anyhow::Error| vec![Violation::Damaged(format!("{error:#}"))];
        let mut journals = match Journals::read(files, Some(self.remembered)) {
            Ok(journals) => journals,
            Err(error) => return damaged(error),
        };
        self.neighbours.iter().for_each(|it| it.testify(&mut journals));
        if self.restores {
            return checker::check_restored(&cases, &journals);
        }
        let mut found = match self.books() {
            Ok(books) => checker::check_books(&cases, &catalog::opening(), &books, &journals),
            Err(error) => damaged(error),
        };
        let witness = journals.witness.as_ref();
        found.extend(cases.iter().flat_map(|case| checker::check_case(case, witness)));
        found.extend(checker::check_journals(&cases, &journals));
        found
    }

    fn files(&self) -> [PathBuf; 4] {
        self.fault_injector.nodes.each_ref().map(Node::database)
    }

    fn books(&self) -> anyhow::Result<Books> {
        let files = self.files();
        let mut books = Books::read(files.each_ref().map(PathBuf::as_path))?;
        books.undecided.extend(self.neighbours.iter().map(|it| (it.name, it.undecided())));
        Ok(books)
    }
}

fn flags(role: Role, plan: &Plan) -> Vec<String> {
    let url = |role: Role| format!("http://{}:{PORT}", role.name());
    let named = |name: &str, url: String| ["--participant".into(), format!("{name}={url}")];
    let drawn = &plan.drawn;
    let mut flags = Vec::new();
    match role {
        Role::Coordinator => {
            flags.extend(Role::ALL[1..].iter().flat_map(|&role| named(role.name(), url(role))));
            flags.extend(plan.flags.iter().cloned());
            if drawn.neighbours.is_some() {
                flags.extend(named(HTTP, format!("http://{HTTP}:{PORT}/prepare")));
                flags.extend(named(UNARY, format!("http://{UNARY}:{PORT}")));
            }
            if drawn.names {
                flags.extend(["--allow-participant".into(), "*".into()]);
            }
        }
        _ => flags.extend(["--coordinator".into(), url(Role::Coordinator)]),
    }
    if let Some(retention) = drawn.retention {
        flags.extend(["--retention".into(), format!("{}ms", retention.as_millis())]);
    }
    if drawn.floor.is_some() {
        flags.extend(["--retention-bytes".into(), "1".into()]);
    }
    flags
}

/// Of one place: by its name, and by its number.
fn two_spellings(role: Role) -> [String; 2] {
    let number = turmoil::lookup(role.name());
    [format!("http://{}:{PORT}", role.name()), format!("http://{number}:{PORT}")]
}

fn extras(drawn: &Drawn) -> Extras {
    let mut extras = Extras {
        forgets: drawn.retention.or(drawn.floor).is_some() || drawn.restores,
        operators: drawn.operators,
        loses: drawn.restores,
        refuses: drawn.names || drawn.flags || drawn.restores,
        ..Extras::default()
    };
    if drawn.neighbours.is_some() {
        extras.neighbours = vec![(HTTP, drawn.payload), (UNARY, drawn.payload)];
    }
    if drawn.names {
        extras.names = [
            vec!["inventory-b", "http://inventory:7100"],
            vec!["payment-b", "http://payment:7100"],
            Vec::new(),
        ];
    }
    extras
}

/// Longer than any run, where nothing else was drawn.
fn remembered(drawn: &Drawn) -> Remembered {
    const LONG: Duration = Duration::from_secs(3600);
    let least = drawn.retention.unwrap_or(LONG).min(drawn.floor.unwrap_or(LONG));
    let on_its_way = Duration::from_secs(2);
    Remembered { coordinator: least, participants: least, on_its_way }
}

fn client(
    number: usize,
    seed: u64,
    catalog: &Arc<Catalog>,
    open: &watch::Receiver<bool>,
) -> anyhow::Result<Client> {
    Ok(Client {
        number,
        random: StdRng::seed_from_u64(seed),
        catalog: Arc::clone(catalog),
        transactions: TransactionServiceClient::new(channel(Role::Coordinator)?),
        admin: AdminServiceClient::new(channel(Role::Coordinator)?),
        other_way: TransactionServiceClient::new(channel(Role::Coordinator)?),
        inventory: InventoryServiceClient::new(channel(Role::Inventory)?),
        payment: PaymentServiceClient::new(channel(Role::Payment)?),
        open: open.clone(),
    })
}

/// As a careful client connects: it finds out when nobody is at the other end.
pub(super) fn channel(role: Role) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}:{PORT}", role.name()))?
        .connect_timeout(KEEP_ALIVE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    Ok(Simulated::default().connect_lazy(&endpoint))
}
