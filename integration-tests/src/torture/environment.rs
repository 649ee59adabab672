//! The processes, the wires between them, and who starts again what has ended.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;
use tokio::time::sleep;

use super::{plan::Wire, small_disk::SmallDisk};
use crate::{
    Addresses, Binaries, Process, Proxy, Role, Start, classes::flags_of_start, power,
    process::with_test_vfs, vfs, wall_clock, workload::witness,
};

/// How long the supervisor lets pass before it starts again what has ended.
const RESTART_AFTER: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(50);
/// How long after a database was moved back at the latest its process may still run: it
/// may have been paused until then.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// Bytes of disk that are kept free on the small file system.
const SMALL_MIN_FREE: u64 = 1 << 20;

/// What a process may end with while its disk fails: 74, and 2 where its lock
/// file could not be written.
const DISK_CODES: [i32; 2] = [74, 2];

/// One process, as its supervisor sees it.
#[derive(Debug)]
struct Host {
    process: Process,
    args: Start,
    /// Faults that keep it down.
    held_down: usize,
    ended_at: Option<Instant>,
    file_limit: Option<u64>,
    storage_fails: bool,
    disk_failed_at: Option<Instant>,
    starts: u32,
    /// Whether its database is moved away.
    is_displaced: bool,
}

impl Host {
    fn clock_file(&self) -> PathBuf {
        self.process.database().with_extension("clock")
    }

    /// Where its database is while it is moved away.
    fn displaced(&self) -> PathBuf {
        self.process.database().with_extension("displaced")
    }

    fn put_back(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_displaced) {
            power::displace(&self.displaced(), &self.process.database())?;
        }
        Ok(())
    }

    fn note_failing(&mut self, fails: bool) {
        if fails || self.storage_fails {
            self.disk_failed_at = Some(Instant::now());
        }
        self.storage_fails = fails;
    }
}

/// What the supervisor saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) starts: usize,
    /// Ends that no SIGKILL of ours made, by how.
    pub(super) ends: BTreeMap<String, usize>,
    /// Those that must not be.
    pub(super) crashes: Vec<String>,
    /// In bytes, by role.
    pub(super) peak_memory: BTreeMap<&'static str, u64>,
}

/// Everything that faults can be done to.
#[derive(Debug)]
pub(super) struct Environment {
    hosts: [Mutex<Host>; 4],
    wires: Vec<(Wire, Proxy)>,
    seen: Mutex<Seen>,
    addresses: Addresses,
    small: Option<SmallDisk>,
    /// What other flags of each start are drawn from.
    flags: Option<u64>,
    is_restored: AtomicBool,
    // Last: the small disk has to go first.
    folder: TempDir,
}

