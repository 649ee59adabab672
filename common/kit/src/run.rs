//! A participant's process, from its flags to its exit code.

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches, Parser};
use common_service::{Exit, Server, ServiceArgs, ServiceError, Shutdown, parse_duration};
use common_store::{OpenError, Options, Store};
use prometheus::Registry;
use proto::dtc::participant_service_server::{ParticipantServiceServer, SERVICE_NAME};
use tonic::{service::Routes, transport::Endpoint};

use crate::{
    Handle, ResourceManager, doubts, engine::Engine, journal, limits::Limits, metrics::Metrics,
    retention, service::Service,
};

/// What tells a participant's program from the others.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, such as `participant-inventory`.
    pub name: &'static str,
    /// A sentence for `--help`.
    pub about: &'static str,
    /// Where it listens by default, such as `127.0.0.1:7101`.
    pub listen: &'static str,
    /// Full name of the gRPC service with its own calls.
    pub service: &'static str,
}

#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,

    /// Where outcomes can be asked for when no coordinator has a link here, as
    /// http://host:port
    #[arg(long, env = "DTC_COORDINATOR", value_name = "URL", value_parser = parse_endpoint)]
    coordinator: Option<Endpoint>,

    /// Largest payload of a branch, in bytes
    #[arg(
        long,
        env = "DTC_MAX_PAYLOAD",
        value_name = "BYTES",
        default_value_t = 1 << 20,
        value_parser = clap::value_parser!(u32).range(1..=3 << 20)
    )]
    max_payload: u32,

    /// How many branches may be prepared and undecided; more are refused
    #[arg(
        long,
        env = "DTC_MAX_UNDECIDED",
        value_name = "COUNT",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_undecided: u32,

    /// How long a finished branch is remembered after its coordinator told that
    /// the transaction ended
    #[arg(
        long,
        env = "DTC_RETENTION",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = parse_duration
    )]
    retention: Duration,

    /// Size of the database, in bytes, above which finished branches are
    /// forgotten sooner
    #[arg(long, env = "DTC_RETENTION_BYTES", value_name = "BYTES", default_value_t = 1 << 30)]
    retention_bytes: u64,
}

/// Why a participant can't run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("the journal cannot be read: {0}")]
    Read(#[from] common_store::ReadError),
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
            Self::Read(_) => Exit::Storage.into(),
            Self::Metrics(_) | Self::Runtime(_) => Exit::Software.into(),
        }
    }
}

/// Runs a participant until it is told to stop: parses the flags, opens the
/// journal, serves `dtc.v1.ParticipantService` and what `own` adds on one port,
/// and stops cleanly on SIGTERM.
pub fn run_from_args<R: ResourceManager>(
    program: Program,
    resource: R,
    own: impl FnOnce(Handle) -> Routes,
) -> ExitCode {
    let args = parse(&program);
    common_service::init_logging(&args.service);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ran = runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(run(args, program, resource, own)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code()
        }
    }
}

fn parse(program: &Program) -> Args {
    let command = Args::command()
        .name(program.name)
        .about(program.about)
        .mut_arg("listen", |arg| arg.required(false).default_value(program.listen));
    Args::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

async fn run<R: ResourceManager>(
    args: Args,
    program: Program,
    resource: R,
    own: impl FnOnce(Handle) -> Routes,
) -> Result<(), Error> {
    let listener = common_service::bind(args.service.listen).await?;
    let path = args.service.data.join(format!("{}.db", R::NAME));
    let store = open::<R>(&path, args.service.min_free)?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &store)?;
    let shutdown = Shutdown::new();
    let limits = Limits {
        max_payload: args.max_payload as usize,
        max_undecided: args.max_undecided.into(),
        retention: args.retention,
        retention_bytes: args.retention_bytes,
        coordinator: args.coordinator,
    };
    let engine = Engine::new(store.clone(), resource, limits, metrics, shutdown.clone()).await?;
    tracing::info!(
        file = %path.display(),
        journal = %common::JournalId::from_bytes(store.identity().id),
        epoch = store.identity().epoch,
        undecided = engine.metrics.undecided.get(),
        "recovered"
    );

    tokio::spawn(doubts::run(engine.clone()));
    tokio::spawn(retention::run(engine.clone()));
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        common_service::terminated().await;
        stopping.begin();
    });
    let service = ParticipantServiceServer::new(Service { engine });
    Server::new(&args.service)
        .grpc(own(Handle { store: store.clone() }).add_service(service))
        .registry(registry)
        .service_names(&[SERVICE_NAME, program.service])
        .serve(listener, shutdown.begun())
        .await?;
    store.close().await;
    Ok(())
}

pub(crate) fn open<R: ResourceManager>(
    path: &std::path::Path,
    min_free: u64,
) -> Result<Store, OpenError> {
    // The schema lives as long as the process.
    let schema = format!("{}{}", journal::SCHEMA, R::SCHEMA).leak();
    Store::open(path, Options { role: R::NAME, schema, min_free, ..Options::default() })
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    match Endpoint::from_shared(text.to_owned()) {
        Ok(endpoint) if endpoint.uri().host().is_some() && text.starts_with("http") => Ok(endpoint),
        _ => Err("write it as http://host:port, for example http://127.0.0.1:7100".into()),
    }
}
