//! Waiting times between attempts: exponential, capped, with jitter that is a
//! hash, so that the machine stays deterministic.

use core::time::Duration;

use dtc_protocol::TransactionId;

use crate::Config;

/// How long to wait after attempt number `attempt` (from 1) of a branch:
/// between half of and the whole exponential step.
pub(crate) fn backoff(
    config: &Config,
    cap: Duration,
    id: &TransactionId,
    branch: usize,
    attempt: u32,
) -> Duration {
    let step = config.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let step = step.min(cap);
    let half = u64::try_from(step.as_micros() / 2).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(half + hash(id, branch, attempt) % half)
}

/// FNV-1a.
fn hash(id: &TransactionId, branch: usize, attempt: u32) -> u64 {
    let branch = (branch as u64).to_le_bytes();
    let bytes = id.as_bytes().iter().chain(&branch).copied().chain(attempt.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_no_further() {
        let config = Config::default();
        let id = TransactionId::from_bytes([7; 16]);
        for attempt in 1..100 {
            let wait = backoff(&config, config.backoff_cap, &id, 0, attempt);
            let step = config.backoff.saturating_mul(1 << (attempt - 1).min(16));
            let step = step.min(config.backoff_cap);
            assert!(wait >= step / 2 && wait <= step, "attempt {attempt}: {wait:?}");
        }
    }

    #[test]
    fn branches_do_not_retry_in_step() {
        let config = Config::default();
        let id = TransactionId::from_bytes([7; 16]);
        let wait = |branch| backoff(&config, config.backoff_cap, &id, branch, 5);
        assert_ne!(wait(0), wait(1));
    }
}
