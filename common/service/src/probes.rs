//! `/healthz` and `/readyz`, for whoever starts, watches and stops processes.
//!
//! Both are there only once recovery is complete: before, nothing is served.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

/// Whether there is room on the disk for new work.
///
/// # Errors
///
/// When there is not.
pub fn enough_room(has_room: bool) -> Result<(), String> {
    match has_room {
        true => Ok(()),
        false => Err("too little disk space is free (--min-free): new work is refused, \
                      unfinished transactions go on"
            .into()),
    }
}

/// Whether new work is taken; an error says why it is not.
#[derive(Clone)]
pub(crate) struct Readiness {
    check: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    draining: Arc<AtomicBool>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readiness").field("draining", &self.draining).finish()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new(|| Ok(()))
    }
}

impl Readiness {
    pub(crate) fn new(check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), draining: Arc::default() }
    }

    /// From here on nothing new is taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Result<(), String> {
        match self.draining.load(Ordering::Relaxed) {
            true => Err("it is being stopped".into()),
            false => (self.check)(),
        }
    }
}

pub(crate) fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { answer(readiness.now()) }))
        .method_not_allowed_fallback(|| async {
            let (code, detail) = ("METHOD_NOT_ALLOWED", "a probe has GET and HEAD only");
            problem(StatusCode::METHOD_NOT_ALLOWED, code, "There is no such method here", detail)
        })
}

fn answer(ready: Result<(), String>) -> Response {
    match ready {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            problem(status, "NOT_READY", "No new work is taken", &reason)
        }
    }
}

/// RFC 9457.
fn problem(status: StatusCode, code: &str, title: &str, detail: &str) -> Response {
    let problem = serde_json::json!({
        "type": format!("urn:dtc:{}", code.to_lowercase().replace('_', "-")),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_its_check_until_it_is_drained() {
        let room = Arc::new(AtomicBool::new(true));
        let check = Arc::clone(&room);
        let readiness = Readiness::new(move || match check.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("no room".into()),
        });
        assert_eq!(answer(readiness.now()).status(), StatusCode::OK);
        room.store(false, Ordering::Relaxed);
        assert_eq!(readiness.now(), Err("no room".into()));
        assert_eq!(answer(readiness.now()).status(), StatusCode::SERVICE_UNAVAILABLE);
        room.store(true, Ordering::Relaxed);
        assert_eq!(readiness.now(), Ok(()));
        readiness.drain();
        assert!(readiness.now().is_err_and(|reason| reason.contains("stopped")));
    }
}
