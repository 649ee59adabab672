//! A participant's process, from its flags to its exit code.

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use clap::{CommandFactory, Parser};
use dtc_proto::dtc::{
    participant_admin_service_server::{self as admin_service, ParticipantAdminServiceServer},
    participant_service_server::{ParticipantServiceServer, SERVICE_NAME},
};
use dtc_runtime::{Environment, Exit};
use dtc_service::{
    Fatal, Server, ServiceArgs, ServiceError, enough_room, parse_args_from, parse_duration,
    run_process,
};
use dtc_store::{OpenError, Options, Store};
use prometheus::Registry;
use tonic::{service::Routes, transport::Endpoint};

use crate::{
    Handle, ResourceManager, admin::Admin, engine::Engine, in_doubt, journal, limits::Limits,
    lock_waits::LOCK_WAIT, marks, metrics::Metrics, resolutions, retention, service::Service,
};

/// A participant: its domain, and what distinguishes its program from others.
#[derive(Debug, Clone, Copy)]
pub struct Program<R> {
    /// Its name, such as `participant-inventory`.
    pub name: &'static str,
    /// A sentence for `--help`.
    pub about: &'static str,
    /// Where it listens by default, such as `127.0.0.1:7101`.
    pub listen: &'static str,
    /// Full name of the gRPC service with its own calls.
    pub service: &'static str,
    /// Its domain.
    pub resource: R,
    /// Its own calls, which work with the same storage.
    pub own: fn(Handle) -> Routes,
}

#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,

    /// Address for inquiries while no coordinator has a link to this participant, as
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

    /// Most prepared, undecided branches; more are refused
    #[arg(
        long,
        env = "DTC_MAX_UNDECIDED",
        value_name = "COUNT",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_undecided: u32,

    /// Time in doubt after which a branch is logged and counted as overdue
    #[arg(
        long,
        env = "DTC_OVERDUE_AFTER",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = parse_duration
    )]
    overdue_after: Duration,

    /// Retention of a finished branch, from its coordinator's notice that the transaction
    /// ended, in service time (time that the participant runs)
    #[arg(
        long,
        env = "DTC_RETENTION",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = parse_duration
    )]
    retention: Duration,

    /// Bytes of finished branches in the journal (without the participant's own tables)
    /// above which the oldest are removed before --retention has passed, but none younger
    /// than ten minutes
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
    Read(#[from] dtc_store::ReadError),
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<Error> for Fatal {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Open(error) => error.exit_code(),
            Error::Service(error) => error.exit() as u8,
            Error::Read(dtc_store::ReadError::Damaged { .. }) => Exit::NotAJournal as u8,
            Error::Read(_) => Exit::Storage as u8,
            Error::Metrics(_) => Exit::Software as u8,
        };
        Self { exit, reason: error.to_string() }
    }
}

impl<R: ResourceManager> Program<R> {
    /// Runs it as this process until it is stopped: parses the flags, opens
    /// the journal, serves `dtc.v1.ParticipantService` and its own calls on one
    /// port, and stops cleanly on SIGTERM.
    pub fn run_from_args(self) -> ExitCode {
        self.run_from_args_in(Environment::real())
    }

    /// The same in another environment than the operating system's.
    pub fn run_from_args_in(self, environment: Environment) -> ExitCode {
        let args = self.parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
        run_process(&args.service.clone(), environment, |it| self.run(args, it))
    }

