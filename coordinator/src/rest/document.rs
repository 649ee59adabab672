//! The API's description, made from the code, and a page to read it on.

use axum::Router;
use utoipa::openapi::{Info, OpenApi, OpenApiBuilder, tag::TagBuilder};
use utoipa_swagger_ui::SwaggerUi;

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
        tag("participants", "Who takes part, by name."),
    ];
    OpenApiBuilder::new().info(info).tags(Some(tags)).build()
}

/// The document at `/openapi.json`, the page at `/docs`.
pub(super) fn router(document: OpenApi) -> Router {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}
