//! Why a request is refused, as RFC 9457 tells it; the one mapping to HTTP.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use dtc::{api::Error, journal::JournalError};

pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// What is wrong, for programs and for people (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What kind of problem it is: `urn:dtc:` and the code in lower case.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong with this request, with the value, and what would be right.
    detail: String,
    /// A short constant, such as INVALID_ARGUMENT.
    code: &'static str,
    /// The field at fault, such as `branches[0].participant`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        let kind = format!("urn:dtc:{}", code.to_lowercase().replace('_', "-"));
        Self { kind, title, status: status.as_u16(), detail, code, field: None }
    }

    /// A field is wrong.
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::invalid(field, problem).into()
    }

    /// Where the wire has the body within a field: the body's field.
    pub(super) fn without(self, prefix: &str) -> Self {
        let field = self.field.map(|field| field.strip_prefix(prefix).unwrap_or(&field).into());
        Self { field, ..self }
    }

    /// The body can't be read at all.
    pub(super) fn unreadable(status: StatusCode, detail: String) -> Self {
        let title = "The request cannot be read";
        Self::new(status, "UNREADABLE_REQUEST", title, detail)
    }

    pub(super) fn method_not_allowed(uri: &Uri) -> Self {
        let detail = format!("{} has other methods: see Allow, or /docs", uri.path());
        let title = "There is no such method here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", title, detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, code, title) = match &error {
            Error::Invalid { .. } => {
                (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "A field is wrong")
            }
            Error::NotAllowed { .. } => {
                (StatusCode::FORBIDDEN, "PARTICIPANT_NOT_ALLOWED", "The address may not be called")
            }
            Error::NotOpen { .. } => (
                StatusCode::CONFLICT,
                "PARTICIPANT_NOT_OPEN",
                "The participant takes no new transactions",
            ),
            Error::UnknownParticipant(_) => {
                (StatusCode::NOT_FOUND, "UNKNOWN_PARTICIPANT", "There is no such participant")
            }
            Error::StillUnfinished { .. } => {
                (StatusCode::CONFLICT, "PARTICIPANT_UNFINISHED", "The participant is still needed")
            }
            Error::Exhausted(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "LIMIT", "A limit would be exceeded")
            }
            Error::Full(_) => {
                (StatusCode::CONFLICT, "LIMIT", "The transaction has all it may have")
            }
            Error::KeyTaken(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "REQUEST_KEY_TAKEN",
                "Another request has the idempotency key",
            ),
            Error::UnknownTransaction(_) | Error::UnknownKey(_) => {
                (StatusCode::NOT_FOUND, "UNKNOWN_TRANSACTION", "There is no such transaction")
            }
            Error::WrongState { .. } => {
                (StatusCode::CONFLICT, "WRONG_STATE", "The transaction's state forbids it")
            }
            Error::Deadlock { .. } => {
                (StatusCode::CONFLICT, "DEADLOCK", "The locks would close a circle of waits")
            }
            Error::LockTimeout(_) => {
                (StatusCode::CONFLICT, "LOCK_TIMEOUT", "The locks were not to be had in time")
            }
            Error::WaitsForLocks => {
                (StatusCode::CONFLICT, "WAITS_FOR_LOCKS", "The transaction waits for locks")
            }
            Error::UnknownSession(_) => {
                (StatusCode::NOT_FOUND, "UNKNOWN_SESSION", "There is no such session")
            }
            Error::Journal(JournalError::Damaged(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "JOURNAL_DAMAGED", "The journal is damaged")
            }
            Error::Journal(JournalError::Failed(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "JOURNAL", "The journal failed")
            }
            Error::Stopping | Error::Journal(JournalError::Closed) => {
                (StatusCode::SERVICE_UNAVAILABLE, "STOPPING", "The coordinator is being stopped")
            }
        };
        let problem = Self::new(status, code, title, error.to_string());
        match error {
            Error::Invalid { field, problem: detail } => {
                Self { field: Some(in_millis(field)), detail, ..problem }
            }
            Error::NotAllowed { field, .. } | Error::NotOpen { field, .. } => {
                Self { field: Some(field), ..problem }
            }
            _ => problem,
        }
    }
}

/// Fields that are durations in the API are milliseconds here, and named so.
fn in_millis(field: String) -> String {
    let name = field.rsplit('.').next().unwrap_or_default();
    let is_duration =
        name.ends_with("_timeout") || ["lock_wait", "link_grace", "lease"].contains(&name);
    if is_duration { field + "_ms" } else { field }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
