//! What a client asks for, and its check: what is wrong is named with its field.

use std::{fmt, str::FromStr, time::Duration};

use dtc_core::{CommitPolicy, LockKey, LockMode, MAX_LOCK_KEY, RequestKey};
use dtc_proto::{dtc::payload::Kind, json};
use dtc_protocol::TransactionId;
use prost::Message;

use super::{Coordinator, Error, Limits, Opaque, Payload, limits::MAX_KEY};
/// Failed attempts of commit that compensate a decision, where that is asked for and
/// nothing else is said.
pub const COMPENSATE_AFTER: u32 = 10;
/// Each of them is on record.
const MAX_COMPENSATE_AFTER: u32 = 100;

/// A transaction that a client asks for.
#[derive(Debug, Clone, Default)]
pub struct NewTransaction {
    /// 1 to 128 characters: makes the call safe to repeat.
    pub request_key: Option<String>,
    /// What is to be done where; none for an interactive one.
    pub branches: Vec<NewBranch>,
    /// How it is run.
    pub options: Options,
    /// The first transaction of which this is a retry; it keeps that one's age.
    pub retry_of: Option<TransactionId>,
    /// What it locks before anything is sent, until nothing is owed; none for an
    /// interactive one.
    pub locks: Vec<NewLock>,
    /// The client's trace (W3C trace context), see [`of_client`](crate::trace::of_client).
    pub trace: Option<Opaque>,
}

/// One participant's part of a new transaction.
#[derive(Debug, Clone, Default)]
pub struct NewBranch {
    /// A registered name, or an address.
    pub participant: String,
    /// What it is to do. HTTP participants may do without.
    pub payload: Option<Payload>,
}

/// A lock on a name that clients choose.
#[derive(Debug, Clone)]
pub struct NewLock {
    /// 1 to 256 characters.
    pub key: String,
    /// Beside others, or alone.
    pub mode: LockMode,
}

/// How one transaction is run. What is not set has the coordinator's default; durations
/// are 24 hours at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// How long votes are waited for, all attempts together; 1 ms at least.
    pub prepare_timeout: Option<Duration>,
    /// Attempts of prepare a branch; 0 for the default.
    pub prepare_attempts: u32,
    /// How long one attempt of prepare may take; 1 ms at least.
    pub prepare_attempt_timeout: Option<Duration>,
    /// How long one attempt of commit or rollback may take; 1 ms at least.
    pub commit_attempt_timeout: Option<Duration>,
    /// Interactive: how long the client may be silent; 1 ms at least.
    pub idle_timeout: Option<Duration>,
    /// How long its locks are waited for.
    pub lock_wait: Option<Duration>,
    /// How long the link of a participant that is known to be away is waited for, with
    /// nothing sent.
    pub link_grace: Option<Duration>,
    /// What becomes of a commit that keeps failing; 1 to 100 failed attempts compensate it.
    pub commit_policy: Option<CommitPolicy>,
}

impl Options {
    pub(super) fn commit_policy(&self) -> Result<Option<CommitPolicy>, Error> {
        match self.commit_policy {
            Some(CommitPolicy::Compensate { after })
                if !(1..=MAX_COMPENSATE_AFTER).contains(&after) =>
            {
                let problem = format!("{after} is out of range; 1 to {MAX_COMPENSATE_AFTER}");
                Err(Error::invalid("options.compensate_after", problem))
            }
            policy => Ok(policy),
        }
    }
}

/// An id as text.
///
/// # Errors
///
/// [`Error::Invalid`] names the field and the text.
pub fn parse_id<T: FromStr<Err: fmt::Display>>(field: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error| {
        let text: String = text.chars().take(80).collect();
        Error::invalid(field, format!("'{text}' is {error}"))
    })
}

/// The first transaction of which a new one is a retry.
pub(super) fn retry_of(id: Option<TransactionId>) -> Result<Option<TransactionId>, Error> {
    match id {
        Some(id) if uuid::Uuid::from_bytes(*id.as_bytes()).get_version_num() != 7 => {
            Err(Error::invalid("retry_of", format!("'{id}' is no transaction's id")))
        }
        id => Ok(id),
    }
}

/// A call's key, where it has one.
pub(super) fn request_key(key: Option<&str>) -> Result<Option<RequestKey>, Error> {
    key.map(some_request_key).transpose()
}

pub(super) fn some_request_key(key: &str) -> Result<RequestKey, Error> {
    let length = key.chars().count();
    if (1..=MAX_KEY).contains(&length) {
        return Ok(key.into());
    }
    let problem = format!("has {length} characters, 1 to {MAX_KEY} are allowed");
    Err(Error::invalid("request_key", problem))
}

