//! `dtc bench`.

mod addresses;
mod args;
mod book;
mod check;
mod choice;
mod fault;
mod fault_report;
mod kind;
mod lane;
mod load;
mod local;
mod metrics;
mod plan;
mod report;
mod run;
mod service;
mod session;
mod shop;
mod stream;
mod table;
mod tally;
mod template;
mod unary;
mod usage;
mod versions;
mod wire;

use std::{fs, path::Path};

use anyhow::{Context, anyhow, ensure};
use tokio::signal;

pub(crate) use args::Args;
#[cfg(test)]
pub(crate) use report::tests::report;
pub(crate) use report::{Latency, Point, Report};

/// Runs it, prints what came out, and stops what was started.
///
/// # Errors
///
/// When something cannot be done, or the books are wrong.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.load.threads as usize)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut local = None;
        let report = tokio::select! {
            biased;
            () = interrupted() => None,
            report = run::run(args, &mut local) => Some(report),
        };
        let was_interrupted = report.is_none();
        let report = report.unwrap_or_else(|| Err(anyhow!("interrupted")));
        let done = report.and_then(|report| tell(args, &report));
        let Some(mut local) = local else { return done };
        if done.is_err() && !was_interrupted {
            eprintln!("Data and logs are in {}", local.keep_folder().display());
        }
        let stopped = local.stop().await.context("the services did not end as they should");
        done.and(stopped)
    })
}

fn tell(args: &Args, report: &Report) -> anyhow::Result<()> {
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if !to_stdout {
        print!("{}", table::text(report));
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(report)? + "\n";
        if to_stdout {
            print!("{json}");
        } else {
            fs::write(file, json)
                .with_context(|| format!("{} cannot be written (--json)", file.display()))?;
        }
    }
    let violations = &report.check.violations;
    ensure!(
        violations.is_empty(),
        "the books are wrong in {} places, the first: {}",
        violations.len(),
        violations.first().map_or("", String::as_str)
    );
    Ok(())
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupted() {
    let Ok(mut terminate) = signal::unix::signal(signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
