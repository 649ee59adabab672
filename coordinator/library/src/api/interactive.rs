//! Transactions that a client drives call by call.

use std::time::Duration;

use dtc_core::{CallKey, Reply};
use dtc_protocol::TransactionId;

use super::{
    AnswerAt, Coordinator, Error, NewBranch, NewTransaction, Transaction, fingerprint,
    limits::{self, SOON},
    repeat::unless_repeated,
    request,
};
use crate::{
    driver::{self, Call, NewWork},
    journal::{JournalError, codec},
};

impl Coordinator {
    /// Begins a transaction that its client drives: branches and locks come call by call.
    ///
    /// # Errors
    ///
    /// [`Error`]: nothing was begun.
    pub async fn begin(&self, new: &NewTransaction) -> Result<TransactionId, Error> {
        // Whatever its key: the fingerprint of a begin has neither.
        if !new.branches.is_empty() {
            let problem = "are enlisted one by one where it is interactive";
            return Err(Error::invalid("branches", problem));
        }
        if !new.locks.is_empty() {
            let problem = "are taken by calls of their own where it is interactive";
            return Err(Error::invalid("locks", problem));
        }
        let key = request::request_key(new.request_key.as_deref())?;
        let key = key.map(|key| (key, fingerprint::of_begin(new)));
        let judged = self.judge_begin(new);
        let reply = unless_repeated(key.is_some(), judged, |work| {
            let new = driver::NewTransaction {
                key,
                work,
                interactive: true,
                id_may_be_known: true,
                trace: new.trace.clone(),
                answer_at: AnswerAt::Decision,
            };
            self.handle.begin(new, SOON)
        });
        match reply.await? {
            Reply::Begun(id) | Reply::See(id) => Ok(id),
            Reply::Refused(refused) => Err(Error::refused(&refused, &self.handle.directory)),
            _ => Err(Error::Exhausted(format!(
                "the begin record was not durable within {SOON:?}; try again later"
            ))),
        }
    }

    fn judge_begin(&self, new: &NewTransaction) -> Result<NewWork, Error> {
        let options = Box::new(self.limits.options(&new.options)?);
        let retry_of = request::retry_of(new.retry_of)?;
        self.check_room()?;
        Ok(NewWork { retry_of, options, ..NewWork::default() })
    }

    /// Adds a branch to a transaction that was begun, and returns its number.
    ///
    /// # Errors
    ///
    /// [`Error`]: nothing was enlisted. Its fields are those of `branch`.
    pub async fn enlist(
        &self,
        id: TransactionId,
        branch: &NewBranch,
        request_key: Option<&str>,
    ) -> Result<u32, Error> {
        let key = request::request_key(request_key)?;
        let key = key.map(|key| (key, fingerprint::of_enlist(branch)));
        let judged = self.branch("branch", branch);
        let reply = unless_repeated(key.is_some(), judged, |branch| {
            self.handle.call(id, Call::Enlist { branch, key: key.clone() }, SOON)
        });
        match reply.await? {
            Reply::Enlisted(branch) => Ok(branch),
            reply => {
                if let (Reply::NotHere, Some(key)) = (&reply, key)
                    && let Some(branch) = self.enlisted(id, key).await?
                {
                    return Ok(branch);
                }
                let state = self.shown(Some(id), reply).await?.state;
                Err(Error::WrongState { call: "enlist", state, instead: "begin a new one" })
            }
        }
    }

    /// The branch that a call with this key enlisted in a transaction that the journal
    /// alone knows.
    async fn enlisted(&self, id: TransactionId, key: CallKey) -> Result<Option<u32>, Error> {
        let Some(stored) = self.handle.journal.find(id).await? else { return Ok(None) };
        match codec::enlisted(&stored, &key).map_err(JournalError::from)? {
            Some((branch, true)) => Ok(Some(branch)),
            Some((_, false)) => Err(Error::KeyTaken(key.0.to_string())),
            None => Ok(None),
        }
    }

    /// Collects the votes and stops there: see [`Transaction::is_prepared`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn prepare(
        &self,
        id: TransactionId,
        wait: Option<Duration>,
    ) -> Result<Transaction, Error> {
        let reply = self.handle.call(id, Call::Prepare, limits::wait(wait)?).await?;
        self.shown(Some(id), reply).await
    }

    /// Commits, preparing first where that has not been done.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn commit(
        &self,
        id: TransactionId,
        answer_at: AnswerAt,
        wait: Option<Duration>,
    ) -> Result<Transaction, Error> {
        let reply = self.handle.call(id, Call::Commit(answer_at), limits::wait(wait)?).await?;
        self.shown(Some(id), reply).await
    }

    /// Rolls back a transaction, interactive or not, that is not decided yet.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] if it is committed.
    pub async fn rollback(
        &self,
        id: TransactionId,
        answer_at: AnswerAt,
        wait: Option<Duration>,
    ) -> Result<Transaction, Error> {
        let reply = self.handle.call(id, Call::Rollback(answer_at), limits::wait(wait)?).await?;
        let transaction = self.shown(Some(id), reply).await?;
        match transaction.committed {
            true => Err(Error::WrongState {
                call: "rollback",
                state: transaction.state,
                instead: "a commit decision is not taken back",
            }),
            false => Ok(transaction),
        }
    }
}
