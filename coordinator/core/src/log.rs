//! Records on their way to the journal.
//!
//! Invariant: what follows from a record, follows in the order in which they were asked
//! for, once it is reported durable.

use alloc::collections::VecDeque;

use dtc_protocol::TransactionId;

use crate::Sequence;

/// What a record means to its transaction once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordPurpose {
    /// Interactive: the client may have the id.
    Opened,
    /// Prepare may be sent.
    Logged,
    /// It is committed.
    Committed,
    /// Its abort is visible to its client.
    Aborted,
    /// The decision is compensated.
    CompensationDecided,
    /// Branches are resolved by an operator.
    Resolved,
    /// Nothing: it is kept to be shown.
    Noted,
    /// It has ended for its clients; a participant is still to be notified.
    Closed,
    /// Participants are not to be notified any more.
    Abandoned,
    /// It may be forgotten.
    Ended,
}

/// Records that were asked for and are not reported durable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    last: Sequence,
    pending: VecDeque<(Sequence, TransactionId, RecordPurpose)>,
}

impl Log {
    /// The place of a record from which nothing follows for a transaction.
    pub(crate) fn next(&mut self) -> Sequence {
        self.last += 1;
        self.last
    }

    /// The place of a transaction's record.
    pub(crate) fn expect(&mut self, id: TransactionId, purpose: RecordPurpose) -> Sequence {
        let sequence = self.next();
        self.pending.push_back((sequence, id, purpose));
        sequence
    }

    /// The oldest record that is durable now.
    pub(crate) fn take_durable(
        &mut self,
        up_to: Sequence,
    ) -> Option<(TransactionId, RecordPurpose)> {
        let &(_, id, purpose) = self.pending.front().filter(|(sequence, ..)| *sequence <= up_to)?;
        self.pending.pop_front();
        Some((id, purpose))
    }

    /// All that are not durable, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (TransactionId, RecordPurpose)> {
        self.pending.iter().map(|(_, id, purpose)| (*id, *purpose))
    }
}
