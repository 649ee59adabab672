//! The coordinator's process, from its flags to its exit code.

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use clap::CommandFactory;

use dtc_proto::dtc::{
    admin_service_server::{self as admin, AdminServiceServer},
    lock_service_server::{self as lock, LockServiceServer},
    recovery_service_server::{self as recovery, RecoveryServiceServer},
    registry_service_server::{self as registry_service, RegistryServiceServer},
    transaction_service_server::{self as transaction, TransactionServiceServer},
};
use dtc_runtime::{Environment, Exit};
use dtc_service::{
    Fatal, Server, ServiceError, enough_room, parse_args, parse_args_from, run_process,
};
use dtc_store::{OpenError, StatisticsCollector};
use prometheus::Registry;
use tonic::service::Routes;

use dtc::{
    directory::Directory,
    driver::{Driver, Handle, RecoverError},
    error::Error as CallError,
    journal::{Journal, JournalError, Registration, SqliteJournal},
    links::Links,
    metrics::Metrics,
    retention,
    service::{Rules, Services},
};

use crate::{
    admin::Admin,
    config::{Args, MAX_REQUEST},
    rest,
};

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
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("a participant cannot be linked: {0}")]
    Participant(#[from] CallError),
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<Error> for Fatal {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Open(error) => error.exit_code(),
            Error::Service(error) => error.exit() as u8,
            Error::Recover(
                RecoverError::Damaged(_)
                | RecoverError::DamagedSession(_)
                | RecoverError::Journal(JournalError::Damaged(_)),
            )
            | Error::Journal(JournalError::Damaged(_)) => Exit::NotAJournal as u8,
            Error::Recover(RecoverError::Journal(_)) | Error::Journal(_) => Exit::Storage as u8,
            Error::Participant(_) => Exit::Configuration as u8,
            Error::Metrics(_) => Exit::Software as u8,
        };
        Self { exit, reason: error.to_string() }
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
    let metrics = Metrics::new(&registry)?;
    let retained = retention::Figures::new(&registry)?;
    registry.register(Box::new(StatisticsCollector::new(journal.store())?))?;
    let journal: Arc<dyn Journal> = Arc::new(journal);
    tracing::info!(file = %path.display(), "journal opened");

    let directory = Arc::new(Directory::default());
    for registered in journal.registered().await? {
        directory.register(&registered);
    }
    for named in &args.participants {
        let capabilities = directory.find(&named.name).map(|registered| registered.capabilities);
        let (name, capabilities) = (&named.name, capabilities.unwrap_or_default());
        directory.register(&Registration::permanent(name, named.address.clone(), capabilities));
    }
    let kept = args.kept(&environment);
    let (driver, handle) = Driver::recover(
        args.core(),
        Arc::clone(&journal),
        Arc::clone(&directory),
        metrics,
        environment.clone(),
    )
    .await?;
    let driving = tokio::spawn(driver.run());
    let exit = environment.exit.clone();
    tokio::spawn(async move {
        if driving.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("the driver panicked, which is a bug; stopping");
            exit(Exit::Software);
        }
    });
    let capacity = args.max_queue as usize;
    let port = listener.local_addr().map_or(args.service.listen.port(), |bound| bound.port());
    let advertised = args.advertised(port);
    let links = Links::new(handle.clone(), advertised, capacity, args.allowed.clone());
    for participant in directory.all() {
        links.ensure(&participant)?;
    }
    tokio::spawn(retention::run(Arc::clone(&journal), kept, retained));

    let shutdown = environment.shutdown.clone();
    tokio::spawn(end_waits(handle.clone(), args.service.drain_timeout));
    let rules = Rules {
        options: args.options(),
        max_payload: args.max_payload as usize,
        max_branches: args.max_branches as usize,
        max_locks: args.max_lock_keys as usize,
    };
    let journal_room = Arc::clone(&journal);
    let services =
        Services { handle, links, rules, shutdown: shutdown.clone(), registering: Arc::default() };
    tokio::spawn(services.clone().drain());
    Server::new(&args.service)
        .grpc(routes(&services))
        .http(rest::router(services.clone()))
        .registry(registry)
        .accepting(move || enough_room(journal_room.has_room()))
        .service_names(&[
            transaction::SERVICE_NAME,
            recovery::SERVICE_NAME,
            registry_service::SERVICE_NAME,
            admin::SERVICE_NAME,
            lock::SERVICE_NAME,
        ])
        .descriptors(dtc_proto::FILE_DESCRIPTOR_SET)
        .serve(listener, shutdown.begun())
        .await?;
    journal.close().await;
    Ok(())
}

/// Most of what is under way when a stop begins ends by itself. Who waits for what
/// does not is answered with the state as it is while there is still time to.
async fn end_waits(handle: Handle, drain_timeout: Duration) {
    handle.environment.shutdown.begun().await;
    tokio::time::sleep(drain_timeout / 2).await;
    handle.end_waits().await;
}

fn routes(services: &Services) -> Routes {
    Routes::new(
        TransactionServiceServer::new(services.clone()).max_decoding_message_size(MAX_REQUEST),
    )
    .add_service(RecoveryServiceServer::new(services.clone()))
    .add_service(RegistryServiceServer::new(services.clone()))
    .add_service(AdminServiceServer::new(Admin(services.clone())))
    .add_service(LockServiceServer::new(services.clone()))
}
