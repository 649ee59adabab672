//! Bodies and queries of requests, and what they are in the API's types.

use std::time::Duration;

use dtc::{
    api::{self, CommitPolicy, Error, Opaque, Payload, parse_id},
    journal::Capabilities,
};
use dtc_proto::{dtc::payload::Kind, json};
use dtc_protocol::TransactionId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{body, primitives, problem::Problem, view};
use crate::time::time;

/// A new transaction: a list of participants' URLs, or an object.
pub(super) enum NewTransaction {
    /// The URLs of HTTP participants' prepare calls, such as
    /// `http://127.0.0.1:8001/prepare`. They get no payload.
    Participants(Vec<String>),
    Described(Described),
}

/// A transaction with its branches, or one to be driven call by call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    /// Its branches; none for an interactive one.
    #[serde(default)]
    pub(super) branches: Vec<NewBranch>,
    #[serde(default)]
    pub(super) options: Options,
    /// The moment at which a request with a wait is answered.
    #[serde(default)]
    pub(super) answer_at: Moment,
    /// The first transaction of which this is a retry; it keeps that one's age.
    #[serde(default)]
    pub(super) retry_of: String,
    /// Locks that are acquired before the first prepare and held until all branches have
    /// acknowledged.
    #[serde(default)]
    pub(super) locks: Vec<NewLock>,
    /// Begin only: the client enlists branches and then commits or rolls back.
    #[serde(default)]
    pub(super) interactive: bool,
}

/// One participant's part.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBranch {
    #[schema(value_type = primitives::Named)]
    pub(super) participant: String,
    /// The request to the participant; optional for HTTP participants.
    #[serde(default)]
    #[schema(value_type = Option<HashMap<String, primitives::Json>>)]
    pub(super) payload: Option<Map<String, Value>>,
}

/// A lock on a key that clients choose.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLock {
    #[schema(value_type = primitives::LockKey)]
    key: String,
    #[serde(default)]
    #[schema(required = false)]
    mode: LockMode,
}

/// The mode of a lock.
#[derive(Debug, Default, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LockMode {
    /// Compatible with other shared locks.
    Shared,
    /// Compatible with no other lock.
    #[default]
    Exclusive,
}

/// Options of a transaction; the defaults are the coordinator's.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    /// Longest wait for all votes, over all attempts.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) prepare_timeout_ms: Option<u64>,
    /// Attempts of prepare for each branch; 0 for no limit but `prepare_timeout_ms`.
    // As 'int32' a schema would end at half of it.
    #[schema(value_type = Option<u64>, maximum = 4294967295u64)]
    pub(super) prepare_attempts: Option<u32>,
    /// Timeout of one attempt of prepare.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) prepare_attempt_timeout_ms: Option<u64>,
    /// Timeout of one attempt of commit or rollback.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) commit_attempt_timeout_ms: Option<u64>,
    /// Interactive: time without a call of the client after which the transaction is rolled
    /// back.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) idle_timeout_ms: Option<u64>,
    /// Longest wait for its locks; 0 for no wait.
    #[schema(maximum = 86400000)]
    pub(super) lock_wait_ms: Option<u64>,
    /// Longest wait, before the first prepare, for the link of a disconnected participant;
    /// 0 for no wait.
    #[schema(maximum = 86400000)]
    pub(super) link_grace_ms: Option<u64>,
    /// Failed attempts of commit at one branch after which the decision is compensated:
    /// committed branches are undone. The outcome is visible at the end only. Not set:
    /// commit is retried until every branch has acknowledged.
    #[schema(minimum = 1, maximum = 100)]
    pub(super) compensate_after: Option<u32>,
}

/// A moment of a transaction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Moment {
    /// Every branch has acknowledged the decision.
    #[default]
    Completion,
    /// The decision is durable.
    Decision,
}

/// The wait for an answer.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Longest wait for the outcome, in seconds; overrides the header `Prefer: wait=N`.
    #[param(minimum = 0, maximum = 86400)]
    pub(super) wait: Option<u64>,
}

/// A filter of transactions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only transactions in this state.
    #[param(inline)]
    state: Option<view::State>,
    /// Only transactions with a branch at this participant.
    participant: Option<String>,
    /// Only stalled ones: the decision is unacknowledged after --stalled-after attempts.
    stalled: Option<bool>,
    /// Only those with a branch that an operator resolved and whose participant is not
    /// notified yet.
    notification_owed: Option<bool>,
    /// Only those begun at this time or later (RFC 3339).
    #[param(format = DateTime)]
    begun_after: Option<String>,
    /// Only those begun before this time (RFC 3339).
    #[param(format = DateTime)]
    begun_before: Option<String>,
    /// Transactions on a page; 100 where not set.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// `next_page_token` of the page before; empty for the first.
    #[param(pattern = "^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$")]
    page_token: Option<String>,
}

impl NewTransaction {
    /// From a body. Not by serde's guess at the variant: its problem would name
    /// neither field nor value.
    pub(super) fn read(value: Value) -> Result<Self, Problem> {
        match value {
            Value::Array(_) => body::read_list(value).map(Self::Participants),
            Value::Object(_) => body::read(value).map(Self::Described),
            _ => {
                let problem = "is neither a list of participants' URLs nor an object with branches";
                Err(Problem::invalid("the body", problem))
            }
        }
    }
}

