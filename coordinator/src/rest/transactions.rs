//! `/transactions`.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dtc_core::{AnswerAt, Opaque};
use dtc_proto::dtc::{
    self, BeginRequest, CommitTransactionRequest, EnlistRequest, PrepareTransactionRequest,
    RollbackTransactionRequest,
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
use ::dtc::{service::Services, trace};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Run a transaction
///
/// Answered at once, with the transaction in `Location`; or, with `?wait=` or
/// `Prefer: wait=N`, when its outcome is known or the time is over. From the answer
/// on, the transaction is known, whatever crashes.
#[utoipa::path(
    post, path = "/transactions", operation_id = "createTransaction", tag = "transactions",
    params(
        Waiting,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128,
         description = "Makes the request safe to repeat: the same key with the same body is the same transaction, interactive or not, whatever has changed since."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: seconds to wait for the outcome (RFC 7240)."),
    ),
    request_body = schema::NewTransaction,
    responses(
        (status = 201, description = "Begun; the outcome is in `state` if it was waited for.", body = view::Transaction,
         headers(("Location" = String, description = "Where the transaction is.")),
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
    State(services): State<Services>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let wait = wait(waiting.wait, &headers)?;
    let described = Described::from(NewTransaction::read(body)?);
    let key = idempotency_key(&headers)?;
    let trace = trace::of_client(&headers);
    let transaction = match described.interactive {
        true => begin(&services, described, key, trace).await?,
        false => run(&services, described, key, wait, trace).await?,
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
    services: &Services,
    described: Described,
    key: String,
    wait: Option<Duration>,
    trace: Option<Opaque>,
) -> Result<dtc::Transaction, Problem> {
    let answer_at = match (wait, described.answer_at) {
        (None, _) => AnswerAt::Begun,
        (_, Moment::Completion) => AnswerAt::Completion,
        (_, Moment::Decision) => AnswerAt::Decision,
    };
    let request = described.into_wire(key)?;
    Ok(services.run_announced(&request, answer_at, wait, trace).await?)
}

async fn begin(
    services: &Services,
    described: Described,
    key: String,
    trace: Option<Opaque>,
) -> Result<dtc::Transaction, Problem> {
    if !described.branches.is_empty() {
        let problem =
            "are enlisted one by one at /transactions/{id}/branches where it is interactive";
        return Err(Problem::invalid("branches", problem));
    }
    if !described.locks.is_empty() {
        let problem = "are taken by Acquire of dtc.v1.LockService where it is interactive";
        return Err(Problem::invalid("locks", problem));
    }
    let options = Some(described.options.into_wire()?);
    let request = BeginRequest { options, retry_of: described.retry_of, request_key: key };
    let begun = services.begin(request, trace).await?;
    Ok(services.look(id_of(&begun.transaction_id)?).await?)
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(String::new());
    };
    let invalid = |problem: &str| Err(Problem::invalid(IDEMPOTENCY_KEY, problem));
    if keys.next().is_some() {
        return invalid("was given twice");
    }
    // The header is a structured field, a quoted string; most clients send it bare.
    match key.to_str().map(|key| key.trim().trim_matches('"')) {
        Ok("") => invalid("is empty; 1 to 128 characters"),
        Ok(key) => Ok(key.into()),
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
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(services): State<Services>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Json<Transactions>, Problem> {
    let page = services.list(filter.into_wire()?).await?;
    let token = page.next_page_token;
    Ok(Json(Transactions {
        transactions: page.transactions.into_iter().map(view::Transaction::from).collect(),
        next_page_token: (!token.is_empty()).then_some(token),
    }))
}

/// Look at a transaction
///
/// With its trail: everything that happened, in order.
#[utoipa::path(
    get, path = "/transactions/{id}", operation_id = "getTransaction", tag = "transactions",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    responses(
        (status = 200, description = "As it is now.", body = view::Transaction),
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Json<view::Transaction>, Problem> {
    Ok(Json(services.look(id_of(&id)?).await?.into()))
}

/// Enlist a branch
///
/// In an interactive transaction that is active.
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
    State(services): State<Services>,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Enlisted>), Problem> {
    id_of(&id)?;
    let branch = body::read::<NewBranch>(body)?.into_wire("")?;
    let request_key = idempotency_key(&headers)?;
    let request = EnlistRequest { transaction_id: id, branch: Some(branch), request_key };
    let enlisted = services.enlist(request).await;
    let branch = enlisted.map_err(|error| Problem::from(error).without("branch."))?.branch;
    Ok((StatusCode::CREATED, Json(Enlisted { branch })))
}

/// Prepare a transaction
///
/// Interactive: collects the votes and stops there. Optional, as commit prepares by
/// itself.
#[utoipa::path(
    post, path = "/transactions/{id}/prepare", operation_id = "prepareTransaction", tag = "interactive",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    responses(
        (status = 200, description = "As it is when all votes are in, or the wait is over.", body = view::Transaction),
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn prepare(
    State(services): State<Services>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
) -> Result<Json<view::Transaction>, Problem> {
    id_of(&id)?;
    let wait = wait(waiting.wait, &headers)?.and_then(|wait| wait.try_into().ok());
    let request = PrepareTransactionRequest { transaction_id: id, wait };
    Ok(shown(services.prepare(request).await?.transaction))
}

/// Commit a transaction
///
/// Interactive: prepares first where that has not been done. Waits for 30 s unless
/// told otherwise.
#[utoipa::path(
    post, path = "/transactions/{id}/commit", operation_id = "commitTransaction", tag = "interactive",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    responses(
        (status = 200, description = "As it is when every branch has acknowledged, or the wait is over.", body = view::Transaction),
        (status = "default", description = "Not possible.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn commit(
    State(services): State<Services>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
) -> Result<Json<view::Transaction>, Problem> {
    id_of(&id)?;
    let wait = wait(waiting.wait, &headers)?.and_then(|wait| wait.try_into().ok());
    let request = CommitTransactionRequest { transaction_id: id, answer_at: 0, wait };
    Ok(shown(services.commit(request).await?.transaction))
}

/// Roll a transaction back
///
/// Whatever it is for, as long as it is not decided.
#[utoipa::path(
    post, path = "/transactions/{id}/rollback", operation_id = "rollbackTransaction", tag = "transactions",
    params(("id" = String, Path, format = "uuid", description = "The transaction."), Waiting),
    responses(
        (status = 200, description = "As it is when nothing is owed, or the wait is over.", body = view::Transaction),
        (status = "default", description = "Not possible, say because it is committed.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn rollback(
    State(services): State<Services>,
    Path(id): Path<String>,
    Parameters(waiting): Parameters<Waiting>,
    headers: HeaderMap,
) -> Result<Json<view::Transaction>, Problem> {
    id_of(&id)?;
    let wait = wait(waiting.wait, &headers)?.and_then(|wait| wait.try_into().ok());
    let request = RollbackTransactionRequest { transaction_id: id, answer_at: 0, wait };
    Ok(shown(services.rollback(request).await?.transaction))
}

fn shown(transaction: Option<dtc::Transaction>) -> Json<view::Transaction> {
    Json(transaction.unwrap_or_default().into())
}
