//! `cargo demo`: builds the four services, starts them as four processes, and
//! tells a short story in which orders are placed while processes are killed.

mod keep;
mod report;
mod steps;

use std::{env, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::Parser;

use crate::{Addresses, Cluster, Shop, build};
use report::Report;

/// Places orders across four processes while some of them are killed, and checks
/// that nothing was lost or half done
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Args {
    /// Leave everything running afterwards, and print grpcurl lines to paste
    #[arg(long)]
    keep: bool,
}

/// The processes and their customer.
struct Environment {
    cluster: Cluster,
    shop: Shop,
}

/// Runs the demo; success only if every step ended as it should and nothing was
/// lost or half done.
pub fn run() -> ExitCode {
    // The alias ends with `--`, so that `cargo demo --keep` and
    // `cargo demo -- --keep` both work.
    let given = env::args().enumerate().filter(|(at, arg)| *at != 1 || arg != "--");
    let args = Args::parse_from(given.map(|(_, arg)| arg));
    match tell(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tell(args: &Args) -> anyhow::Result<()> {
    println!("Building the coordinator and the three participants ...");
    let binaries = build::beside()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::prepare(binaries, Addresses::on_localhost())?;
        let shop = cluster.shop();
        let mut environment = Environment { cluster, shop };
        let told = story(&mut environment).await;
        if told.is_err() {
            let folder = environment.cluster.keep_folder();
            eprintln!("\nDatabases and logs are kept in {}", folder.display());
        } else if args.keep {
            keep::explain(environment);
        }
        told
    })
}

async fn story(environment: &mut Environment) -> anyhow::Result<()> {
    let mut report = Report::new();
    let mut number = 0;
    macro_rules! step {
        ($title:expr, $step:path) => {{
            number += 1;
            println!("{number}. {}", $title);
            let started = Instant::now();
            let outcome =
                $step(environment).await.with_context(|| format!("step {number}: {}", $title))?;
            report.add($title, outcome, started.elapsed());
        }};
    }
    step!("Four processes start, each with its own database", steps::start);
    step!("An order is placed", steps::order_commits);
    step!("An order for more than there is", steps::out_of_stock);
    step!("An order that the account cannot pay", steps::cannot_pay);
    step!("Payment is killed while it is prepared, and restarted", steps::payment_killed);
    step!(
        "The coordinator is killed between its decision and phase two",
        steps::coordinator_killed
    );
    step!("A hundred orders at once for forty tickets", steps::hundred_orders);
    step!("Is anything lost or half done?", steps::check);
    report.print(&environment.shop).await
}
