//! `dtc`, the coordinator's command-line tool: `dtc bench` drives the services
//! with orders, measures them and checks the books afterwards; `dtc plot` draws
//! what it measured.

mod bench;
mod plot;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};

/// Tools for the distributed transaction coordinator
#[derive(Debug, Parser)]
#[command(name = "dtc", version, max_term_width = 100)]
enum Command {
    Bench(Box<bench::Args>),
    Plot(plot::Args),
}

/// Runs the command that `args` say, the first of which is the program's name.
/// Success only if everything was done and the books are right.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let done = match parse(args) {
        Ok(Command::Bench(args)) => bench::run(&args),
        Ok(Command::Plot(args)) => plot::run(&args),
        Err(error) => {
            // Standard error itself has failed: there is no other way to report that.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dtc: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, clap::Error> {
    let command = Command::try_parse_from(args)?;
    if let Command::Bench(args) = &command {
        let problem = |error| Command::command().error(ErrorKind::ValueValidation, error);
        args.load.check().map_err(problem)?;
    }
    Ok(command)
}