    /// Runs it in the present runtime, with flags as on the command line, the
    /// first of which is the program's name.
    ///
    /// # Errors
    ///
    /// What the process would end with.
    pub async fn run_in(
        self,
        environment: Environment,
        flags: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<(), Fatal> {
        let args = self.parse(flags).map_err(|error| Fatal {
            exit: Exit::Configuration as u8,
            reason: error.to_string(),
        })?;
        self.run(args, environment).await
    }

    fn parse(
        &self,
        flags: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Args, clap::Error> {
        let command = Args::command().name(self.name).about(self.about);
        parse_args_from(command, self.listen, flags)
    }

    async fn run(self, args: Args, environment: Environment) -> Result<(), Fatal> {
        Ok(serve(self, args, environment).await?)
    }
}

async fn serve<R: ResourceManager>(
    program: Program<R>,
    args: Args,
    environment: Environment,
) -> Result<(), Error> {
    let listener = dtc_service::bind(&environment, args.service.listen).await?;
    let path = args.service.data.join(format!("{}.db", R::NAME));
    let options = Options {
        min_free: args.service.min_free,
        wall_clock: environment.wall_clock.clone(),
        ..environment.storage.clone()
    };
    let store = open::<R>(&path, options)?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &store)?;
    let limits = Limits {
        max_payload: args.max_payload as usize,
        max_undecided: args.max_undecided.into(),
        lock_wait: LOCK_WAIT,
        overdue_after: args.overdue_after,
        retention: args.retention,
        retention_bytes: args.retention_bytes,
        retention_floor: environment.retention_floor.unwrap_or(retention::FLOOR),
        coordinator: args.coordinator,
    };
    let shutdown = environment.shutdown.clone();
    let engine = Engine::new(store.clone(), program.resource, limits, metrics, environment).await?;
    tracing::info!(
        file = %path.display(),
        journal = %dtc_protocol::JournalId::from_bytes(store.identity().id),
        epoch = store.identity().epoch,
        undecided = engine.metrics.undecided.get(),
        "recovered"
    );

    tokio::spawn(in_doubt::run(Arc::clone(&engine)));
    tokio::spawn(retention::run(Arc::clone(&engine)));
    let own = (program.own)(Handle { store: store.clone() });
    let room = store.clone();
    Server::new(&args.service)
        .grpc(
            own.add_service(ParticipantAdminServiceServer::new(Admin { engine: engine.clone() }))
                .add_service(ParticipantServiceServer::new(Service { engine })),
        )
        .registry(registry)
        .accepting(move || enough_room(room.has_room()))
        .service_names(&[SERVICE_NAME, admin_service::SERVICE_NAME, program.service])
        .descriptors(dtc_proto::FILE_DESCRIPTOR_SET)
        .descriptors(R::descriptors().encoded())
        .serve(listener, shutdown.begun())
        .await?;
    store.close().await;
    Ok(())
}

/// Opens a participant's file; `options` say how the storage is run.
pub(crate) fn open<R: ResourceManager>(
    path: &std::path::Path,
    options: Options,
) -> Result<Store, OpenError> {
    Store::open(path, Options { role: R::NAME, schema: schema::<R>(), ..options })
}

/// All tables of a participant's file. It lives as long as the process.
pub(crate) fn schema<R: ResourceManager>() -> &'static str {
    [journal::SCHEMA, resolutions::SCHEMA, retention::SCHEMA, marks::SCHEMA, R::SCHEMA]
        .concat()
        .leak()
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    match Endpoint::from_shared(text.to_owned()) {
        Ok(endpoint) if endpoint.uri().host().is_some() && text.starts_with("http://") => {
            Ok(endpoint)
        }
        _ => Err("write it as http://host:port, for example http://127.0.0.1:7100".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What people and scripts write, and what nobody would.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "-?[0-9]{1,30}",
            "[0-9]{1,20}(ns|ms|s|m|h|d|years)?( [0-9]{1,3}s)?",
            "(http|https|ftp|HTTP)?:?/?/?[a-zA-Z0-9.\\[\\]:@?#/-]{0,30}(:[0-9]{1,6})?/?",
            "[a-z0-9-]{0,70}=http://[a-z0-9.]{0,10}:[0-9]{1,6}",
            "[a-z:,=]{0,20}",
            "x{3000}",
        ]
    }

    #[test]
    fn a_coordinator_is_given_by_its_http_address() {
        let endpoint = parse_endpoint("http://127.0.0.1:7100").unwrap();
        assert_eq!(endpoint.uri().port_u16(), Some(7100));
        for other in ["https://127.0.0.1:7100", "127.0.0.1:7100", "http://", "", "/"] {
            let error = parse_endpoint(other).unwrap_err();
            assert!(error.starts_with("write it as http://host:port"), "{other}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_value_of_any_flag_is_taken_or_refused_by_the_flags_name(value in value()) {
            for arg in Args::command().get_arguments() {
                let Some(flag) = arg.get_long().filter(|_| arg.get_action().takes_values()) else {
                    continue;
                };
                let given = format!("--{flag}={value}");
                let mut flags = vec!["service", &given];
                if flag != "listen" {
                    flags.push("--listen=127.0.0.1:0");
                }
                if let Err(error) = Args::try_parse_from(flags) {
                    prop_assert_eq!(error.exit_code(), 2);
                    let said = error.to_string();
                    prop_assert!(said.contains(&format!("--{flag}")), "{}: {}", given, said);
                }
            }
        }
    }
}
