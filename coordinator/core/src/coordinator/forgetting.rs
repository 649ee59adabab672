//! What is unfinished, and at which journals, so that they can forget the rest.

use dtc_protocol::{JournalId, TransactionId};

use super::Coordinator;
use crate::{Endings, ParticipantId, transaction::Transaction};

impl Coordinator {
    /// What every participant may forget now. Transactions from `old` on are never named
    /// as exceptions; `next` is greater than all ids given out.
    pub fn endings(&self, old: TransactionId, next: TransactionId) -> Endings {
        let mut endings = Endings::new(old, next);
        // What gets its branches later, or waits for the look-up of its key.
        self.keys.all_begins().for_each(|id| endings.add_anywhere(id));
        let open = self.interactive.iter().filter_map(|id| self.transactions.get(id));
        let open = open.filter(|it| it.is_opening() || it.is_active());
        open.for_each(|transaction| endings.add_anywhere(transaction.id()));

        for (participant, known) in self.participants.all() {
            match known.journal {
                Some(journal) if known.connected => {
                    endings.linked(participant, journal);
                    endings.add_all_at(journal, &known.unfinished);
                }
                // Where it is now, and what it is sent next, is not known.
                _ => {
                    let unfinished = known.unfinished.iter();
                    let all = unfinished.filter_map(|id| self.transactions.get(id));
                    for transaction in all {
                        transaction.journals_of(participant, |journal| match journal {
                            Some(journal) => endings.add_at(journal, transaction.id()),
                            None => endings.add_anywhere(transaction.id()),
                        });
                    }
                }
            }
        }
        self.participants.elsewhere.add_to(&mut endings);
        endings
    }

    /// What is known of a participant goes, unless transactions name it.
    pub fn forget_participant(&mut self, participant: ParticipantId) {
        self.participants.forget(participant);
    }

    /// A participant is linked, and reported its journal, or did not. What it has unfinished
    /// under this name may be where it was before.
    pub(super) fn note_journal(&mut self, participant: ParticipantId, now: Option<JournalId>) {
        let known = self.participants.get(participant);
        let before = core::mem::replace(&mut known.journal, now);
        if known.compensates.is_none() || before == now && now.is_some() {
            return;
        }
        let unfinished = known.unfinished.clone();
        for transaction in unfinished.iter().filter_map(|id| self.transactions.get(id)) {
            let elsewhere = &mut self.participants.elsewhere;
            if before.is_some() {
                elsewhere.add(before, transaction.id());
            }
            transaction.journals_of(participant, |voted| match voted {
                Some(_) => elsewhere.add(voted, transaction.id()),
                None if before.is_none() => elsewhere.add(None, transaction.id()),
                None => {}
            });
        }
    }
}

impl Transaction {
    /// The journals that voted for its branches at a participant; none for a branch of
    /// which that isn't known.
    fn journals_of(&self, at: ParticipantId, mut each: impl FnMut(Option<JournalId>)) {
        for (participant, journal) in self.journals() {
            if participant == at {
                each(journal);
            }
        }
    }
}
