//! One of the four services on a machine of its own: started, killed, robbed of
//! its power, started again.

use std::{
    cell::{Cell, RefCell},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use dtc_runtime::{Environment, Shutdown};
use dtc_service::Fatal;
use dtc_store::{FailStop, Options, Runner};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::Notify;
use turmoil::Sim;

use super::network::Simulated;
use crate::{Role, power, vfs::Disk, wall_clock::off_by};

/// The first second of the simulated time, after 1970.
pub(super) const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// The port of every service, on its own machine.
pub(super) const PORT: u16 = 7100;

/// A machine and the service on it.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) role: Role,
    shared: Rc<Machine>,
}

/// How a service is configured.
#[derive(Default)]
pub(super) struct Configuration {
    /// For every start.
    pub(super) flags: Vec<String>,
    /// Beside those, for a start by its number.
    pub(super) changing: Option<Box<dyn Fn(u32) -> Vec<String>>>,
    /// See [`Environment`].
    pub(super) retention_floor: Option<Duration>,
}

struct Machine {
    folder: PathBuf,
    configuration: Configuration,
    /// Where its files are in the next start.
    data: RefCell<PathBuf>,
    disk: Arc<Disk>,
    random: Arc<Mutex<StdRng>>,
    /// The longest that a step of the storage takes, in microseconds.
    slowness: Arc<AtomicU64>,
    /// How far the wall clock is off, in milliseconds.
    clock_error: Arc<AtomicI64>,
    network: Simulated,
    /// Told when the process is being killed.
    killed: RefCell<Rc<Notify>>,
    shutdown: RefCell<Shutdown>,
    /// What the process asked to end with; 255 for nothing.
    exit: Arc<AtomicU8>,
    ended: RefCell<Option<Result<(), Fatal>>>,
    starts: Cell<u32>,
    backup: Cell<Backup>,
    is_displaced: Cell<bool>,
}

/// What has become of a machine's backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Backup {
    #[default]
    None,
    Taken,
    /// It takes the place of the files at the next start.
    Due,
    /// All starts know of it.
    Restored,
}

const RUNS_ON: u8 = 255;

impl Node {
    /// A machine that is added to the simulation and starts with it.
    pub(super) fn add(
        sim: &mut Sim<'static>,
        role: Role,
        folder: &Path,
        mut configuration: Configuration,
        seed: u64,
    ) -> Self {
        let address = format!("0.0.0.0:{PORT}");
        let fixed = [role.package(), "--listen", &address, "--min-free", "0"];
        configuration.flags.splice(0..0, fixed.map(String::from));
        let shared = Rc::new(Machine {
            folder: folder.into(),
            data: RefCell::new(folder.into()),
            configuration,
            disk: Disk::of(&folder.join(format!("{}.db", role.name()))),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            slowness: Arc::new(AtomicU64::new(2000)),
            clock_error: Arc::default(),
            network: Simulated::default(),
            killed: RefCell::default(),
            shutdown: RefCell::default(),
            exit: Arc::new(AtomicU8::new(RUNS_ON)),
            ended: RefCell::default(),
            starts: Cell::default(),
            backup: Cell::default(),
            is_displaced: Cell::default(),
        });
        let node = Self { role, shared };
        let program = node.clone();
        sim.host(role.name(), move || {
            let node = program.clone();
            let killed = Rc::clone(&node.shared.killed.borrow());
            async move {
                tokio::select! {
                    biased;
                    () = killed.notified() => {
                        node.shared.network.hang_up();
                        std::future::pending().await
                    }
                    () = node.run() => Ok(()),
                }
            }
        });
        node
    }

    async fn run(&self) {
        let machine = &self.shared;
        machine.starts.set(machine.starts.get() + 1);
        let environment = self.environment();
        *machine.shutdown.borrow_mut() = environment.shutdown.clone();
        let data = machine.data.borrow().display().to_string();
        let Configuration { flags, changing, .. } = &machine.configuration;
        let more = changing.as_ref().map(|flags| flags(machine.starts.get()));
        let flags = flags.iter().cloned().chain(["--data".into(), data]);
        let restored = machine.backup.get() == Backup::Restored;
        let flags = flags.chain(more.into_iter().flatten());
        let flags = flags.chain(restored.then(|| "--restored".into()));
        let ended = match self.role {
            Role::Coordinator => coordinator::run_in(environment, flags).await,
            Role::Inventory => participant_inventory::program().run_in(environment, flags).await,
            Role::Payment => participant_payment::program().run_in(environment, flags).await,
            Role::Order => participant_order::program().run_in(environment, flags).await,
        };
        *machine.ended.borrow_mut() = Some(ended);
    }

