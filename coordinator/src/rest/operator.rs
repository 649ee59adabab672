//! `/transactions/{id}/resolve` and the other calls of operators.

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
    /// The branch to resolve; where not set, all that have not acknowledged.
    // As 'int32' a schema would end at half of it.
    #[schema(value_type = Option<u64>, maximum = 4294967295u64)]
    branch: Option<u32>,
    /// The reason; kept with the transaction.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^\S")]
    reason: String,
    /// The operator's name; kept with the transaction, with the address of the client.
    #[schema(min_length = 1, max_length = 200, pattern = r"^\S")]
    caller: String,
}

/// The end of attempts to notify participants of a resolution.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Abandonment {
    /// The branch whose participant is permanently lost; where not set, all branches with
    /// an owed notification.
    #[schema(value_type = Option<u64>, maximum = 4294967295u64)]
    branch: Option<u32>,
    /// The reason; kept with the transaction.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^\S")]
    reason: String,
    /// The operator's name; kept with the transaction, with the address of the client.
    #[schema(min_length = 1, max_length = 200, pattern = r"^\S")]
    caller: String,
}

/// The operator and the reason.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    /// The reason; kept with the transaction.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^\S")]
    reason: String,
    /// The operator's name; kept with the transaction, with the address of the client.
    #[schema(min_length = 1, max_length = 200, pattern = r"^\S")]
    caller: String,
}

fn operator(reason: String, caller: String, peer: Caller) -> Operator {
    let peer = peer.map_or_else(|| "in process".into(), |Extension(Peer(it))| it.to_string());
    Operator { reason, caller, peer }
}

/// Resolve a transaction
///
/// A heuristic decision about one branch, or about all that have not acknowledged, where their
/// participants cannot be reached. The coordinator's decision stands; a branch that did the
/// opposite makes the outcome heuristic.
#[utoipa::path(
    post, path = "/transactions/{id}/resolve", operation_id = "resolveTransaction", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    request_body = NewResolution,
    responses(
        (status = 200, description = "The transaction at its end, or at the end of the wait (default 10 s).", body = Transaction),
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
/// Sends unacknowledged decisions and owed notifications now, without waiting for their backoff.
#[utoipa::path(
    post, path = "/transactions/{id}/retry", operation_id = "retryTransaction", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    request_body = Signature,
    responses(
        (status = 200, description = "Its present state.", body = Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
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
/// Ends the attempts to notify a participant of an operator's resolution, where it is
/// permanently lost.
#[utoipa::path(
    post, path = "/transactions/{id}/abandon", operation_id = "abandonBranch", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    request_body = Abandonment,
    responses(
        (status = 200, description = "Its present state.", body = Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
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
/// Returns an ended transaction, which was kept because of a heuristic outcome or an
/// intervention, to retention.
#[utoipa::path(
    post, path = "/transactions/{id}/forget", operation_id = "forgetTransaction", tag = "operators",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    request_body = Signature,
    responses(
        (status = 200, description = "Its present state.", body = Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
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
