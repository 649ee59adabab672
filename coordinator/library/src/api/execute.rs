//! A whole transaction in one request.

use std::time::Duration;

use super::{
    AnswerAt, Coordinator, Error, NewTransaction, Transaction, fingerprint, limits,
    repeat::unless_repeated, request,
};
use crate::driver::{self, NewWork};

impl Coordinator {
    /// Runs a transaction and answers when its outcome is decided, or all of it is done, or
    /// the wait is over; the transaction goes on then. With `id_may_be_known` its id may be
    /// had before the outcome, and the transaction asked for after a crash.
    ///
    /// # Errors
    ///
    /// [`Error`]: nothing was begun.
    pub async fn execute(
        &self,
        new: &NewTransaction,
        id_may_be_known: bool,
        answer_at: AnswerAt,
        wait: Option<Duration>,
    ) -> Result<Transaction, Error> {
        let wait = limits::wait(wait)?;
        let key = request::request_key(new.request_key.as_deref())?;
        let key = key.map(|key| (key, fingerprint::of_transaction(new)));
        let judged = self.judge(new);
        let reply = unless_repeated(key.is_some(), judged, |work| {
            let trace = new.trace.clone();
            let new = driver::NewTransaction {
                key,
                work,
                interactive: false,
                id_may_be_known,
                trace,
                answer_at,
            };
            self.handle.begin(new, wait)
        });
        let mut transaction = self.shown(None, reply.await?).await?;
        transaction.trail.clear();
        Ok(transaction)
    }

    /// What is to be done, or what stands against it as new work.
    fn judge(&self, new: &NewTransaction) -> Result<NewWork, Error> {
        let options = Box::new(self.limits.options(&new.options)?);
        let branches = self.branches(&new.branches)?;
        let locks = self.limits.locks(&new.locks)?;
        let retry_of = request::retry_of(new.retry_of)?;
        self.check_room()?;
        Ok(NewWork { retry_of, options, branches, locks })
    }
}
