//! What there is to see of the environment.

use dtc_core::{Message, ParticipantId, TrailEvent, TrailKind};
use dtc_protocol::{TransactionId, branch::Branch};

use super::Environment;

impl Environment {
    pub(crate) fn branch_at(&self, at: ParticipantId, id: TransactionId) -> Option<Branch> {
        let of = |(key, _): &(&(TransactionId, u32), &Branch)| key.0 == id;
        self.participants[&at].branches.iter().find(of).map(|(_, branch)| *branch)
    }

    pub(crate) fn is_committed_at(&self, at: ParticipantId, id: TransactionId) -> bool {
        matches!(self.branch_at(at, id), Some(Branch::Committed { .. }))
    }

    pub(crate) fn is_rolled_back_at(&self, at: ParticipantId, id: TransactionId) -> bool {
        matches!(self.branch_at(at, id), Some(Branch::RolledBack { .. }))
    }

    /// The participants that a message is on its way to, with what it is.
    pub(crate) fn on_the_way(&self) -> Vec<(ParticipantId, &'static str)> {
        let kind = |message: &Message| match message {
            Message::Prepare { one_phase: true, .. } => "one phase",
            Message::Prepare { .. } => "prepare",
            Message::Commit { .. } => "commit",
            Message::Rollback { compensate: true, .. } => "compensate",
            Message::Rollback { .. } => "rollback",
        };
        self.flights.iter().map(|flight| (flight.to, kind(&flight.message))).collect()
    }

    pub(crate) fn count(&self, id: TransactionId, kind: TrailKind) -> usize {
        let of = |(of, event): &&(TransactionId, TrailEvent)| *of == id && event.kind == kind;
        self.happened.iter().filter(of).count()
    }
}
