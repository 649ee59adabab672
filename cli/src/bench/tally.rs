//! What is counted and timed in one window of time.

use std::time::Duration;

use hdrhistogram::Histogram;
use tonic::{Code, Status};

/// In microseconds.
const LONGEST: u64 = 600_000_000;
const DIGITS: u8 = 3;

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The decision to commit is durable.
    Committed,
    Aborted,
    /// It was never begun.
    Refused(String),
    /// Not decided when the answer came, or the call failed.
    Unknown(String),
}

impl From<&Status> for Answer {
    fn from(status: &Status) -> Self {
        let said = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::InvalidArgument | Code::ResourceExhausted => Self::Refused(said),
            _ => Self::Unknown(said),
        }
    }
}

/// Counts, and the latency of what was decided.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) committed: u64,
    pub(crate) aborted: u64,
    /// Refused before they began.
    pub(crate) errors: u64,
    pub(crate) unknown: u64,
    /// The message of the first that was neither committed nor aborted.
    pub(crate) first_error: Option<String>,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            committed: 0,
            aborted: 0,
            errors: 0,
            unknown: 0,
            first_error: None,
            latency: Histogram::new_with_max(LONGEST, DIGITS).expect("the bounds are good"),
        }
    }
}

impl Tally {
    /// Counts one answer.
    pub(crate) fn add(&mut self, answer: &Answer, took: Duration) {
        match answer {
            Answer::Committed => self.committed += 1,
            Answer::Aborted => self.aborted += 1,
            Answer::Refused(_) => self.errors += 1,
            Answer::Unknown(_) => self.unknown += 1,
        }
        match answer {
            Answer::Committed | Answer::Aborted => {
                self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
            }
            Answer::Refused(why) | Answer::Unknown(why) => {
                self.first_error.get_or_insert_with(|| why.clone());
            }
        }
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.errors += other.errors;
        self.unknown += other.unknown;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.latency.add(&other.latency).expect("both have the same bounds");
    }

    /// Committed or aborted.
    pub(crate) fn decided(&self) -> u64 {
        self.committed + self.aborted
    }
}
