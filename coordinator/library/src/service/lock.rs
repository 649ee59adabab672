//! `dtc.v1.LockService`: locks of interactive transactions and of clients by
//! themselves.

use std::time::Duration;

use dtc_core::{LockKey, LockMode, LockOwner, LockView, Reply, SessionCall};
use dtc_proto::dtc::{
    self, AcquireLocksRequest, AcquireLocksResponse, ListLocksRequest, ListLocksResponse,
    LockHolder, LockStatus, LockWaiter, ReleaseLocksRequest, ReleaseLocksResponse,
    RenewLocksRequest, RenewLocksResponse, lock_owner::Owner, lock_service_server::LockService,
};
use dtc_protocol::SessionId;
use tonic::{Request, Response, Status, async_trait};

use super::{Services, repeat::unless_repeated, request};
use crate::{
    clock::timestamp,
    convert,
    driver::{NewLocks, NewSession},
    error::Error,
};

const LEASE: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const PAGE: usize = 100;
const MAX_PAGE: u32 = 1000;

impl Services {
    async fn acquire(&self, request: AcquireLocksRequest) -> Result<AcquireLocksResponse, Error> {
        let wait = request::duration("wait", request.wait.as_ref())?;
        let wait = wait.unwrap_or(self.rules.options.lock_wait);
        let key = request::request_key(&request.request_key)?;
        let key = key.map(|key| (key, request::fingerprint_of_acquire(&request)));
        let reply = if request.transaction_id.is_empty() {
            let judged = self.judge_session(&request);
            let ask = |work| self.handle.acquire(NewSession { key: key.clone(), work }, wait);
            unless_repeated(key.is_some(), judged, ask).await?
        } else {
            let id = request::transaction_id(&request.transaction_id)?;
            let judged = self.judge_locks(&request);
            let ask = |locks| self.handle.lock(id, locks, key.clone(), wait);
            match unless_repeated(key.is_some(), judged, ask).await? {
                Reply::NotHere => {
                    let transaction = self.transaction(Some(id), Reply::NotHere).await?;
                    return Err(Error::WrongState {
                        call: "acquire".into(),
                        state: super::request::words(transaction.state()),
                        instead: "begin a new one",
                    });
                }
                reply => reply,
            }
        };
        let (owner, locks, lease) = self.locked(reply)?;
        Ok(AcquireLocksResponse {
            locks,
            session_id: match owner {
                LockOwner::Session(id) => id.to_string(),
                LockOwner::Transaction(_) => String::new(),
            },
            lease,
        })
    }

    /// What a session is to hold, or what stands against it as a new one.
    fn judge_session(&self, request: &AcquireLocksRequest) -> Result<NewLocks, Error> {
        let locks = self.some_locks(request)?;
        let lease = request::duration("lease", request.lease.as_ref())?.unwrap_or(LEASE);
        if lease < SHORTEST_LEASE {
            return Err(Error::invalid("lease", "is too short; at least 1s"));
        }
        let retry_of = request::retry_of(&request.retry_of)?;
        self.check_room()?;
        Ok(NewLocks { retry_of, locks, lease })
    }

