//! What answers show.

use dtc::{
    LinkState,
    api::{self, InterventionAction, Outcome, TransactionState},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::text;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident from $from:path { $($(#[$case_doc:meta])* $case:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name { $($(#[$case_doc])* $case),* }

        impl From<$from> for $name {
            fn from(value: $from) -> Self {
                use $from as From;
                match value { $(From::$case => Self::$case,)* }
            }
        }
    };
}

/// The outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Not decided yet.
    Pending,
    /// The decision to commit is durable.
    Committed,
    /// The decision is to roll back.
    #[serde(rename = "rolledback")]
    RolledBack,
    /// At least one branch did the opposite of the decision.
    HeuristicMixed,
    /// The outcome of at least one branch cannot be known.
    HeuristicHazard,
}

impl From<Outcome> for State {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pending => Self::Pending,
            Outcome::Committed => Self::Committed,
            Outcome::Aborted => Self::RolledBack,
            Outcome::HeuristicMixed => Self::HeuristicMixed,
            Outcome::HeuristicHazard => Self::HeuristicHazard,
        }
    }
}

impl From<State> for Outcome {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Committed => Self::Committed,
            State::RolledBack => Self::Aborted,
            State::HeuristicMixed => Self::HeuristicMixed,
            State::HeuristicHazard => Self::HeuristicHazard,
        }
    }
}

words! {
    /// The phase of a transaction.
    Phase from TransactionState {
        /// Interactive: branches may be enlisted.
        Active,
        /// Votes are being collected.
        Preparing,
        /// Interactive: every branch voted to commit, the client decides.
        Prepared,
        /// Decided to commit; branches are being notified.
        Committing,
        /// Committed, and every branch has acknowledged.
        Committed,
        /// Decided to roll back; branches are being notified.
        Aborting,
        /// Rolled back; the delivery of rollbacks has finished.
        Aborted,
    }
}

words! {
    /// The state of a branch, as the coordinator knows it.
    BranchState from api::BranchState {
        /// Prepare not sent yet.
        Enlisted,
        /// Prepare sent, no vote yet.
        Preparing,
        /// Voted to commit.
        Prepared,
        /// Voted read-only: finished.
        ReadOnly,
        /// Voted to abort: finished.
        Refused,
        /// Decided to commit, not acknowledged yet.
        Committing,
        /// Commit acknowledged.
        Committed,
        /// Decided to roll back, not acknowledged yet.
        RollingBack,
        /// Rollback acknowledged.
        #[serde(rename = "rolledback")]
        RolledBack,
        /// Not acknowledged and no longer sent: the participant's inquiry will be answered
        /// 'aborted'.
        RollbackUnacknowledged,
        /// Did the opposite of the decision.
        Heuristic,
        /// The participant does not know a branch for which it voted to commit, or the
        /// branch's outcome cannot be known for another reason.
        Hazard,
        /// Resolved by an operator in line with the decision; not acknowledged.
        Asserted,
    }
}

words! {
    /// The connection between the coordinator and a participant.
    Link from LinkState {
        /// Not connected; the coordinator keeps trying.
        Disconnected,
        /// gRPC, batches over a stream.
        Stream,
        /// gRPC, one call a message.
        Unary,
        /// HTTP, one request a message.
        Http,
        /// The participant reports a newer run of this coordinator: see `newer_epoch`.
        Quarantined,
    }
}

/// The reason of a vote to abort, or of a rollback.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reason {
    /// A constant, such as OUT_OF_STOCK or PREPARE_TIMEOUT.
    code: String,
    /// A sentence for human readers.
    message: String,
    /// The participant that gave it; absent for the coordinator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
}

/// One participant's part of a transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Branch {
    branch: u32,
    participant: String,
    state: BranchState,
    /// Attempts of the unanswered message in this run of the coordinator; 0 where none is
    /// unanswered.
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// An operator's resolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<Resolution>,
    /// An operator resolved it, and its participant is not notified yet. The transaction does
    /// not wait for that.
    notification_owed: bool,
}

/// An operator's resolution of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Resolution {
    /// To commit it.
    Commit,
    /// To roll it back.
    Rollback,
}

words! {
    /// An operator's action.
    Action from InterventionAction {
        /// Resolved it to commit.
        Commit,
        /// Resolved it to roll back.
        Rollback,
        /// Sent unacknowledged messages again.
        Retry,
        /// Returned it to retention.
        Forget,
        /// Ended the attempts to notify a participant.
        Abandon,
    }
}

/// An intervention by an operator.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Intervention {
    /// RFC 3339.
    #[schema(format = DateTime)]
    at: String,
    action: Action,
    /// Absent where it concerned the whole transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<u32>,
    reason: String,
    caller: String,
}

/// An event of a transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrailEvent {
    /// RFC 3339.
    #[schema(format = DateTime)]
    at: String,
    /// Such as `voted_commit` or `decided_abort`.
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// A transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Transaction {
    #[schema(format = "uuid")]
    pub(super) id: String,
    state: State,
    phase: Phase,
    /// True when the decision to commit is durable.
    committed: bool,
    /// The decision is unacknowledged after --stalled-after attempts; delivery goes on.
    stalled: bool,
    /// Its idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_key: Option<String>,
    /// The first transaction of which it is a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
    branches: Vec<Branch>,
    /// Conditions for its end that are not met yet, in words.
    waiting_for: Vec<String>,
    /// The reason of its rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    begun_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    decided_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Interventions by operators, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interventions: Vec<Intervention>,
    /// Its events, in order; not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trail: Vec<TrailEvent>,
}

