//! Calls that are answered before what they wait for is there.

use alloc::vec::Vec;

use common::TransactionId;

use super::{Context, Coordinator};
use crate::{Action, Refused, Reply, Time};

impl Coordinator {
    /// Answers all calls that wait for a transaction with its state as it is.
    pub fn end_waits(&mut self, now: Time, actions: &mut Vec<Action>) {
        for transaction in self.transactions.values_mut() {
            transaction.end_waits(&mut context!(self, now, actions));
        }
    }

    /// Refuses all that name the key; others go on.
    pub(super) fn key_unreadable(
        &mut self,
        id: TransactionId,
        why: &str,
        actions: &mut Vec<Action>,
    ) {
        for parked in self.keys.unpark(id) {
            let (token, why) = (parked.begin.waiter.token, why.into());
            actions
                .push(Action::Reply { token, reply: Reply::Refused(Refused::KeyUnreadable(why)) });
        }
    }
}
