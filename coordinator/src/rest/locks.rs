//! `/locks`, `/sessions` and `/transactions/{id}/locks`.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use dtc::api::{self, Coordinator, Error, LockFilter, LockOwner, parse_id};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{self, JsonBody},
    id_of, primitives,
    problem::Problem,
    query::Parameters,
    request::{LockMode, NewLock, Waiting, page_size, retry_of},
    transactions::idempotency_key,
    wait::wait,
};
use crate::time::text;

/// Locks of an interactive transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLocks {
    /// Acquired all or none.
    #[schema(min_items = 1, max_items = 1000)]
    locks: Vec<NewLock>,
}

/// Locks of a client without a transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSession {
    /// Acquired all or none.
    #[schema(min_items = 1, max_items = 1000)]
    locks: Vec<NewLock>,
    /// Time until they are released unless the session is renewed; default 30 s.
    #[schema(minimum = 1000, maximum = 86400000)]
    lease_ms: Option<u64>,
    /// The first session of which this is a retry; the retry keeps its age.
    #[serde(default)]
    #[schema(
        required = false,
        pattern = "^([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})?$"
    )]
    retry_of: String,
}

/// The locks to release.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    /// Keys; empty for all.
    #[serde(default)]
    #[schema(value_type = Vec<primitives::LockKey>, required = false, max_items = 1000)]
    keys: Vec<String>,
}

/// A filter of locks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only keys with this prefix.
    prefix: Option<String>,
    /// Only locks that it holds or waits for: `transaction_id:` or `session_id:`, and the id.
    #[param(
        pattern = "^(transaction_id|session_id):[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    owner: Option<String>,
    /// Locks on a page; 100 where not set.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// `next_page_token` of the page before; empty for the first.
    page_token: Option<String>,
}

/// A lock that is held.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HeldLock {
    key: String,
    mode: LockMode,
    /// The fencing token, greater than those of all earlier grants; a whole number as text, as
    /// a double cannot represent all of them.
    #[schema(pattern = "^[0-9]{1,20}$")]
    token: String,
}

/// Locks that an interactive transaction holds until its end.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Locks {
    locks: Vec<HeldLock>,
}

/// A session that holds locks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    #[schema(format = "uuid")]
    session_id: String,
    locks: Vec<HeldLock>,
    /// Time until they are released unless the session is renewed.
    lease_ms: u64,
}

/// How many locks were released.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Released {
    released: usize,
}

/// The owner of a lock, or of a request that waits for one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Owner {
    /// A transaction, by its id.
    TransactionId(String),
    /// A session, by its id.
    SessionId(String),
}

/// A holder of a lock.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Holder {
    owner: Owner,
    mode: LockMode,
    /// See `HeldLock`.
    #[schema(pattern = "^[0-9]{1,20}$")]
    token: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    since: String,
}

/// A request that waits for a lock.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Waiter {
    owner: Owner,
    mode: LockMode,
    /// RFC 3339.
    #[schema(format = DateTime)]
    since: String,
    /// The owners ahead of it in the queue.
    waits_for: Vec<Owner>,
}

/// A lock with its queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lock {
    key: String,
    /// The first of them.
    holders: Vec<Holder>,
    /// How many there are.
    holder_count: usize,
    /// The first of them.
    waiters: Vec<Waiter>,
    /// How many there are.
    waiter_count: usize,
}

/// A page of locks, by key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LockPage {
    locks: Vec<Lock>,
    /// `page_token` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

impl From<api::LockMode> for LockMode {
    fn from(mode: api::LockMode) -> Self {
        match mode {
            api::LockMode::Shared => Self::Shared,
            api::LockMode::Exclusive => Self::Exclusive,
        }
    }
}

impl From<LockOwner> for Owner {
    fn from(owner: LockOwner) -> Self {
        match owner {
            LockOwner::Transaction(id) => Self::TransactionId(id.to_string()),
            LockOwner::Session(id) => Self::SessionId(id.to_string()),
        }
    }
}

impl From<&api::LockView> for Lock {
    fn from(view: &api::LockView) -> Self {
        let holders = view.holders.iter().map(|holder| Holder {
            owner: holder.owner.into(),
            mode: holder.mode.into(),
            token: holder.token.to_string(),
            since: text(holder.since),
        });
        let waiters = view.waiters.iter().map(|waiter| Waiter {
            owner: waiter.owner.into(),
            mode: waiter.mode.into(),
            since: text(waiter.since),
            waits_for: waiter.waits_for.iter().map(|owner| (*owner).into()).collect(),
        });
        Self {
            key: view.key.to_string(),
            holders: holders.collect(),
            holder_count: view.holder_count,
            waiters: waiters.collect(),
            waiter_count: view.waiter_count,
        }
    }
}

fn owner(text: &str) -> Result<LockOwner, Error> {
    match text.split_once(':') {
        Some(("transaction_id", id)) => Ok(LockOwner::Transaction(parse_id("owner", id)?)),
        Some(("session_id", id)) => Ok(LockOwner::Session(parse_id("owner", id)?)),
        _ => {
            let shown: String = text.chars().take(80).collect();
            let problem = format!("'{shown}' is none; transaction_id:ID or session_id:ID");
            Err(Error::invalid("owner", problem))
        }
    }
}

