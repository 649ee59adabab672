//! One service that `--local` starts.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

/// A process with a data folder of its own. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    program: PathBuf,
    folder: PathBuf,
    args: Vec<String>,
    address: SocketAddr,
    child: Child,
    /// How long it took until it served.
    pub(crate) start_up: Duration,
}

impl Service {
    /// Starts `program` on a free port and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not come to serve; with what it logged.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        args: Vec<String>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, address, start_up) = spawn(program, folder, &args, any_port).await?;
        let (program, folder) = (program.into(), folder.into());
        Ok(Self { program, folder, args, address, child, start_up })
    }

    /// Where it serves, as a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it keeps its connections but does nothing.
    ///
    /// # Errors
    ///
    /// When it does not run any more.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    ///
    /// When it does not run any more.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Starts it again where it was, after it was killed.
    ///
    /// # Errors
    ///
    /// When it does not come to serve; with what it logged.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let (child, ..) = spawn(&self.program, &self.folder, &self.args, self.address).await?;
        self.child = child;
        Ok(())
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Errors
    ///
    /// When it does not end, or not as it should.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let program = self.program.display();
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::SIGTERM)?;
            // It may be paused.
            self.resume()?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{program} ended with {status}:\n{}", log(&self.folder)),
                None if Instant::now() > deadline => {
                    bail!("{program} has not ended {PATIENCE:?} after SIGTERM")
                }
                None => sleep(POLL).await,
            }
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = Pid::from_raw(self.child.id().try_into()?);
        kill(id, signal).with_context(|| format!("{} does not run", self.program.display()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn spawn(
    program: &Path,
    folder: &Path,
    args: &[String],
    listen: SocketAddr,
) -> anyhow::Result<(Child, SocketAddr, Duration)> {
    let port_file = folder.join("port");
    if port_file.exists() {
        fs::remove_file(&port_file)?;
    }
    let log_file = File::options().create(true).append(true).open(folder.join("log"))?;
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(["--listen", &listen.to_string(), "--log", "warn", "--data"])
        .arg(folder)
        .arg("--port-file")
        .arg(&port_file)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    while !port_file.exists() {
        if let Some(status) = child.try_wait()? {
            let program = program.display();
            bail!("{program} ended with {status} before it served:\n{}", log(folder));
        }
        if started.elapsed() > PATIENCE {
            // Fails only when it has just ended by itself.
            let _ = child.kill();
            bail!("{} does not serve after {PATIENCE:?}:\n{}", program.display(), log(folder));
        }
        sleep(POLL).await;
    }
    let start_up = started.elapsed();
    let port = fs::read_to_string(&port_file)?.trim().parse()?;
    Ok((child, SocketAddr::new(listen.ip(), port), start_up))
}

/// The end of what it has logged.
fn log(folder: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
