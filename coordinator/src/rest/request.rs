//! Bodies and queries of requests, and what they are in the wire's words.

use dtc_proto::{
    dtc::{
        self, AnswerAt, Branch, ExecuteRequest, ListTransactionsRequest, Outcome, Payload,
        TransactionOptions, payload::Kind,
    },
    json,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{body, problem::Problem, schema, view};

/// A day, in milliseconds.
const LONGEST: u64 = 24 * 60 * 60 * 1000;
/// In milliseconds.
const SHORTEST_LEASE: u64 = 1000;

/// A new transaction: a list of participants' URLs, or a description.
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
    /// What is to be done where; none for an interactive one.
    #[serde(default)]
    pub(super) branches: Vec<NewBranch>,
    #[serde(default)]
    pub(super) options: Options,
    /// When a request that waits is answered.
    #[serde(default)]
    pub(super) answer_at: Moment,
    /// The first transaction of which this is a retry; it keeps that one's age.
    #[serde(default)]
    pub(super) retry_of: String,
    /// What it locks before anything is sent, until nothing is owed.
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
    #[schema(value_type = schema::Named)]
    pub(super) participant: String,
    /// What it is to do. HTTP participants may do without.
    #[serde(default)]
    #[schema(value_type = Option<HashMap<String, schema::Json>>)]
    pub(super) payload: Option<Map<String, Value>>,
}

/// A lock on a name that clients choose.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLock {
    /// 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 64)]
    key: String,
    #[serde(default)]
    #[schema(required = false)]
    mode: LockMode,
}

/// How a key is locked.
#[derive(Debug, Default, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LockMode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    #[default]
    Exclusive,
}

/// How a transaction is run; what is not set has the coordinator's default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    /// How long votes are waited for, all attempts together.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) prepare_timeout_ms: Option<u64>,
    /// Attempts of prepare a branch; 0 for no limit but the timeout.
    // As 'int32' a schema would end at half of it.
    #[schema(value_type = Option<u64>, maximum = 4294967295u64)]
    pub(super) prepare_attempts: Option<u32>,
    /// How long one attempt of prepare may take.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) prepare_attempt_timeout_ms: Option<u64>,
    /// How long one attempt of commit or rollback may take.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) commit_attempt_timeout_ms: Option<u64>,
    /// Interactive: how long the client may be silent.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) idle_timeout_ms: Option<u64>,
    /// How long its locks are waited for.
    #[schema(minimum = 1, maximum = 86400000)]
    pub(super) lock_wait_ms: Option<u64>,
    /// How long it waits for the link of a participant that is known to be away, with
    /// nothing sent; 0 for no wait.
    #[schema(maximum = 86400000)]
    pub(super) link_grace_ms: Option<u64>,
    /// Compensate after so many failed attempts of commit at one branch:
    /// what was committed is undone. The outcome is told at the end only. Not set: a
    /// commit is retried until every branch has acknowledged.
    #[schema(minimum = 1, maximum = 100)]
    pub(super) compensate_after: Option<u32>,
}

/// A moment in a transaction's life.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Moment {
    /// Every branch has acknowledged the decision.
    #[default]
    Completion,
    /// The decision is durable.
    Decision,
}

/// How long to wait for an answer.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Seconds to wait for the outcome; goes before the header `Prefer: wait=N`.
    #[param(minimum = 0, maximum = 86400)]
    pub(super) wait: Option<u64>,
}

/// Which transactions to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those in this state.
    #[param(inline)]
    state: Option<view::State>,
    /// Only those with a branch at this participant.
    participant: Option<String>,
    /// Only those whose commit or rollback is still sent after the set number of attempts.
    stalled: Option<bool>,
    /// Only those that an operator resolved and whose participants are not all notified.
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
    /// From the page before; empty for the first.
    #[param(pattern = "^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$")]
    page_token: Option<String>,
}

