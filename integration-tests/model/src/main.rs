//! Checks a model of the size that is asked for.

use anyhow::ensure;
use clap::Parser;
use protocol_model::{Asking, Setup, System, Until, Use, search};

/// Visits every state of the protocol within the given bounds.
#[derive(Debug, Parser)]
struct Args {
    /// Participants, one branch each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=6))]
    participants: u8,
    /// Crashes of any nodes, together.
    #[arg(long, default_value_t = 1)]
    crashes: u8,
    /// How the client uses the coordinator.
    #[arg(long = "use", value_enum, default_value_t = Use::OneShot)]
    usage: Use,
    /// Which participants ask when in doubt.
    #[arg(long, value_enum, default_value_t = Asking::All)]
    asking: Asking,
    /// Without read-only votes.
    #[arg(long)]
    no_read_only: bool,
    /// Votes to abort that leave no tombstone.
    #[arg(long)]
    traceless: bool,
    /// Several requests may share a write of a participant.
    #[arg(long)]
    batches: bool,
    /// Answers that outlive the run of the coordinator that asked.
    #[arg(long)]
    stray_answers: bool,
    /// Drop requests once their participant refuses their run for good.
    #[arg(long)]
    drop_stale: bool,
    /// Branches that are read-only at one time and not at another.
    #[arg(long)]
    fickle: bool,
    /// Attempts of rollback at a participant that asks.
    #[arg(long, default_value_t = 1)]
    rollback_attempts: u32,
    /// Links that break while both ends live.
    #[arg(long)]
    broken_links: bool,
    /// Participants that come back with an empty disk.
    #[arg(long, default_value_t = 0)]
    lost_disks: u8,
    /// Attempts of prepare; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    prepare_attempts: u32,
    /// Without votes to abort.
    #[arg(long)]
    no_refusals: bool,
    /// Without attempts that fail and are repeated.
    #[arg(long)]
    no_retries: bool,
    /// A domain that may fail to do what was decided.
    #[arg(long)]
    domain_fails: bool,
    /// Crashes of the coordinator only.
    #[arg(long)]
    coordinator_crashes: bool,
    /// A single branch is promised first, too.
    #[arg(long)]
    two_phases: bool,
    /// Branches are enlisted under keys, and these calls repeated (interactive use).
    #[arg(long)]
    enlist_keys: bool,
    /// How often an operator resolves a branch.
    #[arg(long, default_value_t = 0)]
    resolutions: u8,
    /// Failed attempts of commit after which it is compensated; 0 for never.
    #[arg(long, default_value_t = 0)]
    compensate_after: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut setup = Setup::new(args.usage, args.participants.into(), args.crashes);
    setup.asking = args.asking;
    setup.read_only &= !args.no_read_only;
    setup.batches = args.batches;
    setup.fickle = args.fickle;
    setup.stray_answers = args.stray_answers;
    setup.drop_stale = args.drop_stale;
    setup.rollback_attempts = args.rollback_attempts;
    setup.traceless = args.traceless;
    setup.broken_links = args.broken_links;
    setup.lost_disks = args.lost_disks;
    setup.prepare_attempts = args.prepare_attempts;
    setup.refusals &= !args.no_refusals;
    setup.retries &= !args.no_retries;
    setup.domain_fails |= args.domain_fails;
    setup.coordinator_crashes = args.coordinator_crashes;
    setup.two_phases = args.two_phases;
    setup.enlist_keys = args.enlist_keys;
    setup.resolutions = args.resolutions;
    setup.compensate_after = args.compensate_after;
    println!("{setup:?}");
    let report = search(&System(setup), Until::Exhausted, |progress| {
        let rate = progress.states as f64 / progress.took.as_secs_f64().max(0.001);
        eprintln!(
            "depth {:3}: {:9} states, {:8} waiting, {:.0?}, {rate:.0} states/s",
            progress.depth, progress.states, progress.waiting, progress.took
        );
    });
    print!("{}", report.describe());
    ensure!(report.failures().next().is_none(), "not all properties hold");
    Ok(())
}
