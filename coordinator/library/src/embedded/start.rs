//! What a coordinator within another program is made of.

use std::{sync::Arc, time::Duration};

use dtc_core::{Config, Options, Reply, TrailKind};
use dtc_runtime::{Environment, Shutdown};
use dtc_store::FailStop;
use prometheus::Registry;
use tokio::{
    runtime,
    sync::{broadcast::error::RecvError, watch},
};

use super::{Settings, StartError, local::Locals};
use crate::{
    directory::Directory,
    driver::{Call, Driver, Handle},
    journal::{Journal, Retention},
    links::Links,
    metrics::Metrics,
    retention,
    service::{Rules, Services},
};

/// How many messages may wait for one remote participant.
const CAPACITY: usize = 65_536;
const MAX_PAYLOAD: usize = 1 << 20;
const MAX_LOCKS: usize = 1000;

/// The operating system's, but that a failure ends this coordinator, not the process.
pub(super) fn environment(stop: watch::Sender<Option<String>>) -> Environment {
    let stop = Arc::new(stop);
    let real = Environment::real();
    let failed = Arc::clone(&stop);
    let on_failure = FailStop::new(move |failure| {
        tracing::error!("{failure}");
        failed.send_replace(Some(failure.to_string()));
    });
    Environment {
        storage: dtc_store::Options { on_failure, ..real.storage },
        exit: Arc::new(move |exit| {
            stop.send_if_modified(|why| {
                let first = why.is_none();
                *why = why.take().or_else(|| Some(format!("{exit:?}; the log says more")));
                first
            });
        }),
        ..real
    }
}

/// All of it, running.
pub(super) struct Parts {
    pub(super) handle: Handle,
    pub(super) services: Services,
    pub(super) locals: Locals,
}

/// Takes up the journal and starts everything in the present runtime.
pub(super) async fn parts(
    settings: Settings,
    environment: Environment,
    open: impl FnOnce(Environment) -> Result<Arc<dyn Journal>, StartError>,
    own: runtime::Handle,
    program: runtime::Handle,
) -> Result<Parts, StartError> {
    let journal = open(environment.clone())?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).map_err(StartError::new)?;
    let retained = retention::Figures::new(&registry).map_err(StartError::new)?;
    let directory = Arc::new(Directory::default());
    let options = Options {
        prepare_timeout: settings.prepare_timeout,
        commit_attempt_timeout: settings.decision_timeout,
        idle_timeout: settings.idle_timeout,
        commit_policy: settings.commit_policy,
        ..Options::default()
    };
    let config = Config {
        options: options.clone(),
        max_in_flight: settings.max_in_flight,
        max_per_participant: settings.max_in_flight,
        ..Config::default()
    };
    let max_branches = config.max_branches;
    let journal_of_driver = Arc::clone(&journal);
    let recovered = Driver::recover(config, journal_of_driver, directory, metrics, environment);
    let (driver, handle) = recovered.await.map_err(StartError::new)?;
    tokio::spawn(driver.run());
    let allowed = ["localhost", "127.0.0.0/8", "[::1]"].map(|pattern| pattern.parse());
    let allowed = allowed.into_iter().filter_map(Result::ok).collect();
    let links = Links::new(handle.clone(), None, CAPACITY, allowed);
    for participant in handle.directory.all() {
        links.ensure(&participant).map_err(StartError::new)?;
    }
    let kept =
        Retention { age: settings.retention, max_bytes: u64::MAX, floor: settings.retention };
    tokio::spawn(retention::run(journal, kept, retained));
    let locals = Locals::new(handle.clone(), own, program);
    tokio::spawn(forget_ended(handle.clone(), locals.clone()));
    let rules = Rules { options, max_payload: MAX_PAYLOAD, max_branches, max_locks: MAX_LOCKS };
    let shutdown = Shutdown::new();
    let services =
        Services { handle: handle.clone(), links, rules, shutdown, registering: Arc::default() };
    Ok(Parts { handle, services, locals })
}

/// Lets go of the resources of what has ended.
async fn forget_ended(handle: Handle, locals: Locals) {
    let mut events = handle.watch();
    loop {
        match events.recv().await {
            Ok(happened) if happened.event.kind == TrailKind::Ended => {
                locals.forget(happened.id);
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                for id in locals.transactions() {
                    if let Ok(Reply::NotHere) = handle.call(id, Call::Get, Duration::ZERO).await {
                        locals.forget(id);
                    }
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}