/// A page of transactions, newest first, without their trails.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Transactions {
    pub(super) transactions: Vec<Transaction>,
    /// `page_token` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page_token: Option<String>,
}

/// A branch that was enlisted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Enlisted {
    /// Its number within the transaction, from 0.
    pub(super) branch: u32,
}

/// A participant that the coordinator knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Participant {
    name: String,
    address: String,
    /// It inquires when in doubt: its link is a stream, or its registration declares it.
    supports_inquiry: bool,
    /// It can undo a committed branch, as its stream or its registration declares.
    compensates: bool,
    link: Link,
    /// The error of the last call or connection that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// The newer epoch of this coordinator that it reports, while its link is quarantined.
    #[serde(skip_serializing_if = "Option::is_none")]
    newer_epoch: Option<u64>,
    /// Transactions that name it and have not ended.
    unfinished: u32,
    /// No new transactions; it is removed when the unfinished ones have ended.
    draining: bool,
    /// Remaining time of its registration; absent where it never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_left_ms: Option<u64>,
}

/// The participants that the coordinator knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Participants {
    pub(super) participants: Vec<Participant>,
}

impl From<api::Reason> for Reason {
    fn from(reason: api::Reason) -> Self {
        let participant = reason.participant.map(|name| name.to_string());
        Self { code: reason.code, message: reason.message, participant }
    }
}

impl From<bool> for Resolution {
    fn from(commit: bool) -> Self {
        if commit { Self::Commit } else { Self::Rollback }
    }
}

impl Branch {
    fn new(number: u32, branch: api::Branch) -> Self {
        Self {
            branch: number,
            participant: branch.participant.to_string(),
            state: branch.state.into(),
            attempts: branch.attempts,
            reason: branch.reason.map(Reason::from),
            resolution: branch.resolution.map(Resolution::from),
            notification_owed: branch.notification_owed,
        }
    }
}

impl From<api::TrailEvent> for TrailEvent {
    fn from(event: api::TrailEvent) -> Self {
        Self {
            at: text(event.at),
            kind: snake_case(&format!("{:?}", event.kind)),
            branch: event.branch,
            participant: event.participant.map(|name| name.to_string()),
            detail: (!event.detail.is_empty()).then_some(event.detail),
        }
    }
}

/// A Rust name in JSON's spelling.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

impl From<&api::Intervention> for Intervention {
    fn from(it: &api::Intervention) -> Self {
        Self {
            at: text(it.at),
            action: it.action.into(),
            branch: it.branch,
            reason: it.reason.to_string(),
            caller: it.caller.to_string(),
        }
    }
}

impl From<api::Transaction> for Transaction {
    fn from(transaction: api::Transaction) -> Self {
        let phase = Phase::from(transaction.state);
        let branches = (0..).zip(transaction.branches).map(|(number, it)| Branch::new(number, it));
        let branches: Vec<Branch> = branches.collect();
        Self {
            id: transaction.id.to_string(),
            state: transaction.outcome.into(),
            phase,
            committed: transaction.committed,
            stalled: transaction.stalled,
            request_key: transaction.request_key.map(|key| key.to_string()),
            retry_of: transaction.retry_of.map(|id| id.to_string()),
            waiting_for: waiting_for(phase, &branches),
            branches,
            reason: transaction.reason.map(Reason::from),
            begun_at: transaction.begun_at.map(text),
            decided_at: transaction.decided_at.map(text),
            ended_at: transaction.ended_at.map(text),
            interventions: transaction.interventions.iter().map(Intervention::from).collect(),
            trail: transaction.trail.into_iter().map(TrailEvent::from).collect(),
        }
    }
}

/// The conditions for the end that are not met yet, in words.
fn waiting_for(phase: Phase, branches: &[Branch]) -> Vec<String> {
    match phase {
        Phase::Active => return vec!["its client: enlist, prepare, commit or roll back".into()],
        Phase::Prepared => return vec!["its client: commit or roll back".into()],
        Phase::Committed | Phase::Aborted => return Vec::new(),
        Phase::Preparing | Phase::Committing | Phase::Aborting => {}
    }
    let untouched = branches.iter().all(|it| it.state == BranchState::Enlisted);
    if phase == Phase::Preparing && untouched {
        return vec!["its locks, or the journal".into()];
    }
    let waited = branches.iter().filter_map(|it| {
        let what = match it.state {
            BranchState::Enlisted | BranchState::Preparing => "the vote",
            BranchState::Committing => "the acknowledgement of commit",
            BranchState::RollingBack => "the acknowledgement of rollback",
            _ => return None,
        };
        let Branch { branch, participant, attempts, .. } = it;
        Some(format!("{what} of branch {branch} at {participant} (attempt {attempts})"))
    });
    let waited: Vec<String> = waited.collect();
    match waited.is_empty() {
        true => vec!["the journal".into()],
        false => waited,
    }
}

impl From<api::ParticipantStatus> for Participant {
    fn from(status: api::ParticipantStatus) -> Self {
        let millis =
            |left: std::time::Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: status.name.to_string(),
            address: status.address,
            supports_inquiry: status.capabilities.supports_inquiry,
            compensates: status.capabilities.compensates,
            link: status.link.into(),
            last_error: (!status.last_error.is_empty()).then(|| status.last_error.to_string()),
            newer_epoch: status.newer_epoch,
            unfinished: u32::try_from(status.unfinished).unwrap_or(u32::MAX),
            draining: status.draining,
            lease_left_ms: status.lease_left.map(millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_events_are_spelled_as_the_documents_say() {
        assert_eq!(snake_case("VotedReadOnly"), "voted_read_only");
        assert_eq!(snake_case("Begun"), "begun");
    }
}
