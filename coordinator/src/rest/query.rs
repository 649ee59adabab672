//! Reading a query.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// What stands behind the `?`; a problem names the field.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(read)| Self(read)).map_err(|rejection| {
            let said = rejection.body_text();
            let said = said.trim_start_matches("Failed to deserialize query string: ");
            // "field: what is wrong with it"
            match said.split_once(": ") {
                Some((field, problem)) if !field.contains(' ') => Problem::invalid(field, problem),
                _ => Problem::invalid("query", said),
            }
        })
    }
}
