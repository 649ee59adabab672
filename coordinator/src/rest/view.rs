//! What answers show.

use dtc_proto::dtc;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident from $wire:ident { $($(#[$case_doc:meta])* $case:ident),* $(,)? } or $other:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name { $($(#[$case_doc])* $case),* }

        impl From<dtc::$wire> for $name {
            fn from(wire: dtc::$wire) -> Self {
                match wire { $(dtc::$wire::$case => Self::$case,)* dtc::$wire::Unspecified => Self::$other }
            }
        }
    };
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Not decided yet.
    Pending,
    /// The decision to commit is durable.
    Committed,
    /// Decided to roll back.
    #[serde(rename = "rolledback")]
    RolledBack,
    /// Some branch did the opposite of the decision.
    HeuristicMixed,
    /// Some branch's fate cannot be known.
    HeuristicHazard,
}

impl From<dtc::Outcome> for State {
    fn from(outcome: dtc::Outcome) -> Self {
        match outcome {
            dtc::Outcome::Unspecified | dtc::Outcome::Pending => Self::Pending,
            dtc::Outcome::Committed => Self::Committed,
            dtc::Outcome::Aborted => Self::RolledBack,
            dtc::Outcome::HeuristicMixed => Self::HeuristicMixed,
            dtc::Outcome::HeuristicHazard => Self::HeuristicHazard,
        }
    }
}

impl From<State> for dtc::Outcome {
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
    /// Where a transaction is on its way.
    Phase from TransactionState {
        /// Interactive: branches may be enlisted.
        Active,
        /// Votes are being collected.
        Preparing,
        /// Interactive: every branch voted to commit, the client decides.
        Prepared,
        /// Decided to commit; branches are being told.
        Committing,
        /// Committed, and every branch has acknowledged.
        Committed,
        /// Decided to roll back; branches are being told.
        Aborting,
        /// Rolled back, and nothing is owed.
        Aborted,
    } or Preparing
}

words! {
    /// Where a branch is, as the coordinator knows it.
    BranchState from BranchState {
        /// Not sent yet.
        Enlisted,
        /// Prepare sent, no vote yet.
        Preparing,
        /// Voted to commit.
        Prepared,
        /// Voted read-only; done.
        ReadOnly,
        /// Voted to abort; done.
        Refused,
        /// Commit is owed.
        Committing,
        /// Commit acknowledged.
        Committed,
        /// Rollback is owed.
        RollingBack,
        /// Rollback acknowledged.
        #[serde(rename = "rolledback")]
        RolledBack,
        /// Rollback is no longer sent; the participant asks when it is back.
        RollbackUnacknowledged,
        /// Did the opposite of the decision.
        Heuristic,
        /// The participant does not know the branch that it voted for, or its fate cannot
        /// be known for another reason.
        Hazard,
        /// Resolved by an operator as it was decided; not acknowledged.
        Asserted,
    } or Enlisted
}

words! {
    /// How the coordinator stands to a participant.
    Link from LinkState {
        /// Not reached; tried again.
        Disconnected,
        /// gRPC, batches over a stream.
        Stream,
        /// gRPC, one call a message.
        Unary,
        /// HTTP, one request a message.
        Http,
        /// It says that it knows a newer run of this coordinator: see `newer_epoch`.
        Quarantined,
    } or Disconnected
}

/// Why a branch refused, or why a transaction was rolled back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reason {
    /// A short constant, such as OUT_OF_STOCK or PREPARE_TIMEOUT.
    code: String,
    /// A sentence for people.
    message: String,
    /// Whose reason it is; absent for the coordinator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
}

/// One participant's part of a transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Branch {
    branch: u32,
    participant: String,
    state: BranchState,
    /// How often the message that is waited for was sent in this run; 0 where nothing is
    /// waited for.
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// What an operator resolved it to.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<Resolution>,
    /// Resolved, and its participant is still to be notified. Nobody waits for that.
    notification_owed: bool,
}

/// Which way an operator resolved a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Resolution {
    /// To commit it.
    Commit,
    /// To roll it back.
    Rollback,
}

