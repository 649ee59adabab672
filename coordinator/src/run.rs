//! The coordinator's process, from its flags to its exit code.

use std::{process::ExitCode, sync::Arc};

use common_service::{Exit, Server, ServiceError, Shutdown};
use common_store::{OpenError, StatisticsCollector};
use prometheus::Registry;
use proto::dtc::{
    recovery_service_server::{self as recovery, RecoveryServiceServer},
    registry_service_server::{self as registry_service, RegistryServiceServer},
    transaction_service_server::{self as transaction, TransactionServiceServer},
};
use tonic::service::Routes;

use crate::{
    config::Args,
    directory::Directory,
    driver::{Driver, RecoverError},
    error::Error as CallError,
    journal::{Journal, JournalError, SqliteJournal},
    links::Links,
    metrics::Metrics,
    retention,
    service::{Rules, Services},
};

const LISTEN: &str = "127.0.0.1:7100";
const FILE: &str = "coordinator.db";
/// Room in a request for what is not payload.
const REQUEST_OVERHEAD: usize = 1 << 20;

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
    #[error("the runtime cannot be started: {0}")]
    Runtime(#[from] std::io::Error),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Open(error) => error.exit_code().into(),
            Self::Service(error) => error.exit().into(),
            Self::Recover(RecoverError::Damaged(_)) => Exit::NotAJournal.into(),
            Self::Recover(RecoverError::Journal(_)) | Self::Journal(_) => Exit::Storage.into(),
            Self::Participant(_) => Exit::Configuration.into(),
            Self::Metrics(_) | Self::Runtime(_) => Exit::Software.into(),
        }
    }
}

/// Runs a coordinator until it is told to stop: parses the flags, opens the
/// journal, takes up what is unfinished, serves on one port, and stops cleanly
/// on SIGTERM.
pub fn run_from_args() -> ExitCode {
    let args: Args = common_service::parse_args(LISTEN);
    common_service::init_logging(&args.service);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(run(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code()
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let listener = common_service::bind(args.service.listen).await?;
    let path = args.service.data.join(FILE);
    let journal = SqliteJournal::open(&path, args.service.min_free)?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    registry.register(Box::new(StatisticsCollector::new(journal.store())?))?;
    let journal: Arc<dyn Journal> = Arc::new(journal);
    tracing::info!(file = %path.display(), "journal opened");

    let directory = Arc::new(Directory::default());
    for registered in journal.registered().await? {
        directory.register(&registered.name, &registered.address, registered.asks);
    }
    for named in &args.participants {
        let asks = directory.find(&named.name).is_some_and(|registered| registered.asks);
        directory.register(&named.name, &named.address, asks);
    }
    let (driver, handle) =
        Driver::recover(args.core(), Arc::clone(&journal), Arc::clone(&directory), metrics).await?;
    let driving = tokio::spawn(driver.run());
    tokio::spawn(async move {
        if driving.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("the driver panicked, which is a bug; stopping");
            std::process::exit(Exit::Software as i32);
        }
    });
    let links = Links::new(handle.clone(), args.advertise.clone(), args.max_queue as usize);
    for participant in directory.all() {
        links.ensure(&participant).await?;
    }
    tokio::spawn(retention::run(Arc::clone(&journal), args.retention, args.retention_bytes));

    let shutdown = Shutdown::new();
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        common_service::terminated().await;
        stopping.begin();
    });
    let rules = Rules {
        options: args.options(),
        max_payload: args.max_payload as usize,
        max_branches: args.max_branches as usize,
    };
    let services = Services { handle, links, rules, shutdown: shutdown.clone() };
    Server::new(&args.service)
        .grpc(routes(&services))
        .registry(registry)
        .service_names(&[
            transaction::SERVICE_NAME,
            recovery::SERVICE_NAME,
            registry_service::SERVICE_NAME,
        ])
        .serve(listener, shutdown.begun())
        .await?;
    journal.close().await;
    Ok(())
}

fn routes(services: &Services) -> Routes {
    // A request holds several payloads: each is checked against its limit.
    let limit = services.rules.max_payload.saturating_mul(4) + REQUEST_OVERHEAD;
    Routes::new(
        TransactionServiceServer::new(services.clone())
            .max_decoding_message_size(limit.max(8 << 20)),
    )
    .add_service(RecoveryServiceServer::new(services.clone()))
    .add_service(RegistryServiceServer::new(services.clone()))
}
