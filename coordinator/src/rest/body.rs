//! Reading a JSON body.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use proto::json::{self, ReadError};
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
        json::read(&bytes).map(Self).map_err(|error| match error {
            ReadError::Misfit(misfit) => Problem::invalid(misfit.field(""), misfit.problem()),
            ReadError::Syntax(error) => {
                let detail = format!("the body is no JSON: {error}");
                Problem::unreadable(StatusCode::BAD_REQUEST, detail)
            }
        })
    }
}

/// A value as a type; a problem names the field.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "the body".into() } else { path };
        Problem::invalid(field, in_json_words(&error.into_inner().to_string()))
    })
}

/// serde speaks of Rust's types.
fn in_json_words(problem: &str) -> String {
    problem
        .replace("expected u64", "expected a whole number from 0 to 9007199254740991")
        .replace("expected u32", "expected a whole number from 0 to 4294967295")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let value = json::read(b"[1000.0, 2e3, -0.0, 3]").unwrap();
        assert_eq!(read::<Vec<u64>>(value).ok(), Some(vec![1000, 2000, 0, 3]));
        for wrong in ["[0.5]", "[-1.0]"] {
            let value = json::read(wrong.as_bytes()).unwrap();
            assert!(read::<Vec<u64>>(value).is_err(), "{wrong}");
        }
    }
}
