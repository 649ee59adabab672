//! Whether new work is accepted, as health and a metric show it.

use std::{fmt, sync::Arc, time::Duration};

use prometheus::{IntGauge, Registry};
use tonic_health::{ServingStatus, server::HealthReporter};

/// The service in `grpc.health.v1` that is SERVING as long as the process serves at
/// all: for whoever restarts what does not. All others say whether new work is
/// accepted.
pub const LIVENESS: &str = "liveness";

const LOOK: Duration = Duration::from_millis(250);

/// Asks, and shows.
#[derive(Clone)]
pub(crate) struct Accepting {
    accepts: Arc<dyn Fn() -> bool + Send + Sync>,
    gauge: Option<IntGauge>,
}

impl Accepting {
    pub(crate) fn new(accepts: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let help = "1 while new work is accepted, 0 while it is refused for want of disk";
        // Name and help are good: there is always a gauge.
        let gauge = IntGauge::new("dtc_accepting_new_work", help).ok();
        Self { accepts: Arc::new(accepts), gauge }
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.gauge.iter().try_for_each(|gauge| registry.register(Box::new(gauge.clone())))
    }

    /// Shows how it is now.
    pub(crate) async fn show(&self, health: &HealthReporter, names: &[String]) -> bool {
        let accepts = (self.accepts)();
        if let Some(gauge) = &self.gauge {
            gauge.set(accepts.into());
        }
        let status = if accepts { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in names {
            health.set_service_status(name, status).await;
        }
        accepts
    }

    /// Shows each change, for ever.
    pub(crate) async fn watch(self, health: HealthReporter, names: Vec<String>) {
        let mut shown = (self.accepts)();
        self.show(&health, &names).await;
        loop {
            tokio::time::sleep(LOOK).await;
            if (self.accepts)() != shown {
                shown = self.show(&health, &names).await;
            }
        }
    }
}

impl fmt::Debug for Accepting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepting")
    }
}
