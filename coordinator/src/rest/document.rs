//! The API's description, made from the code, and a page to read it on.

use axum::Router;
use utoipa::{
    OpenApi as _,
    openapi::{Info, OpenApi, OpenApiBuilder, tag::TagBuilder},
};
use utoipa_swagger_ui::SwaggerUi;

use super::{problem::Problem, watch::Update};

const ABOUT: &str = "Distributed transactions over HTTP: several services, each with its own database, change \
                     together or not at all.";

/// What the paths are added to.
pub(super) fn head() -> OpenApi {
    let mut info = Info::new("Distributed transaction coordinator", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.into());
    let tag = |name, about| TagBuilder::new().name(name).description(Some(about)).build();
    let tags = [
        tag("transactions", "A whole transaction in one request, and looking at them."),
        tag("interactive", "A transaction that its client drives call by call."),
        tag(
            "operators",
            "Interventions, where the protocol waits for a participant that does not answer.",
        ),
        tag("locks", "Locks on names that clients choose, within transactions and without."),
        tag("participants", "Registered participants."),
        tag("probes", "Liveness and readiness of the process."),
    ];
    let mut document = OpenApiBuilder::new().info(info).tags(Some(tags)).build();
    document.merge(Probes::openapi());
    document
}

/// What every service serves beside its own: `dtc_service` does.
#[derive(utoipa::OpenApi)]
#[openapi(paths(healthz, readyz), components(schemas(Update)))]
struct Probes;

/// Liveness
///
/// Answers as long as the process serves.
#[utoipa::path(
    get, path = "/healthz", tag = "probes",
    responses(
        (status = 200, description = "The process serves.", body = String, content_type = "text/plain"),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[allow(dead_code, reason = "describes what dtc_service serves")]
fn healthz() {}

/// Readiness for new transactions
///
/// Not ready while it is being stopped, or while too little disk space is free; unfinished
/// transactions go on.
#[utoipa::path(
    get, path = "/readyz", tag = "probes",
    responses(
        (status = 200, description = "Ready.", body = String, content_type = "text/plain"),
        (status = 503, description = "Not ready; `detail` is the reason.", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Refused.", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[allow(dead_code, reason = "describes what dtc_service serves")]
fn readyz() {}

/// The document at `/openapi.json`, the page at `/docs`.
pub(super) fn router(document: OpenApi) -> Router {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}
