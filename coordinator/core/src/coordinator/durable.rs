//! What follows when records are durable.

use dtc_protocol::TransactionId;

use super::{Context, Coordinator};
use crate::{Action, RecordPurpose, Sequence, Time};
use alloc::vec::Vec;

impl Coordinator {
    pub(super) fn durable(&mut self, now: Time, up_to: Sequence, actions: &mut Vec<Action>) {
        self.sessions.durable(up_to, &mut context!(self, now, actions));
        while let Some((id, purpose)) = self.log.take_durable(up_to) {
            let Some(transaction) = self.transactions.get_mut(&id) else {
                continue;
            };
            let was_counted = transaction.is_counted();
            let ended = transaction.durable(purpose, &mut context!(self, now, actions));
            if was_counted && !transaction.is_counted() {
                self.begun -= 1;
                self.bytes -= transaction.bytes();
            }
            self.notifying += usize::from(purpose == RecordPurpose::Closed);
            if ended {
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: TransactionId) {
        let Some(transaction) = self.transactions.remove(&id) else {
            return;
        };
        if let Some((key, _)) = transaction.key() {
            self.keys.release(key, id);
        }
        self.interactive.remove(&id);
        self.participants.elsewhere.forget(id);
        self.notifying -= usize::from(transaction.is_closed());
        for participant in transaction.participants() {
            let known = self.participants.get(participant);
            if known.unfinished.remove(&id) && transaction.is_counted() {
                known.begun -= 1;
            }
        }
        self.outputs -= transaction.output_bytes();
        if transaction.is_counted() {
            self.begun -= 1;
            self.bytes -= transaction.bytes();
        }
        let all = &self.transactions;
        let is_live = |at, id: &_| all.get(id).is_some_and(|it| it.is_timed_at(at));
        self.timers.prune(all.len(), is_live);
    }
}
