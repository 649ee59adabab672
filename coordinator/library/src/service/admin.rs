//! `dtc.v1.AdminService`: what is done by an operator.

use std::time::Duration;

use dtc_core::{InterventionAction, Reply};
use dtc_proto::{
    dtc::{
        self, AbandonRequest, AbandonResponse, ForgetRequest, ForgetResponse, Resolution,
        ResolveRequest, ResolveResponse, RetryRequest, RetryResponse,
    },
    journal,
};

use super::{Services, list::owes_notifications, request};
use crate::{
    convert,
    driver::{Call, OperatorCall},
    error::Error,
};

const WAIT: Duration = Duration::from_secs(10);
const MAX_REASON: usize = 1000;
const MAX_CALLER: usize = 200;

impl Services {
    pub async fn resolve(
        &self,
        request: ResolveRequest,
        peer: &str,
    ) -> Result<ResolveResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let action = match request.resolution() {
            Resolution::Commit => InterventionAction::Commit,
            Resolution::Rollback => InterventionAction::Rollback,
            Resolution::Unspecified => {
                let problem = "is missing; RESOLUTION_COMMIT or RESOLUTION_ROLLBACK";
                return Err(Error::invalid("resolution", problem));
            }
        };
        let wait = request::duration("wait", request.wait.as_ref())?.unwrap_or(WAIT);
        let (reason, caller) = signed(request.reason, &request.caller, peer)?;
        tracing::warn!(transaction = %id, branch = request.branch, ?action, reason, caller,
            "to be resolved by an operator");
        let by_operator = OperatorCall { action, branch: request.branch, reason, caller };
        let reply = self.handle.call(id, Call::Resolve(by_operator.clone()), wait).await?;
        let done = self.by_operator(id, reply, "resolve").await;
        let transaction = self.unless_on_record(id, &by_operator, done).await?;
        Ok(ResolveResponse { transaction: Some(transaction) })
    }

    pub async fn retry(&self, request: RetryRequest, peer: &str) -> Result<RetryResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let (reason, caller) = signed(request.reason, &request.caller, peer)?;
        tracing::info!(transaction = %id, reason, caller, "retried by an operator");
        let by_operator =
            OperatorCall { action: InterventionAction::Retry, branch: None, reason, caller };
        let reply = self.handle.call(id, Call::Retry(by_operator.clone()), WAIT).await?;
        let done = self.by_operator(id, reply, "retry").await;
        let transaction = self.unless_on_record(id, &by_operator, done).await?;
        Ok(RetryResponse { transaction: Some(transaction) })
    }

    pub async fn abandon(
        &self,
        request: AbandonRequest,
        peer: &str,
    ) -> Result<AbandonResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let (reason, caller) = signed(request.reason, &request.caller, peer)?;
        tracing::warn!(transaction = %id, branch = request.branch, reason, caller,
            "the participant is not to be notified any more");
        let (action, branch) = (InterventionAction::Abandon, request.branch);
        let by_operator = OperatorCall { action, branch, reason, caller };
        let reply = self.handle.call(id, Call::Abandon(by_operator), WAIT).await?;
        let transaction = self.by_operator(id, reply, "abandon").await?;
        Ok(AbandonResponse { transaction: Some(transaction) })
    }

    /// The transaction in memory that a reply shows; what is not there has ended, or
    /// was never.
    async fn by_operator(
        &self,
        id: dtc_protocol::TransactionId,
        reply: Reply,
        call: &str,
    ) -> Result<dtc::Transaction, Error> {
        let ended = matches!(reply, Reply::NotHere);
        let transaction = self.transaction(Some(id), reply).await?;
        match ended {
            true => Err(Error::WrongState {
                call: call.into(),
                state: request::words(transaction.state()),
                instead: "nothing is owed to anybody",
            }),
            false => Ok(transaction),
        }
    }

    /// What is refused now, and was done by the same caller for the same reason, is the
    /// repeat of a call whose answer was lost: it is answered with the transaction.
    async fn unless_on_record(
        &self,
        id: dtc_protocol::TransactionId,
        call: &OperatorCall,
        answer: Result<dtc::Transaction, Error>,
    ) -> Result<dtc::Transaction, Error> {
        let Err(error @ Error::WrongState { .. }) = answer else {
            return answer;
        };
        let transaction = self.look(id).await?;
        let action = convert::intervention_action(call.action);
        let is_it = |it: &dtc::Intervention| {
            (it.action(), it.branch, &it.reason) == (action, call.branch, &call.reason)
                && who(&it.caller) == who(&call.caller)
        };
        match transaction.interventions.iter().any(is_it) {
            true => Ok(transaction),
            false => Err(error),
        }
    }

    pub async fn forget(
        &self,
        request: ForgetRequest,
        peer: &str,
    ) -> Result<ForgetResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let (reason, caller) = signed(request.reason, &request.caller, peer)?;
        let at = self.handle.journal.now();
        let done = journal::Intervention {
            at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            action: convert::intervention_action(InterventionAction::Forget).into(),
            branch: 0,
            reason: reason.clone(),
            caller: caller.clone(),
        };
        let released = self.handle.journal.release(id, done).await?;
        let transaction = self.look(id).await?;
        if !released {
            let instead = match transaction.ended_at {
                _ if owes_notifications(&transaction) => {
                    "a participant is still to be notified of what was resolved; wait until it is \
                     back, or say with Abandon that it never will be"
                }
                Some(_) => "it is not kept, retention takes it in its time",
                None => "it has not ended; resolve it, or wait",
            };
            let state = request::words(transaction.state());
            let refused = Err(Error::WrongState { call: "forget".into(), state, instead });
            let action = InterventionAction::Forget;
            let by_operator = OperatorCall { action, branch: None, reason, caller };
            let transaction = self.unless_on_record(id, &by_operator, refused).await?;
            return Ok(ForgetResponse { transaction: Some(transaction) });
        }
        tracing::warn!(transaction = %id, reason, caller, "given back to retention");
        Ok(ForgetResponse { transaction: Some(transaction) })
    }
}

/// Why, and by whom.
fn signed(reason: String, caller: &str, peer: &str) -> Result<(String, String), Error> {
    let bounded = |field: &str, text: &str, most: usize, what: &str| {
        let length = text.chars().count();
        match (1..=most).contains(&length) && !text.trim().is_empty() {
            true => Ok(()),
            false => {
                let problem = format!("has {length} characters; say {what}, in 1 to {most}");
                Err(Error::invalid(field, problem))
            }
        }
    };
    bounded("reason", &reason, MAX_REASON, "why")?;
    bounded("caller", caller, MAX_CALLER, "who you are")?;
    Ok((reason, format!("{caller} ({peer})")))
}

/// A caller without where the call came from, which a repeat may not share.
fn who(caller: &str) -> &str {
    caller.rsplit_once(" (").map_or(caller, |(who, _)| who)
}
