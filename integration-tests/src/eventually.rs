//! Waiting for a condition, not for a time.

use std::time::{Duration, Instant};

use anyhow::Context;

/// How long a condition may take: much longer than it ever should.
pub const DEADLINE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks again and again until `condition` holds, and returns what it found.
///
/// # Errors
///
/// After [`DEADLINE`]: `what` was waited for, and why it did not hold at last.
pub async fn eventually<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
        let error = match tokio::time::timeout(left, condition()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer"),
        };
        if Instant::now() >= end {
            return Err(error).context(format!("{what}: not within {DEADLINE:?}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
