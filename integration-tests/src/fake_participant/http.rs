//! The script over HTTP.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use dtc_proto::dtc::{
    CommitRequest, Origin, Payload, PrepareRequest, RollbackRequest, payload::Kind,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::net::TcpListener;

use super::{Heard, Reply, Shared, lock, misfit, reply};

/// The body of every call to a participant that speaks HTTP; each call has its fields.
#[derive(Deserialize)]
pub(crate) struct Body {
    pub(crate) transaction_id: String,
    pub(crate) branch: u32,
    coordinator_id: String,
    pub(crate) epoch: u64,
    incarnation: String,
    #[serde(default)]
    pub(crate) payload: Option<Box<RawValue>>,
    #[serde(default)]
    decision_number: u32,
    #[serde(default)]
    compensate: bool,
    #[serde(default)]
    pub(crate) output: Option<Box<RawValue>>,
}

impl Body {
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            coordinator_id: self.coordinator_id.clone(),
            epoch: self.epoch,
            incarnation: self.incarnation.clone(),
            recovery_address: String::new(),
        }
    }
}

/// The JSON text as a typed payload.
fn kept(value: Option<&RawValue>) -> Option<Payload> {
    let text = value.map(|value| value.get().to_owned());
    text.map(|text| Payload { kind: Some(Kind::Typed(text.into())) })
}

pub(super) async fn serve(listener: TcpListener, state: Shared) {
    let router = Router::new()
        .route("/base/prepare", post(prepare))
        .route("/base/commit", post(commit))
        .route("/base/rollback", post(rollback))
        .with_state(state);
    // It ends with the test.
    let _ = axum::serve(listener, router).await;
}

async fn prepare(State(state): State<Shared>, Json(body): Json<Body>) -> Response {
    let heard = Heard::Prepare(PrepareRequest {
        origin: Some(body.origin()),
        payload: kept(body.payload.as_deref()),
        transaction_id: body.transaction_id,
        branch: body.branch,
        ..PrepareRequest::default()
    });
    answer(&state, heard).await
}

async fn commit(State(state): State<Shared>, Json(body): Json<Body>) -> Response {
    let heard = Heard::Commit(CommitRequest {
        origin: Some(body.origin()),
        output: kept(body.output.as_deref()),
        transaction_id: body.transaction_id,
        branch: body.branch,
        decision_number: body.decision_number,
    });
    answer(&state, heard).await
}

async fn rollback(State(state): State<Shared>, Json(body): Json<Body>) -> Response {
    let heard = Heard::Rollback(RollbackRequest {
        origin: Some(body.origin()),
        output: kept(body.output.as_deref()),
        compensate: body.compensate,
        transaction_id: body.transaction_id,
        branch: body.branch,
        decision_number: body.decision_number,
    });
    answer(&state, heard).await
}

async fn answer(state: &Shared, heard: Heard) -> Response {
    let asked = heard.clone();
    let Some(reply) = reply(state, heard).await else {
        return std::future::pending().await;
    };
    let coded = |status: StatusCode, code: &str| {
        let body: Value = json!({ "code": code, "message": "the script says so" });
        (status, Json(body)).into_response()
    };
    let mut response = match (&asked, reply) {
        (Heard::Prepare(_), Reply::Promise(output)) => match output.and_then(|it| it.kind) {
            Some(Kind::Typed(text)) => (StatusCode::OK, text).into_response(),
            _ => StatusCode::OK.into_response(),
        },
        (Heard::Prepare(_), Reply::Refuse(code)) => coded(StatusCode::CONFLICT, &code),
        (Heard::Commit(_), Reply::Committed) | (Heard::Rollback(_), Reply::RolledBack) => {
            StatusCode::OK.into_response()
        }
        (Heard::Commit(_) | Heard::Rollback(_), Reply::Unknown) => {
            coded(StatusCode::NOT_FOUND, "UNKNOWN_BRANCH")
        }
        (Heard::Commit(_), Reply::RolledBack) => coded(StatusCode::CONFLICT, "ROLLED_BACK"),
        (Heard::Rollback(_), Reply::Committed) => coded(StatusCode::CONFLICT, "COMMITTED"),
        (_, Reply::Http(status, headers, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                if let Ok(value) = value.parse() {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        (_, Reply::Fenced(epoch)) => {
            let refused = coded(StatusCode::PRECONDITION_FAILED, "FENCED");
            ([("dtc-epoch", epoch.to_string())], refused).into_response()
        }
        (_, Reply::Failed(message)) => (StatusCode::INTERNAL_SERVER_ERROR, message).into_response(),
        (_, reply) => {
            let message = misfit(&reply).message().to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    };
    let (journal, votes_name_it) = {
        let state = lock(state);
        (state.journal_id.to_string(), state.votes_name_it)
    };
    let named = votes_name_it || !matches!(asked, Heard::Prepare(_));
    if let Some(journal) = journal.parse().ok().filter(|_| named) {
        response.headers_mut().insert("dtc-journal-id", journal);
    }
    response
}
