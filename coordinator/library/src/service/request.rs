//! Requests, checked: what is wrong is named with its field.

use std::time::Duration;

use dtc_core::{
    AnswerAt, CommitPolicy, Fingerprint, LockKey, LockMode, MAX_LOCK_KEY, NewBranch, Opaque,
    Options, RequestKey,
};
use dtc_proto::{
    dtc::{
        self, AcquireLocksRequest, BeginRequest, EnlistRequest, ExecuteRequest, Payload,
        TransactionOptions, payload::Kind,
    },
    json,
};
use dtc_protocol::TransactionId;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{error::Error, links::Links};

/// How long a call waits that doesn't say.
pub(super) const WAIT: Duration = Duration::from_secs(30);
/// The longest that one can ask for.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_KEY: usize = 128;
/// Failed attempts of commit that compensate a decision, where that is asked for
/// and says nothing else.
const COMPENSATE_AFTER: u32 = 10;
/// Each of them is on record.
const MAX_COMPENSATE_AFTER: u32 = 100;

/// What requests are checked against.
#[derive(Debug, Clone)]
pub struct Rules {
    pub options: Options,
    pub max_payload: usize,
    pub max_branches: usize,
    /// Of one request.
    pub max_locks: usize,
}

pub fn transaction_id(text: &str) -> Result<TransactionId, Error> {
    text.parse().map_err(|error| {
        let text: String = text.chars().take(80).collect();
        Error::invalid("transaction_id", format!("'{text}' is {error}"))
    })
}

/// The first transaction of which a new one is a retry; none for an empty text.
pub(super) fn retry_of(text: &str) -> Result<Option<TransactionId>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(80).collect();
    let id: TransactionId = text
        .parse()
        .map_err(|error| Error::invalid("retry_of", format!("'{shown}' is {error}")))?;
    match uuid::Uuid::from_bytes(*id.as_bytes()).get_version_num() {
        7 => Ok(Some(id)),
        _ => Err(Error::invalid("retry_of", format!("'{shown}' is no transaction's id"))),
    }
}

/// A call's key; none for an empty text.
pub(super) fn request_key(key: &str) -> Result<Option<RequestKey>, Error> {
    match key {
        "" => Ok(None),
        key => some_request_key(key).map(Some),
    }
}

pub(super) fn some_request_key(key: &str) -> Result<RequestKey, Error> {
    let length = key.chars().count();
    if (1..=MAX_KEY).contains(&length) {
        return Ok(key.into());
    }
    Err(Error::invalid(
        "request_key",
        format!("has {length} characters, 1 to {MAX_KEY} are allowed"),
    ))
}

pub(super) fn wait(wait: Option<&prost_types::Duration>) -> Result<Duration, Error> {
    match duration("wait", wait)? {
        None => Ok(WAIT),
        Some(wait) => Ok(wait),
    }
}

pub(super) fn answer_at(value: i32) -> Result<AnswerAt, Error> {
    match dtc::AnswerAt::try_from(value) {
        Ok(dtc::AnswerAt::Unspecified | dtc::AnswerAt::Completion) => Ok(AnswerAt::Completion),
        Ok(dtc::AnswerAt::Decision) => Ok(AnswerAt::Decision),
        Err(_) => Err(Error::invalid(
            "answer_at",
            format!("{value} is none; ANSWER_AT_COMPLETION or ANSWER_AT_DECISION"),
        )),
    }
}

/// A duration from 0 to 24 hours.
pub(super) fn duration(
    field: &str,
    value: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    let Some(value) = value else {
        return Ok(None);
    };
    // Not `try_from`, which negates what cannot be negated.
    let seconds = u64::try_from(value.seconds).ok();
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let duration = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let good = duration.filter(|duration| *duration <= LONGEST);
    let problem =
        || format!("{}s {}ns is out of range; from 0s to 24h", value.seconds, value.nanos);
    good.map(Some).ok_or_else(|| Error::invalid(field, problem()))
}

