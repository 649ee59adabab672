//! `dtc.v1.LockService`: locks of interactive transactions, and of clients by themselves.

use dtc::api::{Error, LockFilter, LockOwner, NewSession, parse_id};
use dtc_proto::dtc::{
    AcquireLocksRequest, AcquireLocksResponse, ListLocksRequest, ListLocksResponse,
    ReleaseLocksRequest, ReleaseLocksResponse, RenewLocksRequest, RenewLocksResponse,
    lock_owner::Owner, lock_service_server::LockService,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Grpc, read, show, status::status};

impl Grpc {
    async fn acquire_locks(
        &self,
        request: AcquireLocksRequest,
    ) -> Result<AcquireLocksResponse, Error> {
        let wait = read::duration("wait", request.wait.as_ref())?;
        let lease = read::duration("lease", request.lease.as_ref())?;
        let retry_of = read::optional_id("retry_of", &request.retry_of)?;
        let locks = read::locks(request.locks)?;
        let request_key = read::some(&request.request_key);
        let Some(id) = read::some(&request.transaction_id) else {
            let request_key = request_key.map(str::to_owned);
            let new = NewSession { locks, lease, retry_of, request_key };
            let session = self.0.acquire(&new, wait).await?;
            return Ok(AcquireLocksResponse {
                locks: show::held_locks(&session.locks),
                session_id: session.id.to_string(),
                lease: show::duration(session.lease),
            });
        };
        let id = read::transaction_id(id)?;
        let given = [("lease", lease.is_some()), ("retry_of", retry_of.is_some())];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            let problem = "is for a session; a transaction holds its locks until its end";
            return Err(Error::invalid(field, problem));
        }
        let held = self.0.lock(id, &locks, request_key, wait).await?;
        Ok(AcquireLocksResponse { locks: show::held_locks(&held), ..Default::default() })
    }

    async fn list_locks(&self, request: ListLocksRequest) -> Result<ListLocksResponse, Error> {
        let owner = match request.owner.and_then(|owner| owner.owner) {
            None => None,
            Some(Owner::TransactionId(id)) => {
                Some(LockOwner::Transaction(read::transaction_id(&id)?))
            }
            Some(Owner::SessionId(id)) => {
                Some(LockOwner::Session(parse_id("owner.session_id", &id)?))
            }
        };
        let page = self.0.list_locks(LockFilter {
            prefix: request.prefix,
            owner,
            page_size: request.page_size,
            after: Some(request.page_token).filter(|token| !token.is_empty()),
        });
        let page = page.await?;
        Ok(ListLocksResponse {
            locks: page.locks.iter().map(|view| show::lock_status(view, page.now)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }
}

#[async_trait]
impl LockService for Grpc {
    async fn acquire(
        &self,
        request: Request<AcquireLocksRequest>,
    ) -> Result<Response<AcquireLocksResponse>, Status> {
        self.acquire_locks(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn renew(
        &self,
        request: Request<RenewLocksRequest>,
    ) -> Result<Response<RenewLocksResponse>, Status> {
        let id = parse_id("session_id", &request.into_inner().session_id).map_err(status)?;
        let session = self.0.renew_session(id).await.map_err(status)?;
        let (locks, lease) = (show::held_locks(&session.locks), show::duration(session.lease));
        Ok(Response::new(RenewLocksResponse { locks, lease }))
    }

    async fn release(
        &self,
        request: Request<ReleaseLocksRequest>,
    ) -> Result<Response<ReleaseLocksResponse>, Status> {
        let ReleaseLocksRequest { session_id, keys } = request.into_inner();
        let id = parse_id("session_id", &session_id).map_err(status)?;
        let released = self.0.release(id, &keys).await.map_err(status)?;
        Ok(Response::new(ReleaseLocksResponse { released: show::count(released) }))
    }

    async fn list(
        &self,
        request: Request<ListLocksRequest>,
    ) -> Result<Response<ListLocksResponse>, Status> {
        self.list_locks(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