impl NewTransaction {
    /// From a body. Not by serde's guess at the variant: its problem would name
    /// neither field nor value.
    pub(super) fn read(value: Value) -> Result<Self, Problem> {
        match value {
            Value::Array(_) => body::read(value).map(Self::Participants),
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
    pub(super) fn into_wire(self, request_key: String) -> Result<ExecuteRequest, Problem> {
        let branches = self.branches.into_iter().enumerate();
        let branches = branches.map(|(index, it)| it.into_wire(&format!("branches[{index}].")));
        Ok(ExecuteRequest {
            request_key,
            branches: branches.collect::<Result<_, _>>()?,
            options: Some(self.options.into_wire()?),
            answer_at: match self.answer_at {
                Moment::Completion => AnswerAt::Completion.into(),
                Moment::Decision => AnswerAt::Decision.into(),
            },
            wait: None,
            retry_of: self.retry_of,
            locks: self.locks.into_iter().map(NewLock::into_wire).collect(),
        })
    }
}

impl NewLock {
    fn into_wire(self) -> dtc::Lock {
        let mode = match self.mode {
            LockMode::Shared => dtc::LockMode::Shared,
            LockMode::Exclusive => dtc::LockMode::Exclusive,
        };
        dtc::Lock { key: self.key, mode: mode.into() }
    }
}

impl NewBranch {
    /// `within` is what stands before its fields' names.
    pub(super) fn into_wire(self, within: &str) -> Result<Branch, Problem> {
        let payload = self.payload.map(|payload| {
            json::to_struct(payload).map_err(|misfit| {
                Problem::invalid(misfit.field(&format!("{within}payload")), misfit.problem())
            })
        });
        let payload = payload.transpose()?.map(|fields| Payload { kind: Some(Kind::Json(fields)) });
        Ok(Branch { participant: self.participant, payload })
    }
}

impl Options {
    pub(super) fn into_wire(self) -> Result<TransactionOptions, Problem> {
        let duration = |field: &str, ms| duration(&format!("options.{field}"), ms, 1);
        let (attempt, commit) = (self.prepare_attempt_timeout_ms, self.commit_attempt_timeout_ms);
        Ok(TransactionOptions {
            prepare_timeout: duration("prepare_timeout_ms", self.prepare_timeout_ms)?,
            prepare_attempts: self.prepare_attempts.unwrap_or_default(),
            prepare_attempt_timeout: duration("prepare_attempt_timeout_ms", attempt)?,
            commit_attempt_timeout: duration("commit_attempt_timeout_ms", commit)?,
            idle_timeout: duration("idle_timeout_ms", self.idle_timeout_ms)?,
            lock_wait: duration("lock_wait_ms", self.lock_wait_ms)?,
            link_grace: self::duration("options.link_grace_ms", self.link_grace_ms, 0)?,
            commit_policy: match self.compensate_after {
                None => dtc::CommitPolicy::Unspecified.into(),
                Some(_) => dtc::CommitPolicy::Compensate.into(),
            },
            compensate_after: match self.compensate_after {
                Some(0) => {
                    let problem = "0 is out of range; 1 to 100";
                    return Err(Problem::invalid("options.compensate_after", problem));
                }
                after => after.unwrap_or_default(),
            },
        })
    }
}

/// From `shortest` milliseconds to a day.
fn duration(
    field: &str,
    ms: Option<u64>,
    shortest: u64,
) -> Result<Option<prost_types::Duration>, Problem> {
    let read = |ms: u64| match (shortest..=LONGEST).contains(&ms) {
        true => Ok(prost_types::Duration {
            seconds: (ms / 1000) as i64,
            nanos: (ms % 1000) as i32 * 1_000_000,
        }),
        false => {
            Err(Problem::invalid(field, format!("{ms} is out of range; {shortest} to {LONGEST}")))
        }
    };
    ms.map(read).transpose()
}

impl Filter {
    pub(super) fn into_wire(self) -> Result<ListTransactionsRequest, Problem> {
        let time = |field: &str, text: Option<String>| {
            let read = |text: String| {
                text.parse::<prost_types::Timestamp>().map_err(|_| {
                    let text: String = text.chars().take(80).collect();
                    let problem = format!("'{text}' is no time; such as 2026-01-31T12:00:00Z");
                    Problem::invalid(field, problem)
                })
            };
            text.map(read).transpose()
        };
        if self.page_size == Some(0) {
            return Err(Problem::invalid("page_size", "0 is too small; 1 to 1000"));
        }
        Ok(ListTransactionsRequest {
            states: Vec::new(),
            outcomes: self.state.into_iter().map(|state| Outcome::from(state).into()).collect(),
            participant: self.participant.unwrap_or_default(),
            stalled: self.stalled.unwrap_or_default(),
            notification_owed: self.notification_owed.unwrap_or_default(),
            begun_after: time("begun_after", self.begun_after)?,
            begun_before: time("begun_before", self.begun_before)?,
            page_size: self.page_size.unwrap_or_default(),
            page_token: self.page_token.unwrap_or_default(),
        })
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
    pub(super) fn into_wire(self, name: String) -> Result<dtc::RegisterRequest, Problem> {
        let lease = duration("lease_ms", self.lease_ms, SHORTEST_LEASE)?;
        let Self { address, supports_inquiry, compensates, .. } = self;
        let participant = dtc::Participant { name, address, supports_inquiry, compensates };
        Ok(dtc::RegisterRequest { participant: Some(participant), lease })
    }
}

/// How a participant is deregistered.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Leaving {
    /// Refuse it new transactions, and remove it when the unfinished ones have
    /// ended.
    pub(super) drain: Option<bool>,
}