impl Limits {
    /// Keys of locks, without what is asked for them.
    pub(super) fn lock_keys(&self, field: &str, keys: &[String]) -> Result<Vec<LockKey>, Error> {
        let none = |index| format!("{field}[{index}]");
        self.check_count(field, keys.len(), self.max_locks, "--max-lock-keys")?;
        keys.iter().enumerate().map(|(index, key)| lock_key(&none(index), key)).collect()
    }

    /// The locks of a request.
    pub(super) fn locks(&self, locks: &[NewLock]) -> Result<Vec<(LockKey, LockMode)>, Error> {
        self.check_count("locks", locks.len(), self.max_locks, "--max-lock-keys")?;
        let lock = |(index, lock): (usize, &NewLock)| {
            Ok((lock_key(&format!("locks[{index}].key"), &lock.key)?, lock.mode))
        };
        locks.iter().enumerate().map(lock).collect()
    }

    fn check_count(
        &self,
        field: &str,
        count: usize,
        limit: usize,
        flag: &str,
    ) -> Result<(), Error> {
        match count <= limit {
            true => Ok(()),
            false => {
                let problem = format!("{count} are too many; the limit is {limit} ({flag})");
                Err(Error::invalid(field, problem))
            }
        }
    }
}

impl Coordinator {
    /// The branches of a request.
    pub(super) fn branches(
        &self,
        branches: &[NewBranch],
    ) -> Result<Vec<dtc_core::NewBranch>, Error> {
        if branches.is_empty() {
            let problem = "a transaction needs at least one; name a participant and its payload";
            return Err(Error::invalid("branches", problem));
        }
        self.limits.check_count(
            "branches",
            branches.len(),
            self.limits.max_branches,
            "--max-branches",
        )?;
        let branch = |(index, branch)| self.branch(&format!("branches[{index}]"), branch);
        branches.iter().enumerate().map(branch).collect()
    }

    /// One branch of a request.
    pub(super) fn branch(
        &self,
        field: &str,
        branch: &NewBranch,
    ) -> Result<dtc_core::NewBranch, Error> {
        if branch.participant.is_empty() {
            let problem = "is empty; give a registered name or an address";
            return Err(Error::invalid(format!("{field}.participant"), problem));
        }
        let participant =
            self.participant_named(&format!("{field}.participant"), &branch.participant)?;
        let speaks_http = participant.address.is_some_and(|address| address.is_http());
        let none = Payload::default();
        let payload = match (&branch.payload, speaks_http) {
            (Some(Payload { kind: Some(Kind::Typed(_)) }), true) => {
                let problem = "is 'typed', but the participant speaks HTTP; give 'json'";
                return Err(Error::invalid(format!("{field}.payload"), problem));
            }
            (Some(payload @ Payload { kind: Some(Kind::Json(object)) }), true) => {
                json::to_json(object).map_err(|misfit| {
                    let path = misfit.field(&format!("{field}.payload.json"));
                    Error::invalid(path, misfit.problem())
                })?;
                payload
            }
            (Some(payload @ Payload { kind: Some(_) }), _) => payload,
            (_, true) => &none,
            (_, false) => {
                let problem = "is empty; give 'json' or 'typed'";
                return Err(Error::invalid(format!("{field}.payload"), problem));
            }
        };
        let (size, limit) = (payload.encoded_len(), self.limits.max_payload);
        if size > limit {
            let problem = format!("has {size} bytes; the limit is {limit} (--max-payload)");
            return Err(Error::invalid(format!("{field}.payload"), problem));
        }
        let payload = Opaque::from(payload.encode_to_vec());
        Ok(dtc_core::NewBranch { participant: participant.id, payload, one_phase: !speaks_http })
    }
}

fn lock_key(field: &str, key: &str) -> Result<LockKey, Error> {
    let length = key.chars().count();
    match (1..=MAX_LOCK_KEY).contains(&length) {
        true => Ok(LockKey::from(key)),
        false => {
            let problem = format!("has {length} characters, 1 to {MAX_LOCK_KEY} are allowed");
            Err(Error::invalid(field, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded() {
        assert_eq!(request_key(None).unwrap(), None);
        assert!(request_key(Some("")).is_err());
        assert!(request_key(Some(&"k".repeat(128))).is_ok());
        assert!(request_key(Some(&"k".repeat(129))).is_err());
    }
}
