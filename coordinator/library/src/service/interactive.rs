//! Transactions that a client drives call by call, and looks at.

use std::time::Duration;

use dtc_core::{AnswerAt, CallKey, Opaque, Reply, RequestKey};
use dtc_proto::dtc::{
    self, BeginRequest, BeginResponse, CommitTransactionRequest, CommitTransactionResponse,
    EnlistRequest, EnlistResponse, GetTransactionRequest, GetTransactionResponse,
    PrepareTransactionRequest, PrepareTransactionResponse, RollbackTransactionRequest,
    RollbackTransactionResponse, TransactionState, get_transaction_request::By,
};
use dtc_protocol::TransactionId;

use super::{Services, repeat::unless_repeated, request};
use crate::{
    driver::{Call, NewTransaction, NewWork},
    error::Error,
    journal::codec,
};

/// Bound of calls that are answered at once, or when a record is durable.
const SOON: Duration = Duration::from_secs(30);

impl Services {
    pub async fn begin(
        &self,
        request: BeginRequest,
        trace: Option<Opaque>,
    ) -> Result<BeginResponse, Error> {
        let key = request::request_key(&request.request_key)?;
        let key = key.map(|key| (key, request::fingerprint_of_begin(&request)));
        let judged = self.judge_begin(&request);
        let reply = unless_repeated(key.is_some(), judged, |work| {
            let new = NewTransaction {
                key,
                work,
                interactive: true,
                id_may_be_known: true,
                trace,
                answer_at: AnswerAt::Decision,
            };
            self.handle.begin(new, SOON)
        });
        match reply.await? {
            Reply::Begun(id) | Reply::See(id) => {
                Ok(BeginResponse { transaction_id: id.to_string() })
            }
            Reply::Refused(refused) => Err(Error::refused(&refused, &self.handle.directory)),
            _ => Err(Error::Exhausted(format!(
                "the begin record was not durable within {SOON:?}; try again later"
            ))),
        }
    }

    fn judge_begin(&self, request: &BeginRequest) -> Result<NewWork, Error> {
        let options = self.rules.options(request.options.as_ref())?;
        let retry_of = request::retry_of(&request.retry_of)?;
        self.check_room()?;
        let options = Box::new(options);
        Ok(NewWork { retry_of, options, ..NewWork::default() })
    }

    pub async fn enlist(&self, request: EnlistRequest) -> Result<EnlistResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let key = request::request_key(&request.request_key)?;
        let key = key.map(|key| (key, request::fingerprint_of_enlist(&request)));
        let branch = request.branch.unwrap_or_default();
        let judged = self.rules.branch("branch", &branch, &self.links);
        let reply = unless_repeated(key.is_some(), judged, |branch| {
            self.handle.call(id, Call::Enlist { branch, key: key.clone() }, SOON)
        });
        match reply.await? {
            Reply::Enlisted(branch) => Ok(EnlistResponse { branch }),
            reply => {
                if let (Reply::NotHere, Some(key)) = (&reply, key)
                    && let Some(branch) = self.enlisted(id, key).await?
                {
                    return Ok(EnlistResponse { branch });
                }
                let transaction = self.transaction(Some(id), reply).await?;
                let state = transaction.state();
                Err(Error::WrongState {
                    call: "enlist".into(),
                    state: request::words(state),
                    instead: "begin a new one",
                })
            }
        }
    }

    /// The branch that a call with this key enlisted in a transaction that the journal
    /// alone knows.
    async fn enlisted(&self, id: TransactionId, key: CallKey) -> Result<Option<u32>, Error> {
        let stored = self.handle.journal.find(id).await?;
        match stored.and_then(|stored| codec::enlisted(&stored, &key)) {
            Some((branch, true)) => Ok(Some(branch)),
            Some((_, false)) => Err(Error::KeyTaken(key.0.to_string())),
            None => Ok(None),
        }
    }

    pub async fn prepare(
        &self,
        request: PrepareTransactionRequest,
    ) -> Result<PrepareTransactionResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let wait = request::wait(request.wait.as_ref())?;
        let reply = self.handle.call(id, Call::Prepare, wait).await?;
        let transaction = self.transaction(Some(id), reply).await?;
        let prepared = match transaction.state() {
            TransactionState::Prepared => true,
            _ => transaction.committed,
        };
        Ok(PrepareTransactionResponse { transaction: Some(transaction), prepared })
    }

    pub async fn commit(
        &self,
        request: CommitTransactionRequest,
    ) -> Result<CommitTransactionResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let wait = request::wait(request.wait.as_ref())?;
        let at = request::answer_at(request.answer_at)?;
        let reply = self.handle.call(id, Call::Commit(at), wait).await?;
        let transaction = self.transaction(Some(id), reply).await?;
        let committed = transaction.committed;
        Ok(CommitTransactionResponse { transaction: Some(transaction), committed })
    }

    pub async fn rollback(
        &self,
        request: RollbackTransactionRequest,
    ) -> Result<RollbackTransactionResponse, Error> {
        let id = request::transaction_id(&request.transaction_id)?;
        let wait = request::wait(request.wait.as_ref())?;
        let at = request::answer_at(request.answer_at)?;
        let reply = self.handle.call(id, Call::Rollback(at), wait).await?;
        let transaction = self.transaction(Some(id), reply).await?;
        if transaction.committed {
            return Err(Error::WrongState {
                call: "rollback".into(),
                state: request::words(transaction.state()),
                instead: "a commit decision is not taken back",
            });
        }
        Ok(RollbackTransactionResponse { transaction: Some(transaction) })
    }

    pub(super) async fn get(
        &self,
        request: GetTransactionRequest,
    ) -> Result<GetTransactionResponse, Error> {
        let id = match request.by {
            Some(By::TransactionId(id)) => request::transaction_id(&id)?,
            Some(By::RequestKey(key)) => self.by_key(request::some_request_key(&key)?).await?,
            None => {
                let problem = "is empty; give it, or request_key";
                return Err(Error::invalid("transaction_id", problem));
            }
        };
        let transaction = self.look(id).await?;
        let committed = transaction.committed;
        Ok(GetTransactionResponse { transaction: Some(transaction), committed })
    }

    /// A transaction with its trail.
    pub async fn look(&self, id: dtc_protocol::TransactionId) -> Result<dtc::Transaction, Error> {
        let reply = self.handle.call(id, Call::Get, SOON).await?;
        self.transaction(Some(id), reply).await
    }

    async fn by_key(&self, key: RequestKey) -> Result<dtc_protocol::TransactionId, Error> {
        if let Some(id) = self.handle.user_of(key.clone()).await? {
            return Ok(id);
        }
        match self.handle.journal.find_keys(vec![key.clone()]).await?[..] {
            [Some((id, _))] => Ok(id),
            _ => Err(Error::UnknownKey(key.to_string())),
        }
    }
}