impl From<NewTransaction> for Described {
    fn from(new: NewTransaction) -> Self {
        match new {
            NewTransaction::Described(described) => described,
            NewTransaction::Participants(all) => {
                let branch = |participant| NewBranch { participant, payload: None };
                Self { branches: all.into_iter().map(branch).collect(), ..Self::default() }
            }
        }
    }
}

impl Described {
    pub(super) fn into_api(
        self,
        request_key: Option<String>,
        trace: Option<Opaque>,
    ) -> Result<api::NewTransaction, Problem> {
        let branches = self.branches.into_iter().enumerate();
        let branches = branches.map(|(index, it)| it.into_api(&format!("branches[{index}].")));
        Ok(api::NewTransaction {
            request_key,
            branches: branches.collect::<Result<_, _>>()?,
            options: self.options.into(),
            retry_of: retry_of(&self.retry_of)?,
            locks: self.locks.into_iter().map(api::NewLock::from).collect(),
            trace,
        })
    }
}

/// None for an empty text.
pub(super) fn retry_of(text: &str) -> Result<Option<TransactionId>, Error> {
    (!text.is_empty()).then(|| parse_id("retry_of", text)).transpose()
}

impl From<NewLock> for api::NewLock {
    fn from(lock: NewLock) -> Self {
        let mode = match lock.mode {
            LockMode::Shared => api::LockMode::Shared,
            LockMode::Exclusive => api::LockMode::Exclusive,
        };
        Self { key: lock.key, mode }
    }
}

impl NewBranch {
    /// `within` is what stands before its fields' names.
    pub(super) fn into_api(self, within: &str) -> Result<api::NewBranch, Problem> {
        let payload = self.payload.map(|payload| {
            json::to_struct(payload).map_err(|misfit| {
                Problem::invalid(misfit.field(&format!("{within}payload")), misfit.problem())
            })
        });
        let payload = payload.transpose()?.map(|fields| Payload { kind: Some(Kind::Json(fields)) });
        Ok(api::NewBranch { participant: self.participant, payload })
    }
}

impl From<Options> for api::Options {
    fn from(options: Options) -> Self {
        let millis = |ms: Option<u64>| ms.map(Duration::from_millis);
        Self {
            prepare_timeout: millis(options.prepare_timeout_ms),
            prepare_attempts: options.prepare_attempts.unwrap_or_default(),
            prepare_attempt_timeout: millis(options.prepare_attempt_timeout_ms),
            commit_attempt_timeout: millis(options.commit_attempt_timeout_ms),
            idle_timeout: millis(options.idle_timeout_ms),
            lock_wait: millis(options.lock_wait_ms),
            link_grace: millis(options.link_grace_ms),
            commit_policy: options.compensate_after.map(|after| CommitPolicy::Compensate { after }),
        }
    }
}

impl Filter {
    pub(super) fn into_api(self) -> Result<api::Filter, Problem> {
        let moment = |field: &str, text: Option<String>| {
            let read = |text: String| match text.parse::<prost_types::Timestamp>() {
                Ok(at) => Ok(time(&at)),
                Err(_) => {
                    let text: String = text.chars().take(80).collect();
                    let problem = format!("'{text}' is no time; such as 2026-01-31T12:00:00Z");
                    Err(Problem::invalid(field, problem))
                }
            };
            text.map(read).transpose()
        };
        let before = self.page_token.filter(|token| !token.is_empty()).map(|token| {
            token.parse::<TransactionId>().map_err(|_| {
                let problem = "is not from an answer of this list; leave it empty to begin";
                Problem::invalid("page_token", problem)
            })
        });
        Ok(api::Filter {
            states: Vec::new(),
            outcomes: self.state.into_iter().map(api::Outcome::from).collect(),
            participant: self.participant.filter(|name| !name.is_empty()),
            stalled: self.stalled.unwrap_or_default(),
            notification_owed: self.notification_owed.unwrap_or_default(),
            begun_after: moment("begun_after", self.begun_after)?,
            begun_before: moment("begun_before", self.begun_before)?,
            page_size: page_size(self.page_size)?,
            before: before.transpose()?,
        })
    }
}

/// 0 where nothing is said.
pub(super) fn page_size(size: Option<u32>) -> Result<u32, Problem> {
    match size {
        Some(0) => Err(Problem::invalid("page_size", "0 is too small; 1 to 1000")),
        size => Ok(size.unwrap_or_default()),
    }
}

/// A participant's registration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewParticipant {
    address: String,
    #[serde(default)]
    supports_inquiry: bool,
    #[serde(default)]
    compensates: bool,
    lease_ms: Option<u64>,
}

impl NewParticipant {
    pub(super) fn into_api(self, name: String) -> api::NewParticipant {
        let Self { address, supports_inquiry, compensates, lease_ms } = self;
        let capabilities = Capabilities { supports_inquiry, compensates };
        let lease = lease_ms.map(Duration::from_millis);
        api::NewParticipant { name, address, capabilities, lease }
    }
}

/// Options of a deregistration.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Leaving {
    /// Refuse new transactions for it, and remove it when the unfinished ones have
    /// ended.
    pub(super) drain: Option<bool>,
}
