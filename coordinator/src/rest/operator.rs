//! `/transactions/{id}/resolve` and what else is done by an operator.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::HeaderMap,
};
use dtc::api::{Coordinator, Operator};
use dtc_service::Peer;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    body::{self, JsonBody},
    id_of,
    problem::Problem,
    query::Parameters,
    request::Waiting,
    view::{Resolution, Transaction},
    wait::wait,
};

type Caller = Option<Extension<Peer>>;

/// A heuristic decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewResolution {
    resolution: Resolution,
    /// The branch that is resolved; all that are owed something where not set.
    // As 'int32' a schema would end at half of it.
    #[schema(value_type = Option<u64>, maximum = 4294967295u64)]
    branch: Option<u32>,
    /// Why; kept with the transaction.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^\S")]
    reason: String,
    /// Who you are; kept with the transaction.
    #[schema(min_length = 1, max_length = 200, pattern = r"^\S")]
    caller: String,
}

/// What is not to be done any more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Abandonment {
    /// The branch whose participant will never be back; all that are not notified where
    /// not set.
    #[schema(value_type = Option<u64>, maximum = 4294967295u64)]
    branch: Option<u32>,
    /// Why; kept with the transaction.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^\S")]
    reason: String,
    /// Who you are; kept with the transaction.
    #[schema(min_length = 1, max_length = 200, pattern = r"^\S")]
    caller: String,
}

/// Who does it, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    /// Why; kept with the transaction.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^\S")]
    reason: String,
    /// Who you are; kept with the transaction.
    #[schema(min_length = 1, max_length = 200, pattern = r"^\S")]
    caller: String,
}

fn operator(reason: String, caller: String, peer: Caller) -> Operator {
    let peer = peer.map_or_else(|| "in process".into(), |Extension(Peer(it))| it.to_string());
    Operator { reason, caller, peer }
}

/// Resolve a transaction
///
/// A heuristic decision about a branch, or about all that are owed something, where they
/// cannot be reached. What was decided stays decided; a branch that did the opposite makes
/// the outcome heuristic.
#[utoipa::path(
    post, path = "/transactions/{id}/resolve", operation_id = "resolveTransaction", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    request_body = NewResolution,
    responses(
        (status = 200, description = "As it is when that is durable, or the wait (10 s where not set) is over.", body = Transaction),
        (status = "default", description = "Nothing was resolved.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn resolve(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
    peer: Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<Transaction>, Problem> {
    let (id, wait) = (id_of(&id)?, wait(waiting.wait, &headers));
    let NewResolution { resolution, branch, reason, caller } = body::read(body)?;
    let (commit, operator) = (resolution == Resolution::Commit, operator(reason, caller, peer));
    Ok(Json(coordinator.resolve(id, branch, commit, &operator, wait).await?.into()))
}

/// Retry a transaction
///
/// Sends what is owed now, whatever wait was planned.
#[utoipa::path(
    post, path = "/transactions/{id}/retry", operation_id = "retryTransaction", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    request_body = Signature,
    responses(
        (status = 200, description = "As it is now.", body = Transaction),
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn retry(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    peer: Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<Transaction>, Problem> {
    let id = id_of(&id)?;
    let Signature { reason, caller } = body::read(body)?;
    Ok(Json(coordinator.retry(id, &operator(reason, caller, peer)).await?.into()))
}

/// Abandon a participant
///
/// It is not notified any more of what an operator resolved: it never will be back.
#[utoipa::path(
    post, path = "/transactions/{id}/abandon", operation_id = "abandonBranch", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    request_body = Abandonment,
    responses(
        (status = 200, description = "As it is now.", body = Transaction),
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn abandon(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    peer: Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<Transaction>, Problem> {
    let id = id_of(&id)?;
    let Abandonment { branch, reason, caller } = body::read(body)?;
    Ok(Json(coordinator.abandon(id, branch, &operator(reason, caller, peer)).await?.into()))
}

/// Forget a transaction
///
/// Gives one that has ended, and is kept for operators, back to retention.
#[utoipa::path(
    post, path = "/transactions/{id}/forget", operation_id = "forgetTransaction", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    request_body = Signature,
    responses(
        (status = 200, description = "As it is now.", body = Transaction),
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn forget(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    peer: Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<Transaction>, Problem> {
    let id = id_of(&id)?;
    let Signature { reason, caller } = body::read(body)?;
    Ok(Json(coordinator.forget(id, &operator(reason, caller, peer)).await?.into()))
}
