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
use crate::json;

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

/// JSON has one kind of number, of which 1000.0 is the same as 1000.
fn spell_whole_numbers(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(spell_whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(spell_whole_numbers),
        Value::Number(number) if number.is_f64() => {
            let whole =
                number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() <= json::EXACT as f64);
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        _ => {}
    }
}

/// A value as a type; a problem names the field.
pub(super) fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, Problem> {
    spell_whole_numbers(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "the body".into() } else { path };
        Problem::invalid(field, error.into_inner().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let value = serde_json::from_str("[1000.0, 2e3, -0.0, 3]").unwrap();
        assert_eq!(read::<Vec<u64>>(value).ok(), Some(vec![1000, 2000, 0, 3]));
        for wrong in ["[0.5]", "[1e300]", "[-1.0]"] {
            assert!(read::<Vec<u64>>(serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
    }
}
