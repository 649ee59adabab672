//! HTTP/JSON at the edge: the same calls as gRPC's, in HTTP's words, over [`dtc::api`].
//!
//! Bodies are converted here once, and answers shown here.

mod body;
mod document;
mod locks;
mod operator;
mod participants;
mod primitives;
mod problem;
mod query;
mod request;
mod schema;
mod transactions;
mod view;
mod wait;
mod watch;

use axum::{Router, http::Uri};
use dtc_protocol::TransactionId;
use utoipa_axum::{router::OpenApiRouter, routes};

use dtc::api::{Coordinator, parse_id};
use problem::Problem;

/// Everything that can be asked of the coordinator, its description at
/// `/openapi.json`, and a page to read that at `/docs`.
pub(crate) fn router(coordinator: Coordinator) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(document::head())
        .routes(routes!(transactions::create, transactions::list))
        .routes(routes!(transactions::get))
        .routes(routes!(transactions::get_by_key))
        .routes(routes!(watch::watch))
        .routes(routes!(transactions::enlist))
        .routes(routes!(transactions::prepare))
        .routes(routes!(transactions::commit))
        .routes(routes!(transactions::rollback))
        .routes(routes!(operator::resolve))
        .routes(routes!(operator::retry))
        .routes(routes!(operator::abandon))
        .routes(routes!(operator::forget))
        .routes(routes!(locks::lock))
        .routes(routes!(locks::begin))
        .routes(routes!(locks::renew))
        .routes(routes!(locks::release))
        .routes(routes!(locks::list))
        .routes(routes!(participants::list))
        .routes(routes!(participants::get, participants::register, participants::deregister))
        .routes(routes!(participants::renew))
        .split_for_parts();
    router
        .with_state(coordinator)
        .merge(document::router(document))
        .method_not_allowed_fallback(|uri: Uri| async move { Problem::method_not_allowed(&uri) })
}

fn id_of(text: &str) -> Result<TransactionId, Problem> {
    Ok(parse_id("transaction_id", text)?)
}