impl Rules {
    /// A transaction's options over the coordinator's defaults.
    pub(super) fn options(&self, options: Option<&TransactionOptions>) -> Result<Options, Error> {
        let defaults = &self.options;
        let Some(options) = options else {
            return Ok(defaults.clone());
        };
        let or = |field: &str, value: Option<&prost_types::Duration>, default: Duration| {
            let field = format!("options.{field}");
            match duration(&field, value)? {
                None => Ok(default),
                Some(value) if value < Duration::from_millis(1) => {
                    Err(Error::invalid(field, format!("{value:?} is too short; at least 1ms")))
                }
                Some(value) => Ok(value),
            }
        };
        let attempt = options.prepare_attempt_timeout.as_ref();
        let commit = options.commit_attempt_timeout.as_ref();
        Ok(Options {
            prepare_timeout: or(
                "prepare_timeout",
                options.prepare_timeout.as_ref(),
                defaults.prepare_timeout,
            )?,
            prepare_attempts: match options.prepare_attempts {
                0 => defaults.prepare_attempts,
                attempts => attempts,
            },
            prepare_attempt_timeout: or(
                "prepare_attempt_timeout",
                attempt,
                defaults.prepare_attempt_timeout,
            )?,
            commit_attempt_timeout: or(
                "commit_attempt_timeout",
                commit,
                defaults.commit_attempt_timeout,
            )?,
            idle_timeout: or("idle_timeout", options.idle_timeout.as_ref(), defaults.idle_timeout)?,
            commit_policy: commit_policy(options, defaults.commit_policy)?,
            lock_wait: duration("options.lock_wait", options.lock_wait.as_ref())?
                .unwrap_or(defaults.lock_wait),
            link_grace: duration("options.link_grace", options.link_grace.as_ref())?
                .unwrap_or(defaults.link_grace),
        })
    }

    /// Keys of locks, without what is asked for them.
    pub(super) fn lock_keys(&self, field: &str, keys: &[String]) -> Result<Vec<LockKey>, Error> {
        let locks = keys.iter().map(|key| dtc::Lock { key: key.clone(), mode: 0 });
        let locks = self.locks(field, &locks.collect::<Vec<_>>())?;
        Ok(locks.into_iter().map(|(key, _)| key).collect())
    }

    /// The locks of a request.
    pub(super) fn locks(
        &self,
        field: &str,
        locks: &[dtc::Lock],
    ) -> Result<Vec<(LockKey, LockMode)>, Error> {
        if locks.len() > self.max_locks {
            let (count, limit) = (locks.len(), self.max_locks);
            let problem = format!("{count} are too many; the limit is {limit} (--max-lock-keys)");
            return Err(Error::invalid(field, problem));
        }
        let lock = |(index, lock): (usize, &dtc::Lock)| {
            let length = lock.key.len();
            if !(1..=MAX_LOCK_KEY).contains(&length) {
                let problem = format!("has {length} bytes, 1 to {MAX_LOCK_KEY} are allowed");
                return Err(Error::invalid(format!("{field}[{index}].key"), problem));
            }
            let mode = match dtc::LockMode::try_from(lock.mode) {
                Ok(dtc::LockMode::Shared) => LockMode::Shared,
                Ok(dtc::LockMode::Exclusive | dtc::LockMode::Unspecified) => LockMode::Exclusive,
                Err(_) => {
                    let problem =
                        format!("{} is none; LOCK_MODE_SHARED or LOCK_MODE_EXCLUSIVE", lock.mode);
                    return Err(Error::invalid(format!("{field}[{index}].mode"), problem));
                }
            };
            Ok((LockKey::from(lock.key.as_str()), mode))
        };
        locks.iter().enumerate().map(lock).collect()
    }

    /// The branches of a request.
    pub(super) fn branches(
        &self,
        branches: &[dtc::Branch],
        links: &Links,
    ) -> Result<Vec<NewBranch>, Error> {
        if branches.is_empty() {
            let problem = "a transaction needs at least one; name a participant and its payload";
            return Err(Error::invalid("branches", problem));
        }
        if branches.len() > self.max_branches {
            let (count, limit) = (branches.len(), self.max_branches);
            let problem = format!("{count} are too many; the limit is {limit} (--max-branches)");
            return Err(Error::invalid("branches", problem));
        }
        let mut checked = Vec::with_capacity(branches.len());
        for (index, branch) in branches.iter().enumerate() {
            checked.push(self.branch(&format!("branches[{index}]"), branch, links)?);
        }
        Ok(checked)
    }