fn held(locks: &[api::HeldLock]) -> Vec<HeldLock> {
    let held = |lock: &api::HeldLock| HeldLock {
        key: lock.key.to_string(),
        mode: lock.mode.into(),
        token: lock.token.to_string(),
    };
    locks.iter().map(held).collect()
}

impl From<api::Session> for Session {
    fn from(session: api::Session) -> Self {
        let lease_ms = u64::try_from(session.lease.as_millis()).unwrap_or(u64::MAX);
        Self { session_id: session.id.to_string(), locks: held(&session.locks), lease_ms }
    }
}

/// Lock within a transaction
///
/// Interactive: all or none, held until all branches have acknowledged. `wait` is the longest
/// wait for the grant.
#[utoipa::path(
    post, path = "/transactions/{id}/locks", operation_id = "lockInTransaction", tag = "locks",
    params(
        ("id" = String, Path, format = "uuid", description = "The transaction."),
        Waiting,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128,
         description = "Makes the call safe to repeat, within the transaction."),
    ),
    request_body = NewLocks,
    responses(
        (status = 200, description = "Held.", body = Locks),
        (status = "default", description = "Nothing was locked.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn lock(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<Locks>, Problem> {
    let (id, wait) = (id_of(&id)?, wait(waiting.wait, &headers));
    let locks = body::read::<NewLocks>(body)?.locks;
    let locks: Vec<_> = locks.into_iter().map(api::NewLock::from).collect();
    let key = idempotency_key(&headers)?;
    let locks = coordinator.lock(id, &locks, key.as_deref(), wait).await?;
    Ok(Json(Locks { locks: held(&locks) }))
}

/// Begin a session
///
/// Locks without a transaction, all or none, held as long as the session is renewed. `wait` is
/// the longest wait for the grant.
#[utoipa::path(
    post, path = "/sessions", operation_id = "beginSession", tag = "locks",
    params(
        Waiting,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128,
         description = "Makes the call safe to repeat: the same key with the same body is the same session."),
    ),
    request_body = NewSession,
    responses(
        (status = 201, description = "Held.", body = Session,
         links(
            ("renew" = (operation_id = "renewSession", parameters(("id" = "$response.body#/session_id")))),
            ("release" = (operation_id = "releaseSession", parameters(("id" = "$response.body#/session_id")))),
         )),
        (status = "default", description = "Nothing was locked.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn begin(
    State(coordinator): State<Coordinator>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Session>), Problem> {
    let NewSession { locks, lease_ms, retry_of: first } = body::read(body)?;
    let new = api::NewSession {
        locks: locks.into_iter().map(api::NewLock::from).collect(),
        lease: lease_ms.map(Duration::from_millis),
        retry_of: retry_of(&first)?,
        request_key: idempotency_key(&headers)?,
    };
    let session = coordinator.acquire(&new, wait(waiting.wait, &headers)).await?;
    Ok((StatusCode::CREATED, Json(session.into())))
}

/// Renew a session
///
/// Its lease begins anew. Returns all locks of the session.
#[utoipa::path(
    post, path = "/sessions/{id}/renew", operation_id = "renewSession", tag = "locks",
    params(("id" = String, Path, format = "uuid", description = "The session.")),
    responses(
        (status = 200, description = "Renewed.", body = Session),
        (status = "default", description = "Not renewed.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn renew(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
) -> Result<Json<Session>, Problem> {
    let id = parse_id("session_id", &id)?;
    Ok(Json(coordinator.renew_session(id).await?.into()))
}

/// Release locks of a session
///
/// The given keys, or all. The session ends with its last lock.
#[utoipa::path(
    post, path = "/sessions/{id}/release", operation_id = "releaseSession", tag = "locks",
    params(("id" = String, Path, format = "uuid", description = "The session.")),
    request_body = Release,
    responses(
        (status = 200, description = "Released.", body = Released),
        (status = "default", description = "Nothing was released.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn release(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Released>, Problem> {
    let id = parse_id("session_id", &id)?;
    let keys = match body {
        serde_json::Value::Null => Vec::new(),
        body => body::read::<Release>(body)?.keys,
    };
    Ok(Json(Released { released: coordinator.release(id, &keys).await? }))
}

/// List locks
///
/// By key, a page at a time, with their holders and waiters.
#[utoipa::path(
    get, path = "/locks", operation_id = "listLocks", tag = "locks",
    params(Which),
    responses(
        (status = 200, description = "A page.", body = LockPage),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(coordinator): State<Coordinator>,
    Parameters(which): Parameters<Which>,
) -> Result<Json<LockPage>, Problem> {
    let owner = which.owner.as_deref().map(owner).transpose()?;
    let filter = LockFilter {
        prefix: which.prefix.unwrap_or_default(),
        owner,
        page_size: page_size(which.page_size)?,
        after: which.page_token.filter(|token| !token.is_empty()),
    };
    let page = coordinator.list_locks(filter).await?;
    let locks = page.locks.iter().map(Lock::from).collect();
    Ok(Json(LockPage { locks, next_page_token: page.next }))
}
