//! Bounds and defaults.

use core::time::Duration;

use crate::Deadlocks;

/// How one transaction is run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Options {
    /// How long votes are waited for, all attempts together.
    pub prepare_timeout: Duration,
    /// Attempts of prepare a branch; 0 for no limit but the timeout.
    pub prepare_attempts: u32,
    /// How long one attempt of prepare may take.
    pub prepare_attempt_timeout: Duration,
    /// How long one attempt of commit or rollback may take.
    pub commit_attempt_timeout: Duration,
    /// How long an interactive client may be silent.
    pub idle_timeout: Duration,
    /// How long its locks are waited for.
    pub lock_wait: Duration,
    /// How long links to its participants are waited for, before anything is sent.
    pub link_grace: Duration,
    /// What becomes of a commit that keeps failing.
    pub commit_policy: CommitPolicy,
}

/// What becomes of a commit that keeps failing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CommitPolicy {
    /// It is sent until acknowledged: a decision is not taken back.
    #[default]
    Retry,
    /// The decision is compensated: branches that have committed undo it. Until
    /// its end the commit is visible to nobody.
    Compensate {
        /// After so many failed attempts at one branch, one at least.
        after: u32,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prepare_timeout: Duration::from_secs(5),
            prepare_attempts: 0,
            prepare_attempt_timeout: Duration::from_secs(1),
            commit_attempt_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            lock_wait: Duration::from_secs(10),
            link_grace: Duration::from_secs(1),
            commit_policy: CommitPolicy::Retry,
        }
    }
}

/// Bounds of the coordinator and the pace of its retries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// For transactions whose own options are not known: those of earlier runs.
    pub options: Options,
    /// Transactions of this run in memory.
    pub max_in_flight: usize,
    /// Of these, transactions with a branch at one participant.
    pub max_per_participant: usize,
    /// Payload and output bytes in memory: at it, new work is refused. Outputs may take
    /// what payloads leave of it, and a quarter of it in any case.
    pub max_in_flight_bytes: usize,
    /// Bytes of one branch's output.
    pub max_output: usize,
    /// Branches of one transaction.
    pub max_branches: usize,
    /// The first retry waits about this long, each next one twice as long.
    pub backoff: Duration,
    /// No retry waits longer than this.
    pub backoff_cap: Duration,
    /// Attempts of one decision after which a transaction is called stalled.
    pub stalled_after: u32,
    /// Attempts of rollback at a participant that asks when in doubt.
    pub rollback_attempts: u32,
    /// Branches that are sent again at once to a participant that is back; the
    /// others follow one for each of its answers.
    pub recovery_window: usize,
    /// What is done about deadlocks over locks.
    pub deadlocks: Deadlocks,
    /// Locks that may be held and waited for, together.
    pub max_locks: usize,
    /// Locks of one transaction.
    pub max_locks_per_owner: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            options: Options::default(),
            max_in_flight: 100_000,
            max_per_participant: 25_000,
            max_in_flight_bytes: 256 << 20,
            max_output: 3 << 20,
            max_branches: 128,
            backoff: Duration::from_millis(50),
            backoff_cap: Duration::from_secs(5),
            stalled_after: 10,
            rollback_attempts: 5,
            recovery_window: 512,
            deadlocks: Deadlocks::default(),
            max_locks: 1_000_000,
            max_locks_per_owner: 1000,
        }
    }
}