    /// One branch of a request.
    pub(super) fn branch(
        &self,
        field: &str,
        branch: &dtc::Branch,
        links: &Links,
    ) -> Result<NewBranch, Error> {
        if branch.participant.is_empty() {
            let problem = "is empty; give a registered name or an address";
            return Err(Error::invalid(format!("{field}.participant"), problem));
        }
        let participant = links.resolve(&format!("{field}.participant"), &branch.participant)?;
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
        let (size, limit) = (payload.encoded_len(), self.max_payload);
        if size > limit {
            let problem = format!("has {size} bytes; the limit is {limit} (--max-payload)");
            return Err(Error::invalid(format!("{field}.payload"), problem));
        }
        let payload = Opaque::from(payload.encode_to_vec());
        Ok(NewBranch { participant: participant.id, payload, one_phase: !speaks_http })
    }
}

/// A hash of what makes two requests the same: their branches, locks and options, as
/// decoded and as they were sent, whatever they lead to. No name is resolved and no
/// default filled in: those may be others when the request is repeated. (Protobuf may
/// encode one message in several ways; what is hashed is our own encoding of it, with
/// maps in order.)
pub(super) fn fingerprint(request: &ExecuteRequest) -> Fingerprint {
    let mut hash = Hash::default();
    for branch in &request.branches {
        hash.add(branch.participant.as_bytes());
        hash.add_message(branch.payload.as_ref());
    }
    hash.add_message(request.options.as_ref());
    hash.add(request.retry_of.as_bytes());
    hash.add_locks(&request.locks);
    hash.finish()
}

/// The same of a transaction that is begun only. It has no branch, which one that is
/// executed has.
pub(super) fn fingerprint_of_begin(request: &BeginRequest) -> Fingerprint {
    let mut hash = Hash::default();
    hash.add(b"begin");
    hash.add_message(request.options.as_ref());
    hash.add(request.retry_of.as_bytes());
    hash.finish()
}

/// The same of a branch that is enlisted.
pub(super) fn fingerprint_of_enlist(request: &EnlistRequest) -> Fingerprint {
    let mut hash = Hash::default();
    hash.add(b"enlist");
    if let Some(branch) = &request.branch {
        hash.add(branch.participant.as_bytes());
        hash.add_message(branch.payload.as_ref());
    }
    hash.finish()
}

/// The same of locks.
pub(super) fn fingerprint_of_acquire(request: &AcquireLocksRequest) -> Fingerprint {
    let mut hash = Hash::default();
    hash.add(b"acquire");
    hash.add(request.transaction_id.as_bytes());
    hash.add_message(request.lease.as_ref());
    hash.add(request.retry_of.as_bytes());
    hash.add_locks(&request.locks);
    hash.finish()
}

/// Of parts, none of which runs into the next.
#[derive(Default)]
struct Hash {
    hash: Sha256,
    encoded: Vec<u8>,
}

impl Hash {
    fn add(&mut self, part: &[u8]) {
        self.hash.update((part.len() as u64).to_le_bytes());
        self.hash.update(part);
    }

    /// None is as good as an empty one.
    fn add_message<M: Message>(&mut self, message: Option<&M>) {
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        if let Some(message) = message {
            message.encode(&mut encoded).unwrap_or_else(|_| unreachable!("a vector grows"));
        }
        self.add(&encoded);
        self.encoded = encoded;
    }

    /// One without a mode is exclusive, which is how HTTP sends it.
    fn add_locks(&mut self, locks: &[dtc::Lock]) {
        for lock in locks {
            let mode = match lock.mode() {
                dtc::LockMode::Unspecified if lock.mode == 0 => dtc::LockMode::Exclusive.into(),
                _ => lock.mode,
            };
            self.add(lock.key.as_bytes());
            self.add(&mode.to_le_bytes());
        }
    }

