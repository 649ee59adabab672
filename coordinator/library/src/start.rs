//! A coordinator, started: journal, driver, links and clean-up.

use std::sync::Arc;

use dtc_proto::dtc::Origin;
use dtc_runtime::{Environment, Exit, Shutdown};
use prometheus::Registry;

use crate::{
    address::Address,
    allow::Pattern,
    api::{Coordinator, Limits},
    directory::Directory,
    driver::{Driver, RecoverError},
    journal::{Journal, JournalError, Registration, Retention},
    link::{InvalidAddress, Links},
    metrics::Metrics,
    retention,
};

/// How a coordinator runs. The defaults stand here and in [`dtc_core::Config`] only.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bounds and pace of the machine, and how a transaction is run that says nothing else.
    pub core: dtc_core::Config,
    /// Bytes of a branch's payload.
    pub max_payload: usize,
    /// Messages that may wait for one participant.
    pub max_queue: usize,
    /// What finished transactions are kept.
    pub retention: Retention,
    /// Which participants a request may name by address, or register.
    pub allowed: Vec<Pattern>,
    /// Participants by name, beside those that the journal has.
    pub participants: Vec<(String, Address)>,
    /// Where participants without a link reach this coordinator.
    pub advertised: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            core: dtc_core::Config::default(),
            max_payload: 1 << 20,
            max_queue: 65_536,
            retention: Retention::default(),
            allowed: Pattern::this_machine(),
            participants: Vec::new(),
            advertised: None,
        }
    }
}

/// Why a coordinator cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is unfinished cannot be taken up.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A participant cannot be linked.
    #[error("a participant cannot be linked: {0}")]
    Participant(#[from] InvalidAddress),
    /// A metric cannot be registered.
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Takes up what the journal holds and starts everything in the present runtime.
///
/// # Errors
///
/// [`StartError`]: nothing runs.
pub async fn start(
    journal: Arc<dyn Journal>,
    config: Config,
    environment: Environment,
    registry: &Registry,
) -> Result<Coordinator, StartError> {
    let metrics = Metrics::new(registry)?;
    let retained = retention::Figures::new(registry)?;
    let directory = Arc::new(Directory::default());
    for registered in journal.registered().await? {
        directory.register(&registered);
    }
    for (name, address) in config.participants {
        Links::check(&address)?;
        let capabilities = directory.find(&name).map(|registered| registered.capabilities);
        let capabilities = capabilities.unwrap_or_default();
        directory.register(&Registration::permanent(name, address, capabilities));
    }
    let shutdown: Shutdown = environment.shutdown.clone();
    let exit = environment.exit.clone();
    let limits = Limits {
        options: config.core.options.clone(),
        max_payload: config.max_payload,
        max_branches: config.core.max_branches,
        max_locks: config.core.max_locks_per_owner,
        allowed: config.allowed,
    };
    let of_driver = Arc::clone(&journal);
    let recovered = Driver::recover(config.core, of_driver, directory, metrics, environment);
    let (driver, handle) = recovered.await?;
    let driving = tokio::spawn(driver.run());
    tokio::spawn(async move {
        if driving.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("the driver panicked, which is a bug; stopping");
            exit(Exit::Software);
        }
    });
    let run = handle.journal.run();
    let origin = Origin {
        coordinator_id: handle.journal.coordinator().to_string(),
        epoch: run.epoch,
        incarnation: run.incarnation.to_string(),
        recovery_address: config.advertised.unwrap_or_default(),
    };
    let links = Links::new(handle.clone(), origin, config.max_queue);
    for participant in handle.directory.all() {
        // Of an earlier run with other features: the rest goes on, and its branches wait.
        if let Err(error) = links.ensure(&participant) {
            tracing::error!(participant = %participant.name, %error, "it cannot be called");
        }
    }
    tokio::spawn(retention::run(journal, config.retention, retained));
    let coordinator = Coordinator::new(handle, links, limits, shutdown);
    tokio::spawn(coordinator.clone().drain());
    Ok(coordinator)
}
