//! The whole machine as a checker compares it.

use dtc_protocol::TransactionId;

use super::Coordinator;
use crate::projection::{ParticipantProjection, Projection};

impl Coordinator {
    /// The newest attempt at a branch, as [`Event::Unreachable`](crate::Event::Unreachable)
    /// names it; for checkers.
    pub fn newest_attempt(&self, id: TransactionId, branch: u32) -> Option<u32> {
        self.transactions.get(&id)?.newest_attempt(branch)
    }

    /// What the protocol's next steps depend on, for checkers: two machines with
    /// equal projections differ in times and in what is shown only.
    pub fn projection(&self) -> Projection {
        let transactions = self.transactions.values();
        let participants = self.participants.all().map(|(id, known)| ParticipantProjection {
            id,
            connected: known.connected,
            supports_inquiry: known.supports_inquiry,
            compensates: known.compensates,
            journal: known.journal,
        });
        Projection {
            transactions: transactions.map(|it| it.projection(&self.config)).collect(),
            lookups: self.keys.all_pending().collect(),
            keyed: self.keys.users().collect(),
            participants: participants.collect(),
            pending: self.log.pending().collect(),
        }
    }
}
