//! The coordinator's process, from its flags to its exit code.

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use clap::CommandFactory;
use dtc::{
    RecoverError, StartError,
    api::Coordinator,
    journal::{JournalError, SqliteJournal},
    start,
};
use dtc_runtime::{Environment, Exit, Shutdown};
use dtc_service::{
    Fatal, Server, ServiceError, enough_room, parse_args, parse_args_from, run_process,
};
use dtc_store::{OpenError, StatisticsCollector};
use prometheus::Registry;

use crate::{config::Args, grpc, rest};

const LISTEN: &str = "127.0.0.1:7100";
const FILE: &str = "coordinator.db";

/// Why a coordinator can't run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<Error> for Fatal {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Open(error) => error.exit_code(),
            Error::Service(error) => error.exit() as u8,
            Error::Start(error) => exit(error) as u8,
            Error::Metrics(_) => Exit::Software as u8,
        };
        Self { exit, reason: error.to_string() }
    }
}

fn exit(error: &StartError) -> Exit {
    match error {
        StartError::Recover(
            RecoverError::Damaged(_)
            | RecoverError::DamagedSession(_)
            | RecoverError::Journal(JournalError::Damaged(_)),
        )
        | StartError::Journal(JournalError::Damaged(_)) => Exit::NotAJournal,
        StartError::Recover(RecoverError::Journal(_)) | StartError::Journal(_) => Exit::Storage,
        StartError::Participant(_) => Exit::Configuration,
        _ => Exit::Software,
    }
}

/// Runs a coordinator as this process until it is told to stop: parses the
/// flags, opens the journal, takes up what is unfinished, serves on one port, and
/// stops cleanly on SIGTERM.
pub fn run_from_args() -> ExitCode {
    run_from_args_in(Environment::real())
}

/// The same in another environment than the operating system's.
pub fn run_from_args_in(environment: Environment) -> ExitCode {
    let args: Args = parse_args(LISTEN);
    run_process(&args.service.clone(), environment, async |it| Ok(run(args, it).await?))
}

/// Runs a coordinator in the present runtime, with flags as on the command line,
/// the first of which is the program's name.
///
/// # Errors
///
/// What the process would end with.
pub async fn run_in(
    environment: Environment,
    flags: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<(), Fatal> {
    let args = parse_args_from(Args::command(), LISTEN, flags)
        .map_err(|error| Fatal { exit: Exit::Configuration as u8, reason: error.to_string() })?;
    Ok(run(args, environment).await?)
}

async fn run(args: Args, environment: Environment) -> Result<(), Error> {
    let listener = dtc_service::bind(&environment, args.service.listen).await?;
    let path = args.service.data.join(FILE);
    let journal =
        SqliteJournal::open(&path, args.service.min_free, args.restored, environment.clone())?;
    let registry = Registry::new();
    registry.register(Box::new(StatisticsCollector::new(journal.store())?))?;
    tracing::info!(file = %path.display(), "journal opened");

    let port = listener.local_addr().map_or(args.service.listen.port(), |bound| bound.port());
    let shutdown = environment.shutdown.clone();
    let service = args.service.clone();
    let config = args.config(&environment, port);
    let coordinator = start(Arc::new(journal), config, environment, &registry).await?;
    tokio::spawn(end_waits(coordinator.clone(), shutdown.clone(), service.drain_timeout));
    let room = coordinator.clone();
    Server::new(&service)
        .grpc(grpc::routes(&coordinator))
        .http(rest::router(coordinator.clone()))
        .registry(registry)
        .accepting(move || enough_room(room.has_room()))
        .service_names(&grpc::SERVICE_NAMES)
        .descriptors(dtc_proto::FILE_DESCRIPTOR_SET)
        .serve(listener, shutdown.begun())
        .await?;
    coordinator.close().await;
    Ok(())
}

/// Most of what is under way when a stop begins ends by itself. A client that waits for what
/// does not is answered with the state as it is while there is still time to.
async fn end_waits(coordinator: Coordinator, shutdown: Shutdown, drain_timeout: Duration) {
    shutdown.begun().await;
    tokio::time::sleep(drain_timeout / 2).await;
    coordinator.end_waits().await;
}
