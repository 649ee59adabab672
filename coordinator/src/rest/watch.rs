//! `/transactions/{id}/watch`: a transaction as it goes on, as server-sent events.

use std::convert::Infallible;

use axum::{
    extract::{Path, State},
    response::sse::{Event, KeepAlive, Sse},
};
use dtc::api::{self, Coordinator, Watch};
use futures::{Stream, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    id_of,
    problem::Problem,
    view::{TrailEvent, Transaction},
};

/// A transaction after one of its events: the data of an event `update`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Update {
    /// Its present state.
    transaction: Transaction,
    /// The event since the update before; absent in the first update.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<TrailEvent>,
}

/// An event of the stream.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what axum writes")]
pub(super) struct WatchEvent {
    event: WatchEventKind,
    /// JSON: an `Update`, or a `Problem`.
    data: String,
}

/// What an event's data is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes what axum writes")]
pub(super) enum WatchEventKind {
    /// An `Update`.
    Update,
    /// A `Problem`; the last event.
    Problem,
}

impl From<api::Update> for Update {
    fn from(update: api::Update) -> Self {
        let event = update.event.map(TrailEvent::from);
        Self { transaction: update.transaction.into(), event }
    }
}

/// Watch a transaction
///
/// Server-sent events: an `update` now and after each of its events, until it has finished. An
/// event `problem` ends the stream early.
#[utoipa::path(
    get, path = "/transactions/{id}/watch", operation_id = "watchTransaction", tag = "transactions",
    params(("id" = String, Path, format = "uuid", description = "The transaction.")),
    responses(
        (status = 200, description = "Its updates.", body = WatchEvent, content_type = "text/event-stream"),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn watch(
    State(coordinator): State<Coordinator>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let watch = coordinator.watch(id_of(&id)?).await?;
    Ok(Sse::new(stream::unfold(watch, next)).keep_alive(KeepAlive::default()))
}

async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    let event = match watch.next().await {
        Ok(update) => Event::default().event("update").json_data(Update::from(update?)),
        Err(error) => Event::default().event("problem").json_data(Problem::from(error)),
    };
    // What is shown is made of texts and numbers.
    let event = event.unwrap_or_else(|error| unreachable!("no JSON: {error}"));
    Some((Ok(event), watch))
}