    /// What a transaction is to hold beside what it holds.
    fn judge_locks(
        &self,
        request: &AcquireLocksRequest,
    ) -> Result<Vec<(LockKey, LockMode)>, Error> {
        let given =
            [("lease", request.lease.is_some()), ("retry_of", !request.retry_of.is_empty())];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            let problem = "is for a session; a transaction holds its locks until its end";
            return Err(Error::invalid(field, problem));
        }
        self.some_locks(request)
    }

    fn some_locks(&self, request: &AcquireLocksRequest) -> Result<Vec<(LockKey, LockMode)>, Error> {
        let locks = self.rules.locks("locks", &request.locks)?;
        match locks.is_empty() {
            true => Err(Error::invalid("locks", "is empty; name at least one key")),
            false => Ok(locks),
        }
    }

    async fn renew_locks(&self, request: RenewLocksRequest) -> Result<RenewLocksResponse, Error> {
        let id = session_id("session_id", &request.session_id)?;
        let reply = self.handle.session(id, SessionCall::Renew).await?;
        let (_, locks, lease) = self.locked(reply)?;
        Ok(RenewLocksResponse { locks, lease })
    }

    async fn release_locks(
        &self,
        request: ReleaseLocksRequest,
    ) -> Result<ReleaseLocksResponse, Error> {
        let id = session_id("session_id", &request.session_id)?;
        let keys = self.rules.lock_keys("keys", &request.keys)?;
        match self.handle.session(id, SessionCall::Release(keys)).await? {
            Reply::Released(count) => {
                Ok(ReleaseLocksResponse { released: u32::try_from(count).unwrap_or(u32::MAX) })
            }
            reply => Err(self.unexpected(&reply)),
        }
    }

    async fn list_locks(&self, request: ListLocksRequest) -> Result<ListLocksResponse, Error> {
        let size = match request.page_size {
            0 => PAGE,
            size if size <= MAX_PAGE => size as usize,
            size => {
                let problem = format!("{size} is too large; 1 to {MAX_PAGE}");
                return Err(Error::invalid("page_size", problem));
            }
        };
        let owner = match request.owner.and_then(|owner| owner.owner) {
            None => None,
            Some(Owner::TransactionId(id)) => {
                Some(LockOwner::Transaction(request::transaction_id(&id)?))
            }
            Some(Owner::SessionId(id)) => {
                Some(LockOwner::Session(session_id("owner.session_id", &id)?))
            }
        };
        let after = Some(request.page_token).filter(|token| !token.is_empty());
        let (now, mut all) = self.handle.list_locks(request.prefix, owner, after, size + 1).await?;
        let more = all.len() > size;
        all.truncate(size);
        let next = all.last().filter(|_| more).map(|view| view.key.to_string());
        Ok(ListLocksResponse {
            locks: all.iter().map(|view| status(view, now)).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    fn locked(
        &self,
        reply: Reply,
    ) -> Result<(LockOwner, Vec<dtc::HeldLock>, Option<prost_types::Duration>), Error> {
        match reply {
            Reply::Locked { owner, locks, lease } => {
                let locks = locks.iter().map(convert::held_lock).collect();
                Ok((owner, locks, lease.and_then(|lease| lease.try_into().ok())))
            }
            reply => Err(self.unexpected(&reply)),
        }
    }

    fn unexpected(&self, reply: &Reply) -> Error {
        match reply {
            Reply::Refused(refused) => Error::refused(refused, &self.handle.directory),
            _ => Error::Stopping,
        }
    }
}

fn session_id(field: &str, text: &str) -> Result<SessionId, Error> {
    text.parse().map_err(|error| {
        let text: String = text.chars().take(80).collect();
        Error::invalid(field, format!("'{text}' is {error}"))
    })
}

fn owner(owner: LockOwner) -> Option<dtc::LockOwner> {
    let owner = match owner {
        LockOwner::Transaction(id) => Owner::TransactionId(id.to_string()),
        LockOwner::Session(id) => Owner::SessionId(id.to_string()),
    };
    Some(dtc::LockOwner { owner: Some(owner) })
}

fn status(view: &LockView, now: dtc_core::Time) -> LockStatus {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let holders = view.holders.iter().map(|holder| LockHolder {
        owner: owner(holder.owner),
        mode: convert::lock_mode(holder.mode).into(),
        token: holder.token,
        since: Some(timestamp(holder.since.0)),
    });
    let waiters = view.waiters.iter().map(|waiter| LockWaiter {
        owner: owner(waiter.owner),
        mode: convert::lock_mode(waiter.mode).into(),
        since: Some(timestamp(waiter.since.0)),
        waited: now.since(waiter.since).try_into().ok(),
        waits_for: waiter.waits_for.iter().filter_map(|by| owner(*by)).collect(),
    });
    LockStatus {
        key: view.key.to_string(),
        holders: holders.collect(),
        holder_count: count(view.holder_count),
        waiters: waiters.collect(),
        waiter_count: count(view.waiter_count),
    }
}

#[async_trait]
impl LockService for Services {
    async fn acquire(
        &self,
        request: Request<AcquireLocksRequest>,
    ) -> Result<Response<AcquireLocksResponse>, Status> {
        Ok(Response::new(Services::acquire(self, request.into_inner()).await?))
    }

    async fn renew(
        &self,
        request: Request<RenewLocksRequest>,
    ) -> Result<Response<RenewLocksResponse>, Status> {
        Ok(Response::new(self.renew_locks(request.into_inner()).await?))
    }

    async fn release(
        &self,
        request: Request<ReleaseLocksRequest>,
    ) -> Result<Response<ReleaseLocksResponse>, Status> {
        Ok(Response::new(self.release_locks(request.into_inner()).await?))
    }

    async fn list(
        &self,
        request: Request<ListLocksRequest>,
    ) -> Result<Response<ListLocksResponse>, Status> {
        Ok(Response::new(self.list_locks(request.into_inner()).await?))
    }
}