    fn environment(&self) -> Environment {
        let machine = &self.shared;
        let exit = Arc::clone(&machine.exit);
        let end = Arc::new(move |code: u8| {
            let _ = exit.compare_exchange(RUNS_ON, code, SeqCst, SeqCst);
        });
        let on_failure = {
            let end = Arc::clone(&end);
            FailStop::new(move |failure| {
                tracing::error!("{failure}");
                end(u8::try_from(failure.exit_code()).unwrap_or(1));
            })
        };
        let random = Arc::clone(&machine.random);
        let random: dtc_store::Random = Arc::new(move || lock(&random).random());
        let (dice, slowness) = (Arc::clone(&machine.random), Arc::clone(&machine.slowness));
        let pace =
            move || Duration::from_micros(lock(&dice).random_range(0..=slowness.load(SeqCst)));
        let error = Arc::clone(&machine.clock_error);
        Environment {
            network: Arc::new(machine.network.clone()),
            wall_clock: Arc::new(move || {
                let elapsed = turmoil::sim_elapsed().unwrap_or_default();
                off_by(EPOCH + elapsed, error.load(SeqCst))
            }),
            random: Arc::clone(&random),
            storage: Options {
                on_failure,
                runner: Runner::Tasks(Arc::new(pace)),
                random,
                ..Options::default()
            },
            retention_floor: machine.configuration.retention_floor,
            shutdown: Shutdown::new(),
            exit: Arc::new(move |code| end(code as u8)),
        }
    }

    /// Its database.
    pub(super) fn database(&self) -> PathBuf {
        self.shared.folder.join(format!("{}.db", self.role.name()))
    }

    /// Its disk.
    pub(super) fn disk(&self) -> &Disk {
        &self.shared.disk
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> u32 {
        self.shared.starts.get()
    }

    /// Lets each step of its storage take up to `longest`.
    pub(super) fn slow_down(&self, longest: Duration) {
        self.shared.slowness.store(longest.as_micros() as u64, SeqCst);
    }

    /// Sets its wall clock to be off by so many milliseconds.
    pub(super) fn set_clock_error(&self, milliseconds: i64) {
        self.shared.clock_error.store(milliseconds, SeqCst);
    }

    /// From its next start on it has the journal of somebody else, or its own again.
    pub(super) fn use_journal_of(&self, stranger: Option<&str>) {
        let own = &self.shared.folder;
        let data = stranger.map_or_else(|| own.clone(), |name| own.with_file_name(name));
        *self.shared.data.borrow_mut() = data;
    }

    /// SIGTERM.
    pub(super) fn stop(&self) {
        self.shared.shutdown.borrow().begin();
    }

    /// Its process ends as with SIGKILL: nothing is written from here on, and
    /// nothing sent after the next step, when [`Self::bury`] is to be called.
    pub(super) fn kill(&self) {
        self.disk().cut();
        self.shared.killed.borrow().notify_one();
    }

    /// Takes away what is left of a process that was killed.
    pub(super) fn bury(&self, sim: &mut Sim<'static>) {
        sim.crash(self.role.name());
        self.shared.network.hang_up();
        self.shared.killed.take();
        self.shared.ended.borrow_mut().take();
        self.shared.exit.store(RUNS_ON, SeqCst);
    }

    /// Starts it again after it was buried.
    pub(super) fn start(&self, sim: &mut Sim<'static>) -> io::Result<()> {
        if self.shared.backup.get() == Backup::Due {
            self.disk().replace(&self.backup())?;
            self.shared.backup.set(Backup::Restored);
        }
        self.disk().restore();
        sim.bounce(self.role.name());
        Ok(())
    }

    fn backup(&self) -> PathBuf {
        self.shared.folder.join("backup")
    }

    /// Copies its files as they are, in the middle of its work.
    pub(super) fn back_up(&self) -> io::Result<()> {
        power::copy(&self.database(), &self.backup())?;
        self.shared.backup.set(Backup::Taken);
        Ok(())
    }

    /// At its next start it has its backup only; false if there is none.
    pub(super) fn restore_at_start(&self) -> bool {
        let taken = self.shared.backup.get() == Backup::Taken;
        if taken {
            self.shared.backup.set(Backup::Due);
        }
        taken
    }

    /// Moves its files away under it; false if it has others now.
    pub(super) fn displace(&self) -> io::Result<bool> {
        let own = *self.shared.data.borrow() == self.shared.folder;
        if own && !self.shared.is_displaced.replace(true) {
            power::displace(&self.database(), &self.displaced())?;
        }
        Ok(own)
    }

    /// Moves them back; true if they were away.
    pub(super) fn put_back(&self) -> io::Result<bool> {
        let was_displaced = self.shared.is_displaced.replace(false);
        if was_displaced {
            power::displace(&self.displaced(), &self.database())?;
        }
        Ok(was_displaced)
    }

    fn displaced(&self) -> PathBuf {
        self.shared.folder.join("displaced")
    }

    /// How it has ended by itself, if it has: its exit code and why.
    pub(super) fn ended(&self) -> Option<(u8, String)> {
        match self.shared.exit.load(SeqCst) {
            RUNS_ON => match &*self.shared.ended.borrow() {
                None => None,
                Some(Ok(())) => Some((0, "stopped".into())),
                Some(Err(fatal)) => Some((fatal.exit, fatal.reason.clone())),
            },
            code => Some((code, "ended by itself".into())),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
