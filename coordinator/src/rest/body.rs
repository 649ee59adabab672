//! Reading a JSON body.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use bytes::BytesMut;
use dtc_proto::json::{self, ReadError};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;
use dtc::api::MAX_REQUEST;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read of a body, though not kept: a client that is cut off while it
/// sends may not see why.
const DRAINED: usize = 4 * MAX_REQUEST;

/// A body that is JSON; null where there is none.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let late = |_| {
            let detail = format!("the body did not come within {PATIENCE:?}");
            Problem::unreadable(StatusCode::REQUEST_TIMEOUT, detail)
        };
        let bytes = tokio::time::timeout(PATIENCE, collect(request.into_body()));
        let bytes = bytes.await.map_err(late)??;
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

async fn collect(mut body: Body) -> Result<BytesMut, Problem> {
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while length <= DRAINED
        && let Some(frame) = body.frame().await
    {
        let broken = |error| {
            let detail = format!("the body cannot be read: {error}");
            Problem::unreadable(StatusCode::BAD_REQUEST, detail)
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        match length <= MAX_REQUEST {
            true => bytes.extend_from_slice(&data),
            false => bytes.clear(),
        }
    }
    if length > MAX_REQUEST {
        let detail = format!("the body is longer than {MAX_REQUEST} bytes; send less at once");
        return Err(Problem::unreadable(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    Ok(bytes)
}

/// An object as a type; a problem names the field.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    refuse_arrays_for_objects(&value)?;
    deserialize(value)
}

/// An array as a list; a problem names the item.
pub(super) fn read_list<T: DeserializeOwned>(value: Value) -> Result<Vec<T>, Problem> {
    deserialize(value)
}

fn deserialize<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "the body".into() } else { path };
        Problem::invalid(field, in_json_words(&error.into_inner().to_string()))
    })
}

/// serde takes an array for a struct, its fields in their order.
fn refuse_arrays_for_objects(value: &Value) -> Result<(), Problem> {
    let refuse = |field: String| Err(Problem::invalid(field, "is an array; give an object"));
    if value.is_array() {
        return refuse("the body".into());
    }
    if value.get("options").is_some_and(Value::is_array) {
        return refuse("options".into());
    }
    for list in ["branches", "locks"] {
        let items = value.get(list).and_then(Value::as_array);
        if let Some(index) = items.and_then(|items| items.iter().position(Value::is_array)) {
            return refuse(format!("{list}[{index}]"));
        }
    }
    Ok(())
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
    fn an_array_is_no_object() {
        for wrong in
            [r#"{"options": [null]}"#, r#"{"branches": [["a"]]}"#, r#"{"locks": [[]]}"#, "[1]"]
        {
            let value = json::read(wrong.as_bytes()).unwrap();
            assert!(read::<Value>(value).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let value = json::read(b"[1000.0, 2e3, -0.0, 3]").unwrap();
        assert_eq!(read_list::<u64>(value).ok(), Some(vec![1000, 2000, 0, 3]));
        for wrong in ["[0.5]", "[-1.0]"] {
            let value = json::read(wrong.as_bytes()).unwrap();
            assert!(read_list::<u64>(value).is_err(), "{wrong}");
        }
    }
}