    fn finish(self) -> Fingerprint {
        self.hash.finalize().into()
    }
}

/// A state for people.
pub(super) fn words(state: dtc::TransactionState) -> String {
    let name = state.as_str_name();
    name.trim_start_matches("TRANSACTION_STATE_").to_lowercase()
}

fn commit_policy(
    options: &TransactionOptions,
    default: CommitPolicy,
) -> Result<CommitPolicy, Error> {
    let (value, after) = (options.commit_policy, options.compensate_after);
    match dtc::CommitPolicy::try_from(value) {
        Ok(dtc::CommitPolicy::Unspecified) if after == 0 => Ok(default),
        Ok(dtc::CommitPolicy::Retry) if after == 0 => Ok(CommitPolicy::Retry),
        Ok(dtc::CommitPolicy::Unspecified | dtc::CommitPolicy::Retry) => {
            let problem = "goes with COMMIT_POLICY_COMPENSATE only";
            Err(Error::invalid("options.compensate_after", problem))
        }
        Ok(dtc::CommitPolicy::Compensate) => match after {
            0 => Ok(CommitPolicy::Compensate { after: COMPENSATE_AFTER }),
            1..=MAX_COMPENSATE_AFTER => Ok(CommitPolicy::Compensate { after }),
            _ => {
                let problem = format!("{after} is out of range; 1 to {MAX_COMPENSATE_AFTER}");
                Err(Error::invalid("options.compensate_after", problem))
            }
        },
        Err(_) => {
            let good = "COMMIT_POLICY_RETRY or COMMIT_POLICY_COMPENSATE";
            Err(Error::invalid("options.commit_policy", format!("{value} is none; {good}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(participant: &str, payload: &str) -> dtc::Branch {
        let kind = dtc::payload::Kind::Typed(payload.to_owned().into());
        let payload = Some(Payload { kind: Some(kind) });
        dtc::Branch { participant: participant.into(), payload }
    }

    #[test]
    fn the_fingerprint_is_of_the_body_and_not_of_how_the_answer_is_wanted() {
        let request = |branches: &[dtc::Branch]| ExecuteRequest {
            request_key: "key".into(),
            branches: branches.into(),
            ..ExecuteRequest::default()
        };
        let first = request(&[branch("inventory", "a"), branch("payment", "b")]);
        let mut second = first.clone();
        second.wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        second.answer_at = dtc::AnswerAt::Decision.into();
        assert_eq!(fingerprint(&first), fingerprint(&second));
        second.options = Some(TransactionOptions { prepare_attempts: 3, ..Default::default() });
        let others = [
            second,
            request(&[branch("payment", "b"), branch("inventory", "a")]),
            request(&[branch("inventory", "a"), branch("payment", "c")]),
            request(&[branch("inventory", "a"), branch("order", "b")]),
            request(&[branch("inventory", "a")]),
            ExecuteRequest {
                locks: vec![dtc::Lock { key: "a".into(), ..Default::default() }],
                ..first.clone()
            },
        ];
        for other in others {
            assert_ne!(fingerprint(&first), fingerprint(&other), "{other:?}");
        }
    }

    #[test]
    fn durations_out_of_range_are_named() {
        for (seconds, nanos) in [
            (-1, 0),
            (i64::MIN, 0),
            (0, -1),
            (0, i32::MIN),
            (i64::MAX, i32::MAX),
            (1, 1_000_000_000),
        ] {
            let bad = prost_types::Duration { seconds, nanos };
            let error = wait(Some(&bad)).unwrap_err().to_string();
            assert!(error.contains(&format!("wait: {seconds}s {nanos}ns")), "{error}");
        }
        assert_eq!(wait(None).unwrap(), WAIT);
    }

    #[test]
    fn keys_are_bounded() {
        assert_eq!(request_key("").unwrap(), None);
        assert!(some_request_key("").is_err());
        assert!(request_key(&"k".repeat(128)).is_ok());
        assert!(request_key(&"k".repeat(129)).is_err());
    }
}
