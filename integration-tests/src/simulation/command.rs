//! The command: many seeds, on as many threads as there are cores.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
#[cfg(feature = "mutants")]
use dtc_protocol::planted::Bug;
use tempfile::TempDir;

use super::{
    note_panics, opening,
    run::{Outcome, run as run_seed},
};
use crate::{classes::Classes, vfs};

/// Runs the coordinator and the shop's three participants in one process, on a
/// simulated network with virtual time, and breaks them in every way it can.
///
/// A run follows from its seed alone. A failure is printed with its history and
/// with the command that repeats it.
#[derive(Debug, Parser)]
#[command(name = "simulate", max_term_width = 100)]
struct Args {
    /// Number of seeds to run
    #[arg(long, default_value_t = 200)]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,

    /// Threads; by default one a core
    #[arg(long)]
    threads: Option<usize>,

    /// Run each seed twice and compare the histories
    #[arg(long)]
    twice: bool,

    /// Classes of faults beside the usual ones: names separated by commas, all, or none
    #[arg(long, value_name = "CLASSES", default_value_t = Classes::default())]
    classes: Classes,

    /// Print the history of every run
    #[arg(long)]
    history: bool,

    /// A bug to plant, to see that it is found; only in builds with the feature mutants
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,

    /// Log filter of histories, such as 'info' or 'info,dtc_participant=debug'
    #[arg(long, default_value = "info")]
    log: String,
}

struct Progress {
    begun: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    tried: usize,
    committed: usize,
    aborted: usize,
    retries: usize,
    faults: BTreeMap<&'static str, usize>,
    simulated: Duration,
    slowest: (Duration, u64),
    failures: Vec<u64>,
    printed: Option<Instant>,
}

const PROGRESS: Duration = Duration::from_secs(5);
/// Lines of a history that are printed; all of it goes to a file.
const SHOWN: usize = 60;

/// Runs the simulations; success only if nothing was wrong in any.
pub fn run() -> ExitCode {
    match simulate(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe simulation itself failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(args: &Args) -> anyhow::Result<bool> {
    if let Some(name) = &args.plant {
        plant(name)?;
    }
    vfs::install();
    vfs::set_clock(super::clock);
    note_panics();
    let folder = folder()?;
    let opening = folder.path().join("opening");
    fs::create_dir_all(&opening)?;
    opening::make(&opening).context("the opening cannot be made")?;
    let progress = Progress {
        begun: Instant::now(),
        next: AtomicU64::new(args.first),
        stop: AtomicBool::new(false),
        sum: Mutex::default(),
    };
    let threads =
        args.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    thread::scope(|scope| {
        let work = || work(args, folder.path(), &opening, &progress);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let sum = progress.sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.print(progress.begun.elapsed());
    Ok(sum.failures.is_empty())
}

#[cfg(feature = "mutants")]
fn plant(name: &str) -> anyhow::Result<()> {
    let bug = Bug::named(name).with_context(|| {
        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("there is no bug '{name}'; there are {}", names.join(", "))
    })?;
    dtc_protocol::planted::plant(Some(bug));
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn plant(_: &str) -> anyhow::Result<()> {
    anyhow::bail!("this build has no bugs to plant; use cargo run --features mutants")
}

/// Memory is a good disk here: what is synced is kept track of anyway.
fn folder() -> anyhow::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("dtc-simulate-");
    Ok(match memory.is_dir() {
        true => builder.tempdir_in(memory).or_else(|_| builder.tempdir())?,
        false => builder.tempdir()?,
    })
}

fn work(args: &Args, folder: &Path, opening: &Path, progress: &Progress) -> anyhow::Result<()> {
    while !progress.stop.load(SeqCst) {
        let seed = progress.next.fetch_add(1, SeqCst);
        if seed >= args.first + args.seeds {
            break;
        }
        let place = folder.join(format!("seed-{seed}"));
        let once = |log: &str| {
            run_seed(seed, &args.classes, log, &place, opening)
                .with_context(|| format!("seed {seed}"))
        };
        let listen = args.history || args.twice;
        let mut outcome = once(if listen { &args.log } else { "off" })?;
        if args.history {
            print!("{}", outcome.history);
        }
        let same = !args.twice || {
            let again = once(&args.log)?;
            again.history == outcome.history || differs(&outcome, &again)
        };
        let bad = !outcome.violations.is_empty();
        if bad {
            if !listen {
                // The same again, and this time it is taken down.
                outcome = once(&args.log)?;
            }
            report(args, &outcome)?;
        }
        progress.take(&outcome, bad || !same);
    }
    Ok(())
}

fn differs(first: &Outcome, second: &Outcome) -> bool {
    println!("Seed {}: two runs have different histories", first.seed);
    let lines = first.history.lines().zip(second.history.lines());
    for (number, (one, other)) in lines.enumerate().filter(|(_, (one, other))| one != other).take(3)
    {
        println!("  line {number}\n    {one}\n    {other}");
    }
    false
}

fn report(args: &Args, outcome: &Outcome) -> anyhow::Result<()> {
    let file = std::env::temp_dir().join(format!("simulate-{}.log", outcome.seed));
    fs::write(&file, &outcome.history)?;
    let lines: Vec<_> = outcome.history.lines().collect();
    println!("\nSeed {} FAILED. The end of its history:", outcome.seed);
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        println!("  {line}");
    }
    for violation in &outcome.violations {
        println!("VIOLATION {violation}");
    }
    println!(
        "The whole history: {}\nAgain: cargo run --release -p integration-tests --bin simulate -- --classes {} --first {} --seeds 1 --history\n",
        file.display(),
        args.classes,
        outcome.seed
    );
    Ok(())
}

impl Progress {
    fn take(&self, outcome: &Outcome, failed: bool) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.seeds += 1;
        sum.tried += outcome.total.tried;
        sum.committed += outcome.total.committed;
        sum.aborted += outcome.total.aborted;
        sum.retries += outcome.total.retries;
        sum.simulated += outcome.length;
        for (name, count) in &outcome.faults {
            *sum.faults.entry(name).or_default() += count;
        }
        sum.slowest = sum.slowest.max((outcome.resolved, outcome.seed));
        if failed {
            sum.failures.push(outcome.seed);
            // A few are enough to look at.
            self.stop.fetch_or(sum.failures.len() >= 5, SeqCst);
        }
        let now = Instant::now();
        if sum.printed.is_none_or(|at| now - at > PROGRESS) {
            sum.printed = Some(now);
            sum.line(self.begun.elapsed());
        }
    }
}

impl Sum {
    fn line(&self, took: Duration) {
        println!(
            "{:>5.0} s: {} seeds ({:.1} a second), {} faults, {} transactions tried, {} committed, {} aborted, {} failures",
            took.as_secs_f64(),
            self.seeds,
            self.seeds as f64 / took.as_secs_f64(),
            self.faults.values().sum::<usize>(),
            self.tried,
            self.committed,
            self.aborted,
            self.failures.len()
        );
    }

    fn print(&self, took: Duration) {
        self.line(took);
        for (name, count) in &self.faults {
            println!("  {count:>7} {name}");
        }
        println!(
            "{:.1} hours simulated; {} calls were repeated; the longest until all was resolved: {:.1} s after healing (seed {})",
            self.simulated.as_secs_f64() / 3600.0,
            self.retries,
            self.slowest.0.as_secs_f64(),
            self.slowest.1
        );
        match self.failures.as_slice() {
            [] => println!("All {} seeds are clean.", self.seeds),
            failures => println!("FAILED: seeds {failures:?}"),
        }
    }
}
