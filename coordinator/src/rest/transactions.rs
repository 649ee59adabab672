//! `/transactions`.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dtc::{
    api::{AnswerAt, Coordinator, Opaque, Transaction},
    trace,
};

use super::{
    body::{self, JsonBody},
    id_of,
    problem::Problem,
    query::Parameters,
    request::{Described, Filter, Moment, NewBranch, NewTransaction, Waiting},
    schema,
    view::{self, Enlisted, Transactions},
    wait::wait,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Run a transaction
///
/// Answered at once, with the transaction's URL in `Location`; or, with `?wait=` or
/// `Prefer: wait=N`, when its outcome is known or the wait is over. From the answer
/// on, the transaction survives any crash.
#[utoipa::path(
    post, path = "/transactions", operation_id = "createTransaction", tag = "transactions",
    params(
        Waiting,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128,
         description = "Makes the request safe to repeat: the same key with the same body is the same transaction, interactive or not, whatever configuration or registration has changed since."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: longest wait for the outcome, in seconds (RFC 7240)."),
    ),
    request_body = schema::NewTransaction,
    responses(
        (status = 201, description = "Begun; `state` is the outcome, if it was known within the wait.", body = view::Transaction,
         headers(("Location" = String, description = "URL of the transaction.")),
         links(
            ("look" = (operation_id = "getTransaction", parameters(("id" = "$response.body#/id")))),
            ("enlist" = (operation_id = "enlistBranch", parameters(("id" = "$response.body#/id")))),
            ("prepare" = (operation_id = "prepareTransaction", parameters(("id" = "$response.body#/id")))),
            ("commit" = (operation_id = "commitTransaction", parameters(("id" = "$response.body#/id")))),
            ("rollback" = (operation_id = "rollbackTransaction", parameters(("id" = "$response.body#/id")))),
         )),
        (status = "default", description = "Nothing was begun.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(coordinator): State<Coordinator>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let wait = wait(waiting.wait, &headers);
    let described = Described::from(NewTransaction::read(body)?);
    let key = idempotency_key(&headers)?;
    let trace = trace::of_client(&headers);
    let transaction = match described.interactive {
        true => begin(&coordinator, described, key, trace).await?,
        false => run(&coordinator, described, key, wait, trace).await?,
    };
    let location = HeaderValue::from_str(&format!("/transactions/{}", transaction.id));
    let shown = Json(view::Transaction::from(transaction));
    let mut response = (StatusCode::CREATED, shown).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn run(
    coordinator: &Coordinator,
    described: Described,
    key: Option<String>,
    wait: Option<Duration>,
    trace: Option<Opaque>,
) -> Result<Transaction, Problem> {
    let answer_at = match (wait, described.answer_at) {
        (None, _) => AnswerAt::Begun,
        (_, Moment::Completion) => AnswerAt::Completion,
        (_, Moment::Decision) => AnswerAt::Decision,
    };
    let new = described.into_api(key, trace)?;
    Ok(coordinator.execute(&new, true, answer_at, wait).await?)
}

async fn begin(
    coordinator: &Coordinator,
    described: Described,
    key: Option<String>,
    trace: Option<Opaque>,
) -> Result<Transaction, Problem> {
    let id = coordinator.begin(&described.into_api(key, trace)?).await?;
    Ok(coordinator.get(id).await?)
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let invalid = |problem: &str| Err(Problem::invalid(IDEMPOTENCY_KEY, problem));
    if keys.next().is_some() {
        return invalid("was given twice");
    }
    // The header is a structured field, a quoted string; most clients send it bare.
    match key.to_str().map(|key| key.trim().trim_matches('"')) {
        Ok("") => invalid("is empty; 1 to 128 characters"),
        Ok(key) => Ok(Some(key.into())),
        Err(_) => invalid("has characters that are not visible ASCII"),
    }
}

/// List transactions
///
/// Newest first, a page at a time.
#[utoipa::path(
    get, path = "/transactions", operation_id = "listTransactions", tag = "transactions",
    params(Filter),
    responses(
        (status = 200, description = "A page.", body = Transactions,
         links(("next" = (operation_id = "listTransactions", parameters(("page_token" = "$response.body#/next_page_token")))))),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(coordinator): State<Coordinator>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Json<Transactions>, Problem> {
    let page = coordinator.list(&filter.into_api()?).await?;
    Ok(Json(Transactions {
        transactions: page.transactions.into_iter().map(view::Transaction::from).collect(),
        next_page_token: page.next.map(|id| id.to_string()),
    }))
}

/// Get a transaction
///
/// With its trail: its events, in order.
#[utoipa::path(
    get, path = "/transactions/{id}", operation_id = "getTransaction", tag = "transactions",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    responses(
        (status = 200, description = "Its present state.", body = view::Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
) -> Result<Json<view::Transaction>, Problem> {
    Ok(Json(coordinator.get(id_of(&id)?).await?.into()))
}

/// Get a transaction by its key
///
/// The transaction that was begun with an `Idempotency-Key`, with its trail.
#[utoipa::path(
    get, path = "/request-keys/{key}", operation_id = "getTransactionByKey", tag = "transactions",
    params(("key" = String, Path, min_length = 1, max_length = 128, description = "The key.")),
    responses(
        (status = 200, description = "Its present state.", body = view::Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_by_key(
    State(coordinator): State<Coordinator>,
    Path(key): Path<String>,
) -> Result<Json<view::Transaction>, Problem> {
    Ok(Json(coordinator.get_by_key(&key).await?.into()))
}

/// Enlist a branch
///
/// Adds a branch to an active interactive transaction.
#[utoipa::path(
    post, path = "/transactions/{id}/branches", operation_id = "enlistBranch", tag = "interactive",
    params(
        ("id" = String, Path, format = "uuid", description = "The transaction."),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128,
         description = "Makes the call safe to repeat: within the transaction, the same key with the same body is the same branch. Without one, a call that is repeated enlists a second branch."),
    ),
    request_body = NewBranch,
    responses(
        (status = 201, description = "Enlisted.", body = Enlisted),
        (status = "default", description = "Not enlisted.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn enlist(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Enlisted>), Problem> {
    let id = id_of(&id)?;
    let branch = body::read::<NewBranch>(body)?.into_api("")?;
    let key = idempotency_key(&headers)?;
    let enlisted = coordinator.enlist(id, &branch, key.as_deref()).await;
    let branch = enlisted.map_err(|error| Problem::from(error).without("branch."))?;
    Ok((StatusCode::CREATED, Json(Enlisted { branch })))
}

/// Prepare a transaction
///
/// Interactive: collects the votes without deciding. Optional, as commit prepares by
/// itself.
#[utoipa::path(
    post, path = "/transactions/{id}/prepare", operation_id = "prepareTransaction", tag = "interactive",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    responses(
        (status = 200, description = "Its state when all votes are in, or at the end of the wait.", body = view::Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn prepare(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
) -> Result<Json<view::Transaction>, Problem> {
    let (id, wait) = (id_of(&id)?, wait(waiting.wait, &headers));
    Ok(Json(coordinator.prepare(id, wait).await?.into()))
}

/// Commit a transaction
///
/// Interactive: prepares first where that has not been done. Default wait: 30 s.
#[utoipa::path(
    post, path = "/transactions/{id}/commit", operation_id = "commitTransaction", tag = "interactive",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    responses(
        (status = 200, description = "Its state when every branch has acknowledged, or at the end of the wait.", body = view::Transaction),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn commit(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
) -> Result<Json<view::Transaction>, Problem> {
    let (id, wait) = (id_of(&id)?, wait(waiting.wait, &headers));
    Ok(Json(coordinator.commit(id, AnswerAt::Completion, wait).await?.into()))
}

/// Roll a transaction back
///
/// Any transaction, interactive or not, that is not decided yet.
#[utoipa::path(
    post, path = "/transactions/{id}/rollback", operation_id = "rollbackTransaction", tag = "transactions",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    responses(
        (status = 200, description = "Its state when every rollback is acknowledged, or at the end of the wait.", body = view::Transaction),
        (status = "default", description = "Refused, say because it is committed.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn rollback(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
) -> Result<Json<view::Transaction>, Problem> {
    let (id, wait) = (id_of(&id)?, wait(waiting.wait, &headers));
    Ok(Json(coordinator.rollback(id, AnswerAt::Completion, wait).await?.into()))
}
