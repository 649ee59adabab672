//! Bounds of requests, and what holds where they say nothing.

use std::time::Duration;

use super::{Error, Options};
use crate::allow::Pattern;

/// The most that the largest payload can be set to, in bytes.
const LARGEST_PAYLOAD: usize = 3 << 20;

/// Bytes of a request that are read, over gRPC and HTTP. It is room for whatever may
/// have been taken under another configuration: a repeat is known only when it has been
/// read, and each payload is checked against its own limit then.
pub const MAX_REQUEST: usize = 4 * LARGEST_PAYLOAD + (1 << 20);

/// How long a call waits that doesn't say.
pub(super) const WAIT: Duration = Duration::from_secs(30);
/// Bound of calls that are answered at once, or when a record is durable.
pub(super) const SOON: Duration = Duration::from_secs(30);
/// How long locks of a session are held that doesn't say.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// The shortest lease, of locks and of registrations.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
/// The shortest time-out.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest duration that can be asked for.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of a request key.
pub(super) const MAX_KEY: usize = 128;

/// Items on a page that doesn't say.
const PAGE: usize = 100;
/// Items on the largest page.
pub const MAX_PAGE: u32 = 1000;

/// What requests are checked against.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How a transaction is run that says nothing else.
    pub options: dtc_core::Options,
    /// Bytes of a branch's payload.
    pub max_payload: usize,
    /// Branches of a transaction.
    pub max_branches: usize,
    /// Locks of one request.
    pub max_locks: usize,
    /// Which participants a request may name by address.
    pub allowed: Vec<Pattern>,
}

impl Limits {
    /// The most that [`max_payload`](Self::max_payload) can be, in bytes.
    pub const LARGEST_PAYLOAD: usize = LARGEST_PAYLOAD;

    /// A transaction's options over the defaults.
    pub(super) fn options(&self, options: &Options) -> Result<dtc_core::Options, Error> {
        let defaults = &self.options;
        // As nearly all are: without the names of fields that nothing is wrong with.
        if *options == Options::default() {
            return Ok(defaults.clone());
        }
        let timeout = |field, value, default: Duration| {
            let value = within(&format!("options.{field}"), value, SHORTEST)?;
            Ok::<_, Error>(value.unwrap_or(default))
        };
        let wait = |field, value, default: Duration| {
            let value = within(&format!("options.{field}"), value, Duration::ZERO)?;
            Ok::<_, Error>(value.unwrap_or(default))
        };
        Ok(dtc_core::Options {
            prepare_timeout: timeout(
                "prepare_timeout",
                options.prepare_timeout,
                defaults.prepare_timeout,
            )?,
            prepare_attempts: match options.prepare_attempts {
                0 => defaults.prepare_attempts,
                attempts => attempts,
            },
            prepare_attempt_timeout: timeout(
                "prepare_attempt_timeout",
                options.prepare_attempt_timeout,
                defaults.prepare_attempt_timeout,
            )?,
            commit_attempt_timeout: timeout(
                "commit_attempt_timeout",
                options.commit_attempt_timeout,
                defaults.commit_attempt_timeout,
            )?,
            idle_timeout: timeout("idle_timeout", options.idle_timeout, defaults.idle_timeout)?,
            lock_wait: wait("lock_wait", options.lock_wait, defaults.lock_wait)?,
            link_grace: wait("link_grace", options.link_grace, defaults.link_grace)?,
            commit_policy: options.commit_policy()?.unwrap_or(defaults.commit_policy),
        })
    }
}

/// How long a call waits.
pub(super) fn wait(wait: Option<Duration>) -> Result<Duration, Error> {
    Ok(within("wait", wait, Duration::ZERO)?.unwrap_or(WAIT))
}

/// How long locks or a registration are good.
pub(super) fn lease(lease: Option<Duration>) -> Result<Option<Duration>, Error> {
    within("lease", lease, SHORTEST_LEASE)
}

/// A duration from `shortest` to a day.
pub(super) fn within(
    field: &str,
    value: Option<Duration>,
    shortest: Duration,
) -> Result<Option<Duration>, Error> {
    match value {
        Some(value) if !(shortest..=LONGEST).contains(&value) => {
            let [value, shortest] = [value, shortest].map(|it| match it {
                Duration::ZERO => "0s".into(),
                it => format!("{it:?}"),
            });
            let problem = format!("{value} is out of range; from {shortest} to 24h");
            Err(Error::invalid(field, problem))
        }
        value => Ok(value),
    }
}

/// How many items a page has; 0 is for what is usual.
pub(super) fn page_size(size: u32) -> Result<usize, Error> {
    match size {
        0 => Ok(PAGE),
        size if size <= MAX_PAGE => Ok(size as usize),
        size => {
            let problem = format!("{size} is too large; 1 to {MAX_PAGE}");
            Err(Error::invalid("page_size", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_out_of_range_are_named() {
        let day = Duration::from_secs(86_400);
        for (bad, part) in [
            (day + Duration::from_nanos(1), "86400.000000001s is out of range"),
            (Duration::MAX, "from 0s to 24h"),
        ] {
            let error = wait(Some(bad)).unwrap_err().to_string();
            assert!(error.starts_with("wait: ") && error.contains(part), "{error}");
        }
        assert_eq!(wait(None).unwrap(), WAIT);
        assert_eq!(wait(Some(day)).unwrap(), day);
        let limits = Limits {
            options: dtc_core::Options::default(),
            max_payload: 1,
            max_branches: 1,
            max_locks: 1,
            allowed: Vec::new(),
        };
        let options = Options { idle_timeout: Some(Duration::ZERO), ..Options::default() };
        let error = limits.options(&options).unwrap_err().to_string();
        assert_eq!(error, "options.idle_timeout: 0s is out of range; from 1ms to 24h");
    }
}
