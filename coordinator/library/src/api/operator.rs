//! What is done by an operator.

use std::time::Duration;

use dtc_core::{Intervention, InterventionAction, Reply, Time};
use dtc_protocol::TransactionId;

use super::{Coordinator, Error, Transaction, limits};
use crate::driver::{Call, OperatorCall};

const WAIT: Duration = Duration::from_secs(10);
const MAX_REASON: usize = 1000;
const MAX_CALLER: usize = 200;

/// Who does something, and why; kept with the transaction.
#[derive(Debug, Clone)]
pub struct Operator {
    /// 1 to 1000 characters.
    pub reason: String,
    /// 1 to 200 characters.
    pub caller: String,
    /// Where the call came from.
    pub peer: String,
}

impl Operator {
    /// The call on record.
    fn call(&self, action: InterventionAction, branch: Option<u32>) -> Result<OperatorCall, Error> {
        bounded("reason", &self.reason, MAX_REASON, "the reason")?;
        bounded("caller", &self.caller, MAX_CALLER, "your name")?;
        let (reason, caller) = (self.reason.clone(), format!("{} ({})", self.caller, self.peer));
        Ok(OperatorCall { action, branch, reason, caller })
    }
}

fn bounded(field: &str, text: &str, most: usize, what: &str) -> Result<(), Error> {
    let length = text.chars().count();
    match (1..=most).contains(&length) && !text.trim().is_empty() {
        true => Ok(()),
        false => {
            let problem = format!("has {length} characters; give {what}, in 1 to {most}");
            Err(Error::invalid(field, problem))
        }
    }
}

impl Coordinator {
    /// Decides what a coordinator or its participants cannot: a heuristic decision about a
    /// branch, or all that are owed something.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] where nothing is owed.
    pub async fn resolve(
        &self,
        id: TransactionId,
        branch: Option<u32>,
        commit: bool,
        operator: &Operator,
        wait: Option<Duration>,
    ) -> Result<Transaction, Error> {
        let wait = limits::within("wait", wait, Duration::ZERO)?.unwrap_or(WAIT);
        let action = match commit {
            true => InterventionAction::Commit,
            false => InterventionAction::Rollback,
        };
        let call = operator.call(action, branch)?;
        let OperatorCall { reason, caller, .. } = &call;
        tracing::warn!(transaction = %id, branch, ?action, reason, caller,
            "to be resolved by an operator");
        let reply = self.handle.call(id, Call::Resolve(call.clone()), wait).await?;
        let done = self.by_operator(id, reply, "resolve").await;
        self.unless_on_record(id, &call, done).await
    }

    /// Sends what is owed now, whatever wait was planned.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] where nothing is owed.
    pub async fn retry(
        &self,
        id: TransactionId,
        operator: &Operator,
    ) -> Result<Transaction, Error> {
        let call = operator.call(InterventionAction::Retry, None)?;
        let OperatorCall { reason, caller, .. } = &call;
        tracing::info!(transaction = %id, reason, caller, "to be retried by an operator");
        let reply = self.handle.call(id, Call::Retry(call.clone()), WAIT).await?;
        let done = self.by_operator(id, reply, "retry").await;
        self.unless_on_record(id, &call, done).await
    }

    /// Notifies a participant no more of what an operator resolved: it never will be back.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] where no notification is owed.
    pub async fn abandon(
        &self,
        id: TransactionId,
        branch: Option<u32>,
        operator: &Operator,
    ) -> Result<Transaction, Error> {
        let call = operator.call(InterventionAction::Abandon, branch)?;
        let OperatorCall { reason, caller, .. } = &call;
        tracing::warn!(transaction = %id, branch, reason, caller,
            "to be abandoned by an operator: the participant is not notified any more");
        let reply = self.handle.call(id, Call::Abandon(call), WAIT).await?;
        self.by_operator(id, reply, "abandon").await
    }

    /// Gives a finished transaction that is kept for operators back to retention.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] where it is not kept, or not yet to be forgotten.
    pub async fn forget(
        &self,
        id: TransactionId,
        operator: &Operator,
    ) -> Result<Transaction, Error> {
        let call = operator.call(InterventionAction::Forget, None)?;
        let now = Time::default() + self.handle.journal.now();
        let OperatorCall { action, branch, reason, caller } = call.clone();
        let (reason, caller) = (reason.into(), caller.into());
        let done = Intervention { at: now, action, branch, reason, caller };
        let released = self.handle.journal.release(id, done).await?;
        let transaction = self.get(id).await?;
        if released {
            let OperatorCall { reason, caller, .. } = &call;
            tracing::warn!(transaction = %id, reason, caller,
                "forgotten by an operator; subject to retention again");
            return Ok(transaction);
        }
        let instead = match transaction.ended_at {
            _ if transaction.owes_notifications() => {
                "a participant is not notified of its resolution yet; wait until it is back, or \
                 call Abandon if it never will be"
            }
            Some(_) => "it is subject to retention already",
            None => "it has not ended; resolve it, or wait for its end",
        };
        let refused = Error::WrongState { call: "forget", state: transaction.state, instead };
        self.unless_on_record(id, &call, Err(refused)).await
    }

    /// The transaction in memory that a reply shows; what is not there has ended, or
    /// was never.
    async fn by_operator(
        &self,
        id: TransactionId,
        reply: Reply,
        call: &'static str,
    ) -> Result<Transaction, Error> {
        let ended = matches!(reply, Reply::NotHere);
        let transaction = self.shown(Some(id), reply).await?;
        match ended {
            true => Err(Error::WrongState {
                call,
                state: transaction.state,
                instead: "every branch has acknowledged, and no notification is owed",
            }),
            false => Ok(transaction),
        }
    }

    /// What is refused now, and was done by the same caller for the same reason, is the
    /// repeat of a call whose answer was lost: it is answered with the transaction.
    async fn unless_on_record(
        &self,
        id: TransactionId,
        call: &OperatorCall,
        answer: Result<Transaction, Error>,
    ) -> Result<Transaction, Error> {
        let Err(error @ Error::WrongState { .. }) = answer else {
            return answer;
        };
        let transaction = self.get(id).await?;
        let is_it = |it: &Intervention| {
            (it.action, it.branch, &*it.reason) == (call.action, call.branch, &*call.reason)
                && without_peer(&it.caller) == without_peer(&call.caller)
        };
        match transaction.interventions.iter().any(is_it) {
            true => Ok(transaction),
            false => Err(error),
        }
    }
}

/// A caller without where the call came from, which a repeat may not share.
fn without_peer(caller: &str) -> &str {
    caller.rsplit_once(" (").map_or(caller, |(caller, _)| caller)
}
