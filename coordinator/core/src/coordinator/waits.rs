//! Calls that are answered before what they wait for is there.

use alloc::vec::Vec;

use dtc_protocol::TransactionId;

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
        let Some(waiting) = self.keys.unpark(id) else { return };
        self.keys.answered(&waiting.key, id, None);
        for pending in waiting.into_requests() {
            let (token, why) = (pending.begin.waiter.token, why.into());
            actions
                .push(Action::Reply { token, reply: Reply::Refused(Refused::KeyUnreadable(why)) });
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{sync::Arc, vec};

    use super::*;
    use crate::{AnswerAt, Begin, Config, Event, NewBranch, ParticipantId, Waiter};

    #[test]
    fn what_was_aborted_waits_for_no_link() {
        let away = ParticipantId(1);
        let (mut coordinator, _) = Coordinator::recover(Config::default(), 1, [], [], Time(1));
        let id = TransactionId::from_bytes([1; 16]);
        let branch = NewBranch { participant: away, payload: Arc::from([]), one_phase: false };
        let begin = Begin {
            id,
            age: id,
            key: None,
            options: Default::default(),
            branches: vec![branch],
            locks: vec![],
            admitted: true,
            interactive: false,
            id_may_be_known: false,
            trace: None,
            waiter: Waiter { token: 1, at: AnswerAt::Decision, until: Time(1) },
        };
        coordinator.handle(Time(1), Event::Begin(begin.into()), &mut vec![]);
        assert!(coordinator.participants.get(away).awaited.contains(&id));
        while !coordinator.is_empty() {
            let now = coordinator.next_timeout().unwrap_or(Time(1));
            coordinator.handle(now, Event::Tick, &mut vec![]);
            coordinator.handle(now, Event::Durable { up_to: u64::MAX }, &mut vec![]);
        }
        assert!(coordinator.participants.get(away).awaited.is_empty());
    }
}
