//! What the machine knows of each participant.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use dtc_protocol::{JournalId, TransactionId};

use crate::{ParticipantId, endings::Elsewhere};

#[derive(Debug, Clone, Default)]
pub(crate) struct Participant {
    pub(crate) connected: bool,
    /// Why it is not, where that is known.
    pub(crate) away: Option<Arc<str>>,
    /// Transactions that wait for its link, with nothing sent to anybody.
    pub(crate) awaited: BTreeSet<TransactionId>,
    /// Asks when in doubt; as it was on its last link.
    pub(crate) supports_inquiry: bool,
    /// Can undo what it has committed; none before its first link.
    pub(crate) compensates: Option<bool>,
    /// Its journal, as its last link reported; none where it didn't, or before the first.
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
pub(crate) struct Participants {
    known: BTreeMap<ParticipantId, Participant>,
    /// What is, or may be, at other journals than the present ones of the names.
    pub(crate) elsewhere: Elsewhere,
}

impl Participants {
    pub(crate) fn get(&mut self, id: ParticipantId) -> &mut Participant {
        self.known.entry(id).or_default()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (ParticipantId, &Participant)> {
        self.known.iter().map(|(id, participant)| (*id, participant))
    }

    pub(crate) fn take_freed(&mut self) -> Vec<(ParticipantId, usize)> {
        let freed = self.known.iter_mut().filter(|(_, participant)| participant.freed > 0);
        freed.map(|(id, participant)| (*id, core::mem::take(&mut participant.freed))).collect()
    }

    pub(crate) fn forget(&mut self, id: ParticipantId) {
        if self.known.get(&id).is_some_and(|known| known.unfinished.is_empty()) {
            self.known.remove(&id);
        }
    }

    pub(crate) fn unfinished(&self, id: ParticipantId) -> usize {
        self.known.get(&id).map_or(0, |participant| participant.unfinished.len())
    }
}
