//! `/metrics` in Prometheus' text format.

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};

/// The route, for what is in `registry` and the process's own metrics.
pub(crate) fn router(registry: Registry) -> Result<Router, prometheus::Error> {
    register_process(&registry)?;
    Ok(Router::new().route("/metrics", get(move || async move { page(&registry) })))
}

#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) -> Result<(), prometheus::Error> {
    registry.register(Box::new(crate::process_metrics::ProcessMetrics::new()))
}

#[cfg(not(target_os = "linux"))]
fn register_process(_: &Registry) -> Result<(), prometheus::Error> {
    Ok(())
}

fn page(registry: &Registry) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
