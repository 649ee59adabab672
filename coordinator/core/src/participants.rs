//! What the machine knows of each participant.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use common::{JournalId, TransactionId};

use crate::ParticipantId;

/// How many transactions may be named as exceptions to 'ended before'.
const MAX_EXCEPTIONS: usize = 64;

#[derive(Debug, Clone, Default)]
pub(crate) struct Participant {
    pub(crate) connected: bool,
    /// Asks when in doubt; as it was on its last link.
    pub(crate) asks: bool,
    /// Can undo what it has committed; none before its first link.
    pub(crate) compensates: Option<bool>,
    /// Its journal, as its last link told.
    pub(crate) journal: Option<JournalId>,
    /// Transactions with a branch here that are in memory.
    pub(crate) unfinished: BTreeSet<TransactionId>,
    /// Of these, the ones that were begun in this run.
    pub(crate) begun: usize,
    /// What is still to be sent again since it is back: the first and the last.
    pub(crate) resume: Option<(TransactionId, TransactionId)>,
    /// Attempts that ended with no answer, so that others of these may be sent.
    pub(crate) freed: usize,
}

impl Participant {
    /// Whether what is owed for a transaction is sent when its turn comes.
    pub(crate) fn awaits_turn(&self, id: TransactionId) -> bool {
        self.resume.is_some_and(|(first, last)| (first..=last).contains(&id))
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Participants(BTreeMap<ParticipantId, Participant>);

impl Participants {
    pub(crate) fn get(&mut self, id: ParticipantId) -> &mut Participant {
        self.0.entry(id).or_default()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (ParticipantId, &Participant)> {
        self.0.iter().map(|(id, participant)| (*id, participant))
    }

    pub(crate) fn take_freed(&mut self) -> Vec<(ParticipantId, usize)> {
        let freed = self.0.iter_mut().filter(|(_, participant)| participant.freed > 0);
        freed.map(|(id, participant)| (*id, core::mem::take(&mut participant.freed))).collect()
    }

    pub(crate) fn unfinished(&self, id: ParticipantId) -> usize {
        self.0.get(&id).map_or(0, |participant| participant.unfinished.len())
    }

    /// Up to where a participant may forget: all transactions before the first
    /// id have ended, except the ones in the list. `old` is an id; younger
    /// transactions are never named as exceptions. `next` is greater than all ids.
    pub(crate) fn ended_before(
        &self,
        id: ParticipantId,
        old: TransactionId,
        next: TransactionId,
    ) -> (TransactionId, Vec<TransactionId>) {
        let mut exceptions = Vec::new();
        for &unfinished in self.0.get(&id).into_iter().flat_map(|known| &known.unfinished) {
            if unfinished >= old || exceptions.len() == MAX_EXCEPTIONS {
                return (unfinished, exceptions);
            }
            exceptions.push(unfinished);
        }
        (next, exceptions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> TransactionId {
        TransactionId::from_bytes([number; 16])
    }

    #[test]
    fn a_stalled_transaction_does_not_hold_back_the_forgetting_of_younger_ones() {
        let mut participants = Participants::default();
        let here = ParticipantId(1);
        participants.get(here).unfinished.extend([id(1), id(5), id(6)]);
        assert_eq!(participants.ended_before(here, id(4), id(9)), (id(5), Vec::from([id(1)])));
        assert_eq!(participants.ended_before(here, id(0), id(9)), (id(1), Vec::new()));
        assert_eq!(participants.ended_before(ParticipantId(2), id(4), id(9)), (id(9), Vec::new()));
    }
}
