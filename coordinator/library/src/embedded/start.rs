//! What a coordinator within another program is made of.

use std::{sync::Arc, time::Duration};

use dtc_core::{Reply, TrailKind};
use dtc_runtime::Environment;
use prometheus::Registry;
use tokio::{
    runtime,
    sync::{broadcast::error::RecvError, watch},
};

use super::{OpenError, Settings, local::Locals};
use crate::{
    api::Coordinator,
    driver::{Call, Handle},
    journal::{Journal, Retention},
    start::{Config, start},
};

/// The operating system's, but that a failure ends this coordinator, not the process.
pub(super) fn environment(stop: watch::Sender<Option<String>>) -> Environment {
    let stop = Arc::new(stop);
    let real = Environment::real();
    #[cfg(feature = "sqlite")]
    let failed = Arc::clone(&stop);
    #[cfg(feature = "sqlite")]
    let on_failure = dtc_store::FailStop::new(move |failure| {
        tracing::error!("{failure}");
        failed.send_replace(Some(failure.to_string()));
    });
    Environment {
        #[cfg(feature = "sqlite")]
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

/// Takes up the journal and starts everything in the present runtime.
pub(super) async fn parts(
    settings: Settings,
    environment: Environment,
    open: impl FnOnce(Environment) -> Result<Arc<dyn Journal>, OpenError>,
    own: runtime::Handle,
    program: runtime::Handle,
) -> Result<(Coordinator, Locals), OpenError> {
    let journal = open(environment.clone())?;
    let coordinator = start(journal, settings.config(), environment, &Registry::new()).await?;
    let locals = Locals::new(coordinator.handle.clone(), own, program);
    tokio::spawn(forget_ended(coordinator.handle.clone(), locals.clone()));
    Ok((coordinator, locals))
}

impl Settings {
    fn config(&self) -> Config {
        let defaults = Config::default();
        let options = dtc_core::Options {
            prepare_timeout: self.prepare_timeout,
            commit_attempt_timeout: self.decision_timeout,
            idle_timeout: self.idle_timeout,
            commit_policy: self.commit_policy,
            ..defaults.core.options
        };
        let (max_in_flight, retention) = (self.max_in_flight, self.retention);
        Config {
            core: dtc_core::Config {
                options,
                max_in_flight,
                max_per_participant: max_in_flight,
                ..defaults.core
            },
            retention: Retention { age: retention, max_bytes: u64::MAX, floor: retention },
            ..defaults
        }
    }
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