impl Environment {
    /// Nothing runs yet. With `small`, that process's data is on a small file
    /// system, where the system lets us make one.
    /// `others` are named to the coordinator, with where they are, beside the shop's;
    /// `flags` are for all four.
    pub(super) async fn new(
        small: Option<Role>,
        others: &[(&'static str, String)],
        flags: &Start,
        changing_flags: Option<u64>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dtc-torture-").tempdir()?;
        let small = small.and_then(|role| SmallDisk::mount(role, folder.path()));
        let addresses = Addresses::pick();
        let mut wires = Vec::new();
        for wire in Wire::ALL {
            let server = match wire {
                Wire::Down(role) => address(&addresses, role),
                Wire::Up(_) | Wire::Clients(_) => addresses.coordinator,
            };
            wires.push((wire, Proxy::start(server).await?));
        }
        let at = |wire| {
            let found = wires.iter().find(|(it, _)| *it == wire);
            found.map(|(_, proxy)| format!("http://{}", proxy.address())).unwrap_or_default()
        };
        let hosts = Role::ALL.map(|role| {
            let mut args = match role {
                Role::Coordinator => {
                    let at = |participant: Role| at(Wire::Down(participant));
                    let known = [Role::Inventory, Role::Payment, Role::Order];
                    let known = known.map(|it| (it.name(), at(it)));
                    let all = known.iter().chain(others);
                    let start = flags.clone().arg("--allow-participant").arg("*");
                    all.fold(start, |start, (name, address)| {
                        start.arg("--participant").arg(format!("{name}={address}"))
                    })
                }
                _ => flags.clone().arg("--coordinator").arg(at(Wire::Up(role))),
            };
            let mut data = folder.path();
            if let Some(small) = small.as_ref().filter(|small| small.role == role) {
                args = args.arg("--min-free").arg(SMALL_MIN_FREE.to_string());
                data = &small.folder;
            }
            let address = address(&addresses, role);
            let process =
                Process::new(role.name(), Path::new(""), folder.path(), address).data(data);
            Mutex::new(Host {
                process,
                args,
                held_down: 0,
                ended_at: None,
                file_limit: None,
                storage_fails: false,
                disk_failed_at: None,
                starts: 0,
                is_displaced: false,
            })
        });
        let (seen, is_restored) = (Mutex::default(), AtomicBool::default());
        Ok(Self {
            hosts,
            wires,
            seen,
            addresses,
            small,
            flags: changing_flags,
            is_restored,
            folder,
        })
    }

    /// Lets the files take down what happens to them from now on. All processes end.
    pub(super) fn install_witness(&self) -> anyhow::Result<()> {
        for role in Role::ALL {
            let mut host = self.host(role);
            host.process.kill();
            witness::install(&host.process.database(), role == Role::Coordinator)?;
        }
        Ok(())
    }

    /// Copies the coordinator's journal as the docs say, while it runs.
    pub(super) fn back_up(&self) -> anyhow::Result<PathBuf> {
        let backup = self.folder.path().join("backup.db");
        let database = rusqlite::Connection::open(self.database(Role::Coordinator))?;
        database.execute("VACUUM INTO ?1", [backup.display().to_string()])?;
        Ok(backup)
    }

    /// The coordinator's disk is lost, and it starts with the backup. It has to be held
    /// down.
    pub(super) fn restore(&self, backup: &Path) -> io::Result<()> {
        self.is_restored.store(true, Relaxed);
        power::replace(&self.database(Role::Coordinator), backup)
    }

    /// Sets a process's wall clock, if it runs a program that lets us.
    pub(super) fn set_clock(&self, role: Role, milliseconds: i64) -> io::Result<()> {
        std::fs::write(self.host(role).clock_file(), milliseconds.to_string())
    }

    /// Moves a database away; the process is not started again until it is back.
    pub(super) fn displace(&self, role: Role) -> io::Result<()> {
        let mut host = self.host(role);
        host.held_down += 1;
        host.disk_failed_at = Some(Instant::now());
        // Before that it would make a new one.
        let has_opened = host.process.id().is_some() && host.process.has_served();
        if has_opened && !host.is_displaced {
            host.is_displaced = true;
            power::displace(&host.process.database(), &host.displaced())?;
        }
        Ok(())
    }

    /// Moves it back. Its process must have noticed, if it could.
    pub(super) async fn put_back(&self, role: Role) -> io::Result<()> {
        let could_notice = || {
            let host = self.host(role);
            host.is_displaced && host.process.id().is_some() && !host.storage_fails
        };
        let end = Instant::now() + NOTICED_WITHIN;
        while could_notice() && Instant::now() < end {
            sleep(TICK).await;
        }
        if could_notice() && !self.host(role).process.is_paused() {
            let text = format!("{} ran on though its database was moved away", role.name());
            lock(&self.seen).crashes.push(text);
        }
        let mut host = self.host(role);
        host.process.kill();
        host.held_down = host.held_down.saturating_sub(1);
        host.put_back()
    }

    /// Whose disk is small, if one is.
    pub(super) fn small_disk(&self) -> Option<Role> {
        self.small.as_ref().map(|small| small.role)
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub(super) fn wire(&self, wire: Wire) -> &Proxy {
        &self.wires.iter().find(|(it, _)| *it == wire).expect("every wire has a proxy").1
    }

    pub(super) fn database(&self, role: Role) -> PathBuf {
        self.host(role).process.database()
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Ends all processes and has these programs from now on.
    pub(super) fn change_binaries(&self, binaries: &Binaries, with_vfs: bool) -> io::Result<()> {
        for role in Role::ALL {
            let mut host = self.host(role);
            host.process.kill();
            host.process.set_program(&binaries.path(role));
            let args = host.args.clone();
            let clock = host.clock_file().display().to_string();
            let with_means = |args| with_test_vfs(args).env(wall_clock::VARIABLE, clock);
            host.process.set_always(if with_vfs { with_means(args) } else { args });
            if with_vfs {
                // What the other programs wrote is not in the shadows.
                power::trust(&host.process.database())?;
            }
            host.ended_at = None;
        }
        Ok(())
    }

    /// SIGKILL; it stays down until [`Self::let_up`].
    pub(super) fn hold_down(&self, role: Role) {
        let mut host = self.host(role);
        host.held_down += 1;
        host.process.kill();
    }

    /// What was not synced is lost. It has to be held down.
    pub(super) fn lose_power(&self, role: Role) -> io::Result<()> {
        let mut host = self.host(role);
        host.put_back()?;
        // Before the first sync of a file there is nothing to come back to.
        if !vfs::shadow_path(&host.process.database()).exists() {
            return Ok(());
        }
        power::lose(&host.process.database())
    }

    /// The supervisor may start it again.
    pub(super) fn let_up(&self, role: Role) {
        let mut host = self.host(role);
        host.held_down = host.held_down.saturating_sub(1);
    }

    /// SIGSTOP; returns the process's id, if it runs.
    pub(super) fn pause(&self, role: Role) -> Option<u32> {
        let host = self.host(role);
        let id = host.process.id()?;
        host.process.pause().ok().map(|()| id)
    }

    /// SIGCONT, if it is still that process.
    pub(super) fn resume(&self, role: Role, id: Option<u32>) {
        let host = self.host(role);
        if id.is_some() && host.process.id() == id {
            let _ = host.process.resume();
        }
    }

    /// No file may grow beyond `bytes` more than the write-ahead log has, nor be
    /// written there; or all may again. The log for people is bounded with them.
    pub(super) fn limit_files(&self, role: Role, bytes: Option<u64>) {
        let mut host = self.host(role);
        let wal = host.process.database().with_extension("db-wal");
        let length = wal.metadata().map_or(0, |metadata| metadata.len());
        if bytes.is_some() || host.file_limit.is_some() {
            host.disk_failed_at = Some(Instant::now());
        }
        host.file_limit = bytes.map(|bytes| length + bytes);
        // It may have ended just now.
        let _ = host.process.limit_file_size(host.file_limit);
    }

    /// The VFS fails as asked, or works again.
    pub(super) fn fail_storage(&self, role: Role, fault: Option<&str>) -> anyhow::Result<()> {
        let mut host = self.host(role);
        host.note_failing(fault.is_some());
        host.process.set_fault(fault)
    }

    /// The small file system has `bytes` left, or plenty again.
    pub(super) fn shrink_disk(&self, bytes: Option<u64>) {
        if let Some(small) = &self.small {
            self.host(small.role).note_failing(bytes.is_some());
            small.leave(bytes);
        }
    }

    /// Ends what keeps processes from working.
    pub(super) fn heal(&self) -> anyhow::Result<()> {
        for role in Role::ALL {
            self.limit_files(role, None);
            self.fail_storage(role, None)?;
            self.set_clock(role, 0)?;
            let mut host = self.host(role);
            if host.is_displaced {
                host.process.kill();
                host.put_back()?;
            }
            host.held_down = 0;
            // Not all are paused.
            let _ = host.process.resume();
        }
        self.shrink_disk(None);
        for (_, proxy) in &self.wires {
            proxy.clear();
        }
        Ok(())
    }

    /// Starts again what has ended, as a service manager does, and looks at how it
    /// ended. Never returns.
    pub(super) async fn supervise(&self) {
        let mut last_look = Instant::now();
        loop {
            for role in Role::ALL {
                self.tend(role);
            }
            if last_look.elapsed() > Duration::from_secs(1) {
                last_look = Instant::now();
                self.look_at_memory();
            }
            sleep(TICK).await;
        }
    }

    fn tend(&self, role: Role) {
        let mut host = self.host(role);
        match host.process.ended() {
            Ok(Some(status)) => {
                self.ended(role, &host, status);
                host.ended_at = Some(Instant::now());
            }
            Ok(None) => {}
            Err(error) => lock(&self.seen).crashes.push(format!("{}: {error}", role.name())),
        }
        let rested = host.ended_at.is_none_or(|at| at.elapsed() > RESTART_AFTER);
        if host.process.id().is_none() && host.held_down == 0 && rested {
            host.ended_at = Some(Instant::now());
            host.starts += 1;
            let start = self.flags_of(role, host.starts);
            if let Err(error) = host.process.spawn(start) {
                lock(&self.seen).crashes.push(format!("{}: {error:#}", role.name()));
                return;
            }
            lock(&self.seen).starts += 1;
            if host.file_limit.is_some() {
                let _ = host.process.limit_file_size(host.file_limit);
            }
        }
    }

    fn flags_of(&self, role: Role, start: u32) -> Start {
        let mut flags = Vec::new();
        if role == Role::Coordinator {
            flags.extend(self.flags.iter().flat_map(|seed| flags_of_start(*seed, start)));
            flags.extend(self.is_restored.load(Relaxed).then(|| "--restored".into()));
        }
        flags.into_iter().fold(Start::new(), Start::arg)
    }

    fn ended(&self, role: Role, host: &Host, status: ExitStatus) {
        // Long enough for a fault to be found out by the next write.
        let failed_lately =
            host.disk_failed_at.is_some_and(|at| at.elapsed() < Duration::from_secs(30));
        let allowed = match status.code() {
            Some(code) => failed_lately && DISK_CODES.contains(&code),
            // Our own SIGKILLs are not seen here.
            None => false,
        };
        let mut seen = lock(&self.seen);
        let what = format!("{} ended with {status}", role.name());
        *seen.ends.entry(status.to_string()).or_default() += 1;
        if !allowed {
            let log = host.process.log();
            let last: Vec<_> = log.lines().rev().take(4).collect();
            let last: Vec<_> = last.into_iter().rev().collect();
            seen.crashes.push(format!("{what}; the end of its log:\n    {}", last.join("\n    ")));
        }
    }

    fn look_at_memory(&self) {
        for role in Role::ALL {
            if let Ok(kib) = self.host(role).process.peak_memory_kib() {
                let mut seen = lock(&self.seen);
                let peak = seen.peak_memory.entry(role.name()).or_default();
                *peak = (kib << 10).max(*peak);
            }
        }
    }

    /// SIGTERM to all; how each ended.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        for role in Role::ALL {
            let mut process = {
                let mut host = self.host(role);
                let unused = Process::new("", Path::new(""), Path::new(""), self.addresses.order);
                std::mem::replace(&mut host.process, unused)
            };
            let stopped = process.stop().await;
            self.host(role).process = process;
            let status = stopped.with_context(|| role.name())?;
            anyhow::ensure!(status.success(), "{} ended with {status} on SIGTERM", role.name());
        }
        Ok(())
    }

    /// Keeps databases and logs, and says where they are.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        if let Some(small) = self.small.take() {
            // Its files would go with the file system.
            for role in Role::ALL {
                self.host(role).process.kill();
            }
            let kept = self.folder.path().join("small-disk-copy");
            let copied = Command::new("cp").arg("-r").arg(&small.folder).arg(kept).status();
            if let Err(error) = copied {
                eprintln!("{} cannot be copied: {error}", small.folder.display());
            }
        }
        self.folder.path().into()
    }

    fn host(&self, role: Role) -> MutexGuard<'_, Host> {
        lock(&self.hosts[role as usize])
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        for role in Role::ALL {
            self.host(role).process.kill();
        }
    }
}

fn address(addresses: &Addresses, role: Role) -> std::net::SocketAddr {
    match role {
        Role::Coordinator => addresses.coordinator,
        Role::Inventory => addresses.inventory,
        Role::Payment => addresses.payment,
        Role::Order => addresses.order,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
