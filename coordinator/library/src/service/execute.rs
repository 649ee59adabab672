//! A whole transaction in one request.

use std::time::Duration;

use dtc_core::{AnswerAt, Opaque};
use dtc_proto::dtc::{ExecuteRequest, ExecuteResponse, Transaction};

use super::{Services, repeat::unless_repeated, request};
use crate::{
    driver::{NewTransaction, NewWork},
    error::Error,
};

/// That a client may get the id before the outcome.
struct Announced {
    /// The client's trace.
    trace: Option<Opaque>,
}

impl Services {
    pub(super) async fn execute(&self, request: ExecuteRequest) -> Result<ExecuteResponse, Error> {
        let wait = request::wait(request.wait.as_ref())?;
        let answer_at = request::answer_at(request.answer_at)?;
        let transaction = self.run(&request, answer_at, wait, None).await?;
        let committed = transaction.committed;
        Ok(ExecuteResponse { transaction: Some(transaction), committed })
    }

    /// The same for a client that may get the transaction's id before the outcome.
    pub async fn run_announced(
        &self,
        request: &ExecuteRequest,
        answer_at: AnswerAt,
        wait: Option<Duration>,
        trace: Option<Opaque>,
    ) -> Result<Transaction, Error> {
        let id_may_be_known = Some(Announced { trace });
        self.run(request, answer_at, wait.unwrap_or(request::WAIT), id_may_be_known).await
    }

    async fn run(
        &self,
        request: &ExecuteRequest,
        answer_at: AnswerAt,
        wait: Duration,
        id_may_be_known: Option<Announced>,
    ) -> Result<Transaction, Error> {
        let key = request::request_key(&request.request_key)?;
        let key = key.map(|key| (key, request::fingerprint(request)));
        let judged = self.judge(request);
        let reply = unless_repeated(key.is_some(), judged, |work| {
            let new = NewTransaction {
                key,
                work,
                interactive: false,
                id_may_be_known: id_may_be_known.is_some(),
                trace: id_may_be_known.and_then(|id_may_be_known| id_may_be_known.trace),
                answer_at,
            };
            self.handle.begin(new, wait)
        });
        let reply = reply.await?;
        let mut transaction = self.transaction(None, reply).await?;
        transaction.trail.clear();
        Ok(transaction)
    }

    /// What is to be done, or what stands against it as new work.
    fn judge(&self, request: &ExecuteRequest) -> Result<NewWork, Error> {
        let options = Box::new(self.rules.options(request.options.as_ref())?);
        let branches = self.rules.branches(&request.branches, &self.links)?;
        let locks = self.rules.locks("locks", &request.locks)?;
        let retry_of = request::retry_of(&request.retry_of)?;
        self.check_room()?;
        Ok(NewWork { retry_of, options, branches, locks })
    }

    /// New work is refused while the disk still has room for what was promised.
    pub(super) fn check_room(&self) -> Result<(), Error> {
        if self.shutdown.is_begun() {
            return Err(Error::Stopping);
        }
        if self.handle.journal.has_room() {
            return Ok(());
        }
        Err(Error::Exhausted(
            "the disk of the coordinator's journal is nearly full; what was begun goes on, new \
             transactions are refused until there is room (--min-free)"
                .into(),
        ))
    }
}
