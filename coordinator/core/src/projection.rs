//! The machine as a checker compares it: everything that the protocol's next
//! steps depend on, without what only people or clocks care for.
//!
//! Left out are times, sequence numbers, reasons, the trail, payloads and
//! outputs; attempts are counted no further than anything asks. The checker has
//! to see to it that every timeout may come at every moment, because two states
//! that differ only in when something is due are one here.

use alloc::vec::Vec;

use dtc_protocol::{JournalId, TransactionId};

use crate::{AnswerAt, BranchState, CommitPolicy, ParticipantId, Phase, RecordPurpose};

/// See [`Coordinator::projection`](crate::Coordinator::projection).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Projection {
    /// In the order of their ids.
    pub transactions: Vec<TransactionProjection>,
    /// Runs that wait for their key to be looked up, and how many clients join each.
    pub lookups: Vec<(TransactionId, usize)>,
    /// Runs that hold a request key.
    pub keyed: Vec<TransactionId>,
    /// Every participant that was heard of.
    pub participants: Vec<ParticipantProjection>,
    /// Records that are not reported durable, oldest first.
    pub pending: Vec<(TransactionId, RecordPurpose)>,
}

/// A participant, as the coordinator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParticipantProjection {
    /// The participant's number.
    pub id: ParticipantId,
    /// Whether messages can be handed over.
    pub connected: bool,
    /// Whether it asks when in doubt.
    pub supports_inquiry: bool,
    /// Whether it can undo what it has committed, where that is known.
    pub compensates: Option<bool>,
    /// Its journal, as its last link told.
    pub journal: Option<JournalId>,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransactionProjection {
    /// Its id.
    pub id: TransactionId,
    /// Where it is.
    pub phase: Phase,
    /// Its branches, by number.
    pub branches: Vec<BranchProjection>,
    /// What each waiting call waits for, in order.
    pub waiters: Vec<AnswerAt>,
    /// Whether it has a request key.
    pub keyed: bool,
    /// Driven by its client.
    pub interactive: bool,
    /// Calls with a key that were answered, and would be so again.
    pub answered: usize,
    /// The decision, once there is one.
    pub commit: bool,
    /// Its number.
    pub number: u32,
    /// One phase was asked of the only branch.
    pub one_phase: bool,
    /// Votes lead to the decision.
    pub commit_requested: bool,
    /// Its abort may be told.
    pub outcome_visible: bool,
    /// Whether prepare's deadline or the client's idle limit is set.
    pub deadline: bool,
    /// Read from the journal at start.
    pub recovered: bool,
    /// Branches that are to be resolved by an operator once that is durable, and how.
    pub resolving: Vec<(usize, bool)>,
    /// Branches whose participants are not to be notified, once that is durable.
    pub abandoning: Vec<usize>,
    /// Its end is durable, or its end for its clients.
    pub is_final: bool,
    /// Somebody intervened: it is kept until that is forgotten.
    pub intervened: bool,
    /// What becomes of a commit that keeps failing.
    pub commit_policy: CommitPolicy,
}

/// A branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BranchProjection {
    /// Where it is.
    pub participant: ParticipantId,
    /// How far it is.
    pub state: BranchState,
    /// The journal that voted.
    pub journal: Option<JournalId>,
    /// Whether its participant asks.
    pub supports_inquiry: bool,
    /// What was decided of it by an operator.
    pub resolved: Option<bool>,
    /// Its participant is still to be notified of that.
    pub notify: bool,
    /// Undecided: whether a prepare may have reached it.
    pub sent: bool,
    /// Attempts, where and as far as anything asks for them.
    pub attempts: u32,
    /// Where it is between two attempts.
    pub pace: Pace,
}

/// Between two attempts of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pace {
    /// Nothing is owed.
    Still,
    /// Sent, or to be sent again; attempts are without limit, so that it makes no
    /// difference: whatever comes in between, the next thing is another attempt.
    Owed,
    /// Sent; the attempt may fail.
    Running,
    /// To be sent again.
    Waiting,
}