/// Something that happened to a transaction.
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
    /// The decision is still being retried after the set number of attempts.
    stalled: bool,
    /// The idempotency key that it was begun with.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_key: Option<String>,
    /// The first transaction of which it is a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
    branches: Vec<Branch>,
    /// What has to happen before it has ended, in words.
    waiting_for: Vec<String>,
    /// Why it was rolled back.
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
    /// What happened, in order; where one transaction was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trail: Vec<TrailEvent>,
}

/// A page of transactions, newest first, without their trails.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Transactions {
    pub(super) transactions: Vec<Transaction>,
    /// For the next page; absent on the last one.
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
    /// It asks when in doubt: its link is a stream, or its registration says so.
    supports_inquiry: bool,
    /// It can undo what it has committed, as its stream or its registration says.
    compensates: bool,
    link: Link,
    /// Why the last call or connection failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// While its link is quarantined: the epoch of this coordinator that it says it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    newer_epoch: Option<u64>,
    /// Transactions that name it and have not ended.
    unfinished: u32,
    /// It is refused new transactions and goes when the unfinished ones have ended.
    draining: bool,
    /// How long its registration is still good; absent where it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_left_ms: Option<u64>,
}

/// The participants that the coordinator knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Participants {
    pub(super) participants: Vec<Participant>,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<dtc::AbortReason> for Reason {
    fn from(wire: dtc::AbortReason) -> Self {
        Self { code: wire.code, message: wire.message, participant: some(wire.participant) }
    }
}

impl From<dtc::BranchStatus> for Branch {
    fn from(wire: dtc::BranchStatus) -> Self {
        let state = wire.state().into();
        let resolution = match wire.resolution() {
            dtc::Resolution::Unspecified => None,
            dtc::Resolution::Commit => Some(Resolution::Commit),
            dtc::Resolution::Rollback => Some(Resolution::Rollback),
        };
        let notification_owed = wire.notification_owed;
        let (branch, participant, attempts) = (wire.branch, wire.participant, wire.attempts);
        let reason = wire.abort_reason.map(Reason::from);
        Self { branch, participant, state, attempts, reason, resolution, notification_owed }
    }
}

impl From<dtc::TrailEvent> for TrailEvent {
    fn from(wire: dtc::TrailEvent) -> Self {
        let kind = wire.kind().as_str_name().trim_start_matches("TRAIL_KIND_").to_lowercase();
        Self {
            at: wire.at.unwrap_or_default().to_string(),
            kind,
            branch: wire.branch,
            participant: some(wire.participant),
            detail: some(wire.detail),
        }
    }
}

impl From<dtc::Transaction> for Transaction {
    fn from(wire: dtc::Transaction) -> Self {
        let (state, phase) = (wire.outcome().into(), Phase::from(wire.state()));
        let branches: Vec<Branch> = wire.branches.into_iter().map(Branch::from).collect();
        Self {
            id: wire.id,
            state,
            phase,
            committed: wire.committed,
            stalled: wire.stalled,
            request_key: some(wire.request_key),
            retry_of: some(wire.retry_of),
            waiting_for: waiting_for(phase, &branches),
            branches,
            reason: wire.abort_reason.map(Reason::from),
            begun_at: wire.begun_at.map(|at| at.to_string()),
            decided_at: wire.decided_at.map(|at| at.to_string()),
            ended_at: wire.ended_at.map(|at| at.to_string()),
            trail: wire.trail.into_iter().map(TrailEvent::from).collect(),
        }
    }
}

/// What has to happen next, in words.
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

impl From<dtc::ParticipantStatus> for Participant {
    fn from(wire: dtc::ParticipantStatus) -> Self {
        let link = wire.link().into();
        let dtc::Participant { name, address, supports_inquiry, compensates } =
            wire.participant.unwrap_or_default();
        let millis = |left: prost_types::Duration| {
            left.seconds.unsigned_abs() * 1000 + u64::from(left.nanos.unsigned_abs() / 1_000_000)
        };
        Self {
            name,
            address,
            supports_inquiry,
            compensates,
            link,
            last_error: some(wire.last_error),
            newer_epoch: wire.newer_epoch,
            unfinished: wire.unfinished,
            draining: wire.draining,
            lease_left_ms: wire.lease_left.map(millis),
        }
    }
}
