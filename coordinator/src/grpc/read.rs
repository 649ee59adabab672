//! Requests in the API's types. What has no place there is refused with its field; what is
//! wrong with a value is the API's to say.

use std::time::Duration;

use dtc::api::{
    self, AnswerAt, COMPENSATE_AFTER, CommitPolicy, Error, LockMode, Outcome, TransactionState,
    parse_id,
};
use dtc_proto::dtc::{self as wire, TransactionOptions};
use dtc_protocol::TransactionId;

use super::show;
use crate::time::time;

pub(super) fn transaction_id(text: &str) -> Result<TransactionId, Error> {
    parse_id("transaction_id", text)
}

/// An id, none for an empty text.
pub(super) fn optional_id(field: &str, text: &str) -> Result<Option<TransactionId>, Error> {
    some(text).map(|text| parse_id(field, text)).transpose()
}

/// None for an empty text.
pub(super) fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A duration that is not negative.
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
    let problem =
        || format!("{}s {}ns is out of range; from 0s to 24h", value.seconds, value.nanos);
    duration.map(Some).ok_or_else(|| Error::invalid(field, problem()))
}

pub(super) fn answer_at(value: i32) -> Result<AnswerAt, Error> {
    match wire::AnswerAt::try_from(value) {
        Ok(wire::AnswerAt::Unspecified | wire::AnswerAt::Completion) => Ok(AnswerAt::Completion),
        Ok(wire::AnswerAt::Decision) => Ok(AnswerAt::Decision),
        Err(_) => Err(Error::invalid(
            "answer_at",
            format!("{value} is none; ANSWER_AT_COMPLETION or ANSWER_AT_DECISION"),
        )),
    }
}

pub(super) fn new_transaction(request: wire::ExecuteRequest) -> Result<api::NewTransaction, Error> {
    let branches = request.branches.into_iter().map(branch);
    Ok(api::NewTransaction {
        request_key: Some(request.request_key).filter(|key| !key.is_empty()),
        branches: branches.collect(),
        options: options(request.options.as_ref())?,
        retry_of: optional_id("retry_of", &request.retry_of)?,
        locks: locks(request.locks)?,
        trace: None,
    })
}

pub(super) fn branch(branch: wire::Branch) -> api::NewBranch {
    api::NewBranch { participant: branch.participant, payload: branch.payload }
}

pub(super) fn locks(locks: Vec<wire::Lock>) -> Result<Vec<api::NewLock>, Error> {
    let lock = |(index, lock): (usize, wire::Lock)| {
        let mode = match wire::LockMode::try_from(lock.mode) {
            Ok(wire::LockMode::Shared) => LockMode::Shared,
            Ok(wire::LockMode::Exclusive | wire::LockMode::Unspecified) => LockMode::Exclusive,
            Err(_) => {
                let problem =
                    format!("{} is none; LOCK_MODE_SHARED or LOCK_MODE_EXCLUSIVE", lock.mode);
                return Err(Error::invalid(format!("locks[{index}].mode"), problem));
            }
        };
        Ok(api::NewLock { key: lock.key, mode })
    };
    locks.into_iter().enumerate().map(lock).collect()
}

pub(super) fn options(options: Option<&TransactionOptions>) -> Result<api::Options, Error> {
    let Some(options) = options else {
        return Ok(api::Options::default());
    };
    let duration = |field: &str, value: &Option<prost_types::Duration>| {
        duration(&format!("options.{field}"), value.as_ref())
    };
    Ok(api::Options {
        prepare_timeout: duration("prepare_timeout", &options.prepare_timeout)?,
        prepare_attempts: options.prepare_attempts,
        prepare_attempt_timeout: duration(
            "prepare_attempt_timeout",
            &options.prepare_attempt_timeout,
        )?,
        commit_attempt_timeout: duration(
            "commit_attempt_timeout",
            &options.commit_attempt_timeout,
        )?,
        idle_timeout: duration("idle_timeout", &options.idle_timeout)?,
        lock_wait: duration("lock_wait", &options.lock_wait)?,
        link_grace: duration("link_grace", &options.link_grace)?,
        commit_policy: commit_policy(options)?,
    })
}

fn commit_policy(options: &TransactionOptions) -> Result<Option<CommitPolicy>, Error> {
    let (value, after) = (options.commit_policy, options.compensate_after);
    match wire::CommitPolicy::try_from(value) {
        Ok(wire::CommitPolicy::Unspecified) if after == 0 => Ok(None),
        Ok(wire::CommitPolicy::Retry) if after == 0 => Ok(Some(CommitPolicy::Retry)),
        Ok(wire::CommitPolicy::Unspecified | wire::CommitPolicy::Retry) => {
            let problem = "goes with COMMIT_POLICY_COMPENSATE only";
            Err(Error::invalid("options.compensate_after", problem))
        }
        Ok(wire::CommitPolicy::Compensate) => {
            let after = if after == 0 { COMPENSATE_AFTER } else { after };
            Ok(Some(CommitPolicy::Compensate { after }))
        }
        Err(_) => {
            let good = "COMMIT_POLICY_RETRY or COMMIT_POLICY_COMPENSATE";
            Err(Error::invalid("options.commit_policy", format!("{value} is none; {good}")))
        }
    }
}

pub(super) fn filter(request: wire::ListTransactionsRequest) -> Result<api::Filter, Error> {
    let states = request.states.iter().map(|value| {
        let known = wire::TransactionState::try_from(*value).ok().and_then(show::core_state);
        known.ok_or_else(|| none("states", *value, "TRANSACTION_STATE_ACTIVE"))
    });
    let outcomes = request.outcomes.iter().map(|value| {
        let known = wire::Outcome::try_from(*value).ok().and_then(show::core_outcome);
        known.ok_or_else(|| none("outcomes", *value, "OUTCOME_PENDING"))
    });
    let before = some(&request.page_token).map(|token| {
        token.parse::<TransactionId>().map_err(|_| {
            Error::invalid("page_token", "is not from an answer of List; leave it empty to begin")
        })
    });
    Ok(api::Filter {
        states: states.collect::<Result<Vec<TransactionState>, _>>()?,
        outcomes: outcomes.collect::<Result<Vec<Outcome>, _>>()?,
        participant: Some(request.participant).filter(|name| !name.is_empty()),
        stalled: request.stalled,
        notification_owed: request.notification_owed,
        begun_after: request.begun_after.as_ref().map(time),
        begun_before: request.begun_before.as_ref().map(time),
        page_size: request.page_size,
        before: before.transpose()?,
    })
}

fn none(field: &str, value: i32, example: &str) -> Error {
    Error::invalid(field, format!("{value} is none; name them, such as {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_are_none_are_named() {
        for (seconds, nanos) in [(-1, 0), (i64::MIN, 0), (0, -1), (0, i32::MIN), (1, 1_000_000_000)]
        {
            let bad = prost_types::Duration { seconds, nanos };
            let error = duration("wait", Some(&bad)).unwrap_err().to_string();
            assert!(error.contains(&format!("wait: {seconds}s {nanos}ns")), "{error}");
        }
    }
}
