//! One process of the cluster: started, killed, paused, restarted.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{eventually, power, vfs};

/// What is added to a single start of a process.
#[derive(Debug, Default, Clone)]
pub struct Start {
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Start {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The process kills itself at the crash point `name`, or at its Nth time
    /// with `name:N`.
    #[must_use]
    pub fn crash_at(self, name: &str) -> Self {
        self.env("DTC_CRASH_POINT", name)
    }
}

/// Ignored signals stay so in the program that is then run.
const IGNORE_XFSZ: &str = r#"trap "" XFSZ; exec "$0" "$@""#;

/// One process. Killed when dropped; its log is printed if the test panicked.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    always: Start,
    data: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A process that was not started yet. Its files (`<name>.db`, `<name>.log`)
    /// are in `folder`.
    pub fn new(name: &str, program: &Path, folder: &Path, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            folder: folder.into(),
            address,
            always: Start::new(),
            data: folder.into(),
            child: None,
        }
    }

    /// Arguments and variables for every start.
    #[must_use]
    pub fn always(mut self, always: Start) -> Self {
        self.always = always;
        self
    }

    /// Its database goes to another folder than its log.
    #[must_use]
    pub fn data(mut self, data: &Path) -> Self {
        self.data = data.into();
        self
    }

    /// Another program plays the role in later starts.
    pub(crate) fn set_program(&mut self, program: &Path) {
        self.program = program.into();
    }

    /// Changes the arguments and variables for every later start.
    pub fn set_always(&mut self, always: Start) {
        self.always = always;
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.data.join(format!("{}.db", self.name))
    }

    /// What it has logged, in all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its log file.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends before it serves.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.start_with(Start::new()).await
    }

    /// As [`start`](Self::start), with more arguments and variables for this time.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends before it serves.
    pub async fn start_with(&mut self, start: Start) -> anyhow::Result<()> {
        self.spawn(start)?;
        let what = format!("{} serves", self.name);
        let ready = eventually(&what, async || {
            if let Some(status) = self.try_wait()? {
                return Ok(Err(status));
            }
            ensure!(self.port_file().exists(), "no port file yet");
            Ok(Ok(()))
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => {
                self.child = None;
                bail!("{} ended with {status} before it served:\n{}", self.name, self.log())
            }
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// Whether its last start has come so far that it serves; it may have ended since.
    pub fn has_served(&self) -> bool {
        self.port_file().exists()
    }

    /// Starts it and waits for nothing: for starts that are expected to fail.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(&mut self, start: Start) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        remove(&self.port_file())?;
        let log = File::options().create(true).append(true).open(self.log_path())?;
        // A file that may not grow any more is an error, as a full disk is, and no
        // signal that ends the process.
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(IGNORE_XFSZ)
            .arg(&self.program)
            .arg("--listen")
            .arg(self.address.to_string())
            .arg("--data")
            .arg(&self.data)
            .arg("--port-file")
            .arg(self.port_file())
            .args(self.always.args.iter().chain(&start.args))
            // A loaded machine takes its time to link; tests of the grace say what they want.
            .env("DTC_LINK_GRACE", "30s")
            .envs(self.always.env.iter().chain(&start.env).map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; waits for the end and says how it ended.
    ///
    /// # Errors
    ///
    /// When it doesn't end.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit().await
    }

    /// SIGSTOP: it keeps its connections but does nothing.
    ///
    /// # Errors
    ///
    /// When it doesn't run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Whether it is stopped by [`pause`](Self::pause); false if it doesn't run.
    pub fn is_paused(&self) -> bool {
        let stat = self.id().and_then(|id| fs::read_to_string(format!("/proc/{id}/stat")).ok());
        let state = stat.as_deref().and_then(|stat| stat.rsplit_once(") "));
        state.is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// SIGCONT.
    ///
    /// # Errors
    ///
    /// When it doesn't run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it if it runs, and starts it again.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.start().await
    }

    /// Kills it and loses what it had not synced. It must have been started with
    /// the test VFS, as a [`Cluster`](crate::Cluster) does.
    ///
    /// # Errors
    ///
    /// When its files cannot be replaced.
    pub fn lose_power(&mut self) -> anyhow::Result<()> {
        self.kill();
        Ok(power::lose(&self.database())?)
    }

    /// Makes its storage fail from now on: `sync-error`, `sync-hang` or
    /// `write-full` (see [`vfs`]); none lets it work again.
    ///
    /// # Errors
    ///
    /// When the control file cannot be written.
    pub fn set_fault(&self, fault: Option<&str>) -> anyhow::Result<()> {
        let mut path = self.database().into_os_string();
        path.push(".fault");
        let path = PathBuf::from(path);
        match fault {
            Some(fault) => Ok(fs::write(path, fault)?),
            None => Ok(remove(&path)?),
        }
    }

    /// Waits until it has ended by itself, and says how.
    ///
    /// # Errors
    ///
    /// When it doesn't end.
    pub async fn wait_exit(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let status = eventually(&what, async || self.try_wait()?.context("it still runs")).await?;
        self.child = None;
        Ok(status)
    }

    /// Lets it run on when this value is dropped.
    pub fn detach(&mut self) {
        self.child = None;
    }

    /// Whether it runs.
    ///
    /// # Errors
    ///
    /// When the system doesn't say.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.is_some() && self.try_wait()?.is_none())
    }

    /// How it ended, if it did so by itself since it was started; it can be
    /// started again then.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Its resident memory, in KiB.
    ///
    /// # Errors
    ///
    /// When it doesn't run.
    pub fn memory_kib(&self) -> anyhow::Result<u64> {
        self.status_kib("VmRSS:")
    }

    /// The most memory that it has had, in KiB.
    ///
    /// # Errors
    ///
    /// When it doesn't run.
    pub fn peak_memory_kib(&self) -> anyhow::Result<u64> {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, what: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.with_context(|| format!("no {what}"))?.parse()?)
    }

    /// How many files and sockets it has open.
    ///
    /// # Errors
    ///
    /// When it doesn't run.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(self.proc("fd")?)?.count())
    }

    fn proc(&self, what: &str) -> anyhow::Result<PathBuf> {
        let id = self.id().with_context(|| format!("{} does not run", self.name))?;
        Ok(format!("/proc/{id}/{what}").into())
    }

    /// Bounds the size of each file that it writes; none lets them grow again.
    /// False where the system has no such call.
    ///
    /// # Errors
    ///
    /// When it doesn't run.
    pub(crate) fn limit_file_size(&self, bytes: Option<u64>) -> anyhow::Result<bool> {
        let id = self.id().with_context(|| format!("{} does not run", self.name))?;
        limit_file_size(id, bytes)
    }

    fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("it was not started")?;
        Ok(child.try_wait()?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.id().with_context(|| format!("{} does not run", self.name))?;
        Ok(kill(Pid::from_raw(i32::try_from(id)?), signal)?)
    }

    fn port_file(&self) -> PathBuf {
        self.folder.join(format!("{}.port", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, self.log());
        }
    }
}

/// The variable that makes a test binary use the VFS of [`vfs`].
pub(crate) fn with_test_vfs(start: Start) -> Start {
    start.env(vfs::VARIABLE, "1")
}

#[cfg(target_os = "linux")]
fn limit_file_size(id: u32, bytes: Option<u64>) -> anyhow::Result<bool> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Pid::from_raw(id.try_into()?), Resource::Fsize, limit)?;
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn limit_file_size(_: u32, _: Option<u64>) -> anyhow::Result<bool> {
    Ok(false)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
