//! When to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells everything that runs long that the service is being stopped: streams
/// that would never end by themselves end when it has [begun](Self::begun).
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    begun: CancellationToken,
}

impl Shutdown {
    /// Not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins it; there is no way back.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Whether it has begun.
    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until it has begun. Holds on to nothing of `self`'s lifetime.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        self.begun.clone().cancelled_owned()
    }
}

/// Waits for SIGTERM or SIGINT (Ctrl-C).
pub async fn terminated() {
    if let Err(error) = wait_for_signal().await {
        tracing::error!(%error, "signals cannot be received; only SIGKILL stops this process");
        std::future::pending::<()>().await;
    }
}

async fn wait_for_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "stopping");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_learn_that_it_has_begun_before_and_after() {
        let shutdown = Shutdown::new();
        let before = shutdown.clone().begun();
        assert!(!shutdown.is_begun());
        shutdown.begin();
        before.await;
        shutdown.begun().await;
        assert!(shutdown.is_begun());
    }
}
