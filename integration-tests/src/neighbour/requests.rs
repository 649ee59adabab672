//! The neighbour over HTTP.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;

use super::book::{Asked, Call};
use super::{Neighbour, Said};
use crate::fake_participant::Body;

/// What proxies and frameworks answer for reasons of their own.
const STATUSES: [u16; 16] =
    [503, 502, 500, 504, 429, 404, 409, 412, 204, 202, 400, 401, 403, 302, 408, 425];

pub(super) fn router(neighbour: Neighbour) -> Router {
    Router::new().route("/{call}", post(called)).with_state(neighbour)
}

async fn called(
    State(neighbour): State<Neighbour>,
    Path(call): Path<String>,
    Json(body): Json<Body>,
) -> Response {
    let call = match call.as_str() {
        "prepare" => Call::Prepare,
        "commit" => Call::Commit,
        "rollback" => Call::Rollback,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let epoch = body.epoch;
    let origin = body.origin();
    let content = if call == Call::Prepare { body.payload } else { body.output };
    let asked = Asked {
        call,
        origin,
        transaction: body.transaction_id.parse().unwrap_or_default(),
        branch: body.branch,
        content: content.map(|text| text.get().as_bytes().to_vec()),
    };
    let (said, trouble) = neighbour.answer(&asked).await;
    let mut response = match trouble {
        Some(which) => other(&neighbour, call, said.as_ref(), which, epoch),
        None => said.map_or_else(|| StatusCode::OK.into_response(), own),
    };
    if trouble.is_none()
        && let Ok(journal) = HeaderValue::from_str(&neighbour.journal())
    {
        response.headers_mut().insert("dtc-journal-id", journal);
    }
    response
}

/// What its books say.
fn own(said: Said) -> Response {
    let coded = |code: &str| {
        let body = json!({ "code": code, "message": "the books say so" });
        (StatusCode::CONFLICT, Json(body)).into_response()
    };
    match said {
        // A JSON text of so many bytes, with its quotes.
        Said::Promised(bytes) => text(bytes).into_response(),
        Said::Refused => coded("SOLD_OUT"),
        Said::Committed | Said::RolledBack => StatusCode::OK.into_response(),
        Said::Unknown => {
            let body = json!({ "code": "UNKNOWN_BRANCH", "message": "the books say so" });
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
        Said::Fenced(epoch) => fenced(epoch),
    }
}

fn text(bytes: usize) -> String {
    format!("\"{}\"", "y".repeat(bytes.saturating_sub(2)))
}

fn fenced(epoch: u64) -> Response {
    let mut response = StatusCode::PRECONDITION_FAILED.into_response();
    response.headers_mut().insert("dtc-epoch", epoch.into());
    response
}

/// What something between answers instead.
fn other(
    neighbour: &Neighbour,
    call: Call,
    said: Option<&Said>,
    which: u32,
    epoch: u64,
) -> Response {
    let status = STATUSES[which as usize % STATUSES.len()];
    let is_refusal = said.is_some_and(|said| *said == Said::Refused);
    match status {
        // To prepare it is 'no' by itself: only where that is so.
        409 if call == Call::Prepare && !is_refusal => StatusCode::BAD_GATEWAY.into_response(),
        412 if neighbour.manners.forges => fenced(match which % 3 {
            0 => epoch,
            1 => epoch + 1,
            _ => 99,
        }),
        status => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let body = if status == StatusCode::NO_CONTENT { "" } else { "something between" };
            (status, body).into_response()
        }
    }
}
