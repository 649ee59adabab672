//! `torture`: many clients, four real processes, and faults at random moments;
//! then everything is healed, and a checker looks at the whole history.
//!
//! A run is a row of rounds. In each, faults come one after the other and over
//! each other; at its end they are healed, no new transaction is begun, and
//! everything has to be resolved within a stated time. The books are checked then,
//! and at the end of the run the journals too.

mod environment;
mod fault_injector;
mod plan;
mod report;
mod run;
mod small_disk;
mod terms;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use plan::Power;

use crate::classes::Classes;

/// Hurts the coordinator and the shop's three participants in every way it can
/// while many clients place orders, and checks that every answer was true and that
/// nothing was lost, done twice or left half done.
///
/// The seed determines every fault, its target, time and duration. It does not
/// repeat the processes' own timing, nor the answers to clients' calls; for runs
/// that can be repeated step by step there is the simulation.
#[derive(Debug, Clone, Parser)]
#[command(name = "torture", max_term_width = 100)]
struct Args {
    /// Duration of load and faults, in minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,

    /// Seed of the plan of faults; default: a random one, which is printed
    #[arg(long)]
    seed: Option<u64>,

    /// Clients at the same time
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,

    /// The longest pause of a client between two transactions
    #[arg(long, default_value = "250ms", value_parser = humantime::parse_duration)]
    rest: Duration,

    /// Which rounds run the programs that can lose power, and whose storage fails on
    /// demand; the others run the release binaries
    #[arg(long, value_enum, default_value = "alternate")]
    power: Power,

    /// Longest time from the end of all faults until nothing is in doubt
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    resolve_within: Duration,

    /// Give no process a small file system of its own (which only root can mount)
    #[arg(long)]
    no_small_disk: bool,

    /// Classes of faults beside the usual ones: names separated by commas, all, or none
    #[arg(long, value_name = "CLASSES", default_value_t = Classes::default())]
    classes: Classes,

    /// Keep databases and logs of a run without failures too
    #[arg(long)]
    keep: bool,
}

/// Runs the torture; success only if nothing was wrong.
pub fn run() -> ExitCode {
    let args = Args::parse();
    match run::run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe torture itself failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
