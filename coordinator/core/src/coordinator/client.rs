//! Calls of clients about one transaction.

use alloc::vec::Vec;

use dtc_protocol::TransactionId;

use super::{Context, Coordinator};
use crate::{
    Action, AnswerAt, Client, Config, Refused, Reply, Time, Waiter, intervention::MAX_RETRIES,
    transaction::Transaction,
};

impl Coordinator {
    pub(super) fn client(
        &mut self,
        now: Time,
        id: TransactionId,
        token: u64,
        call: Client,
        actions: &mut Vec<Action>,
    ) {
        let no_room = match &call {
            Client::Enlist { branch: Some(branch), .. } => {
                self.no_room_for(core::slice::from_ref(branch))
            }
            _ => None,
        };
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return actions.push(Action::Reply { token, reply: Reply::NotHere });
        };
        let mut context = context!(self, now, actions);
        if transaction.answer_repeat(&call, token, &mut context) {
            return;
        }
        let refused = no_room.map(Reply::Refused);
        if let Some(reply) = refused.or_else(|| refusal(transaction, &call, &self.config)) {
            return actions.push(Action::Reply { token, reply });
        }
        if let Client::Enlist { branch: Some(branch), .. } = &call {
            self.bytes += branch.payload.len();
        }
        if let Some(reply) = perform(transaction, call, token, &mut context) {
            actions.push(Action::Reply { token, reply });
        }
    }
}

/// What stands against a call, as the transaction is.
fn refusal(transaction: &Transaction, call: &Client, config: &Config) -> Option<Reply> {
    let limit = config.max_branches + config.max_locks_per_owner;
    if transaction.no_room_for_answer(call, limit) {
        return Some(Reply::Refused(Refused::TooManyCalls { limit }));
    }
    let (is_active, is_locking) = (transaction.is_active(), transaction.is_locking());
    match call {
        Client::Enlist { branch: None, .. } | Client::Lock { locks: None, .. } => {
            Some(Reply::NoRepeat)
        }
        Client::Enlist { .. } if transaction.branch_count() >= config.max_branches => {
            let limit = config.max_branches;
            Some(Reply::Refused(Refused::TooManyBranches { limit }))
        }
        Client::Enlist { .. } if !is_active => Some(wrong_state("enlist", transaction)),
        Client::Lock { .. } | Client::Prepare { .. } | Client::Commit { .. } if is_locking => {
            Some(Reply::Refused(Refused::WaitsForLocks))
        }
        Client::Lock { .. } if !is_active => Some(wrong_state("acquire", transaction)),
        Client::Prepare { .. } if transaction.is_opening() => {
            Some(wrong_state("prepare", transaction))
        }
        Client::Commit { .. } if transaction.is_opening() => {
            Some(wrong_state("commit", transaction))
        }
        Client::Retry { .. } if transaction.is_retried_out() => {
            Some(Reply::Refused(Refused::TooManyRetries { limit: MAX_RETRIES }))
        }
        _ => None,
    }
}

fn wrong_state(call: &'static str, transaction: &Transaction) -> Reply {
    Reply::Refused(Refused::WrongState { state: transaction.shown_state(), call })
}

/// Does what nothing stands against; the reply, where that does not wait.
fn perform(
    transaction: &mut Transaction,
    call: Client,
    token: u64,
    context: &mut Context<'_>,
) -> Option<Reply> {
    let (at, until) = match call {
        Client::Get => return Some(Reply::Transaction(transaction.view(true).into())),
        Client::Enlist { branch, key } => {
            transaction.enlist(branch?, key, token, context);
            return None;
        }
        Client::GiveUpLocking => {
            transaction.give_up_call(token, context);
            return None;
        }
        Client::Lock { locks, key, until } => {
            transaction.lock(&locks?, key, token, until, context);
            return None;
        }
        Client::Prepare { until } => {
            transaction.prepare(context);
            (AnswerAt::Prepared, until)
        }
        Client::Commit { at, until } => {
            transaction.commit(context);
            (at, until)
        }
        Client::Rollback { at, until } => {
            if transaction.can_roll_back() {
                transaction.roll_back(context);
            } else if !transaction.is_aborting() {
                return Some(wrong_state("rollback", transaction));
            }
            (at, until)
        }
        Client::Resolve { intervention, until } => {
            if !transaction.resolve(intervention, context) {
                return Some(wrong_state("resolve", transaction));
            }
            (AnswerAt::Completion, until)
        }
        Client::Abandon { intervention, until } => {
            if !transaction.abandon(intervention, context) {
                return Some(wrong_state("abandon", transaction));
            }
            (AnswerAt::Completion, until)
        }
        Client::Retry { intervention } => {
            return Some(match transaction.retry_now(intervention, context) {
                true => Reply::Transaction(transaction.view(true).into()),
                false => wrong_state("retry", transaction),
            });
        }
    };
    transaction.wait(Waiter { token, at, until }, context);
    None
}
