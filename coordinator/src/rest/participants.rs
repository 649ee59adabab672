//! `/participants`.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use dtc::api::Coordinator;

use super::{
    body::{self, JsonBody},
    problem::Problem,
    query::Parameters,
    request::{Leaving, NewParticipant},
    schema,
    view::{Participant, Participants},
};

/// List participants
///
/// Registered participants, and those known by their address only.
#[utoipa::path(
    get, path = "/participants", operation_id = "listParticipants", tag = "participants",
    responses(
        (status = 200, description = "All of them.", body = Participants),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(coordinator): State<Coordinator>,
) -> Result<Json<Participants>, Problem> {
    let all = coordinator.participants().await?;
    Ok(Json(Participants { participants: all.into_iter().map(Participant::from).collect() }))
}

/// Get a participant
#[utoipa::path(
    get, path = "/participants/{name}", operation_id = "getParticipant", tag = "participants",
    params(("name" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "Its present state.", body = Participant),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(coordinator): State<Coordinator>,
    Path(name): Path<String>,
) -> Result<Json<Participant>, Problem> {
    Ok(Json(coordinator.participant(&name).await?.into()))
}

/// Register a participant
///
/// Durable. A known participant moves to the new address, with all its unfinished
/// branches.
#[utoipa::path(
    put, path = "/participants/{name}", operation_id = "registerParticipant", tag = "participants",
    params(("name" = String, Path, min_length = 1, max_length = 64, pattern = "^[a-z][a-z0-9-]*$",
            description = "1 to 64 of a-z, 0-9 and '-', beginning with a letter.")),
    request_body = schema::NewParticipant,
    responses(
        (status = 200, description = "Registered.", body = Participant,
         links(
            ("look" = (operation_id = "getParticipant", parameters(("name" = "$response.body#/name")))),
            ("renew" = (operation_id = "renewRegistration", parameters(("name" = "$response.body#/name")))),
            ("deregister" = (operation_id = "deregisterParticipant", parameters(("name" = "$response.body#/name")))),
         )),
        (status = "default", description = "Not registered.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn register(
    State(coordinator): State<Coordinator>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Participant>, Problem> {
    let new = body::read::<NewParticipant>(body)?;
    let registered = coordinator.register(new.into_api(name.clone())).await;
    registered.map_err(|error| Problem::from(error).without("participant."))?;
    Ok(Json(coordinator.participant(&name).await?.into()))
}

/// Renew a registration
///
/// Its lease begins anew.
#[utoipa::path(
    post, path = "/participants/{name}/renew", operation_id = "renewRegistration", tag = "participants",
    params(("name" = String, Path, description = "The participant's name.")),
    responses(
        (status = 200, description = "Renewed.", body = Participant),
        (status = "default", description = "Not renewed.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn renew(
    State(coordinator): State<Coordinator>,
    Path(name): Path<String>,
) -> Result<Json<Participant>, Problem> {
    coordinator.renew(&name)?;
    Ok(Json(coordinator.participant(&name).await?.into()))
}

/// Deregister a participant
///
/// Refused while it has unfinished transactions, unless `drain` is set.
#[utoipa::path(
    delete, path = "/participants/{name}", operation_id = "deregisterParticipant", tag = "participants",
    params(("name" = String, Path, description = "Its name."), Leaving),
    responses(
        (status = 204, description = "Removed."),
        (status = 202, description = "Being drained.", body = Participant),
        (status = "default", description = "Not deregistered.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn deregister(
    State(coordinator): State<Coordinator>,
    Path(name): Path<String>,
    Parameters(leaving): Parameters<Leaving>,
) -> Result<Response, Problem> {
    let drain = leaving.drain.unwrap_or_default();
    if coordinator.deregister(&name, drain).await?.removed {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let participant: Participant = coordinator.participant(&name).await?.into();
    Ok((StatusCode::ACCEPTED, Json(participant)).into_response())
}
