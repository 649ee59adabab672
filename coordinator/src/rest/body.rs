//! Reading a JSON body.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that is JSON; null where there is none.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let reading = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state));
        let late = |_| {
            let detail = format!("the body did not come within {PATIENCE:?}");
            Problem::unreadable(StatusCode::REQUEST_TIMEOUT, detail)
        };
        let bytes = reading
            .await
            .map_err(late)?
            .map_err(|rejection| Problem::unreadable(rejection.status(), rejection.body_text()))?;
        if bytes.is_empty() {
            return Ok(Self(Value::Null));
        }
        let is_json =
            content_type.as_ref().and_then(|value| value.to_str().ok()).is_some_and(|it| {
                let kind = it.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                kind == "application/json" || kind.ends_with("+json")
            });
        if !is_json {
            let detail = format!(
                "Content-Type is {}; send application/json",
                content_type.as_ref().map_or("missing".into(), |it| format!("{it:?}"))
            );
            return Err(Problem::unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Problem::unreadable(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
        })
    }
}

/// A value as a type; a problem names the field.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "the body".into() } else { path };
        Problem::invalid(field, error.into_inner().to_string())
    })
}
