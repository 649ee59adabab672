//! One port for everything.
//!
//! Invariants:
//! - The port file is written, and health says SERVING, only when requests are
//!   accepted.
//! - After the shutdown has begun no connection is accepted, and serving ends
//!   within the drain timeout.

use std::{
    future::ready,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    http::{Request, StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use prometheus::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Layer;

use dtc_runtime::{Listener, Stream};

use crate::{
    ServiceArgs, ServiceError,
    accepting::{Accepting, LIVENESS},
    counting::Counting,
    intake::{Intake, Share},
    metrics,
    probes::{self, Readiness},
    reflection,
};

const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const STREAMS: u32 = 10_000;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes with which HTTP/2 begins; no request of HTTP/1 is much shorter.
const PREFACE: usize = 24;
const HEADER_BYTES: u32 = 64 << 10;
const HEADERS: usize = 100;
/// Out of file descriptors, say: what frees some is other connections' ending.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One port: gRPC services with reflection and health, HTTP, probes and `/metrics`.
#[derive(Debug)]
pub struct Server {
    routes: Routes,
    http: Router,
    registry: Registry,
    service_names: Vec<String>,
    descriptors: Vec<&'static [u8]>,
    readiness: Readiness,
    port_file: Option<PathBuf>,
    drain_timeout: Duration,
    accepting: Option<Accepting>,
}

impl Server {
    /// With nothing but reflection, health and the process's own metrics.
    pub fn new(args: &ServiceArgs) -> Self {
        Self {
            routes: Routes::default(),
            http: Router::new(),
            registry: Registry::new(),
            service_names: Vec::new(),
            descriptors: Vec::new(),
            readiness: Readiness::default(),
            port_file: args.port_file.clone(),
            drain_timeout: args.drain_timeout,
            accepting: None,
        }
    }

    /// The gRPC services.
    #[must_use]
    pub fn grpc(self, routes: Routes) -> Self {
        Self { routes, ..self }
    }

    /// What else is served over HTTP.
    #[must_use]
    pub fn http(self, http: Router) -> Self {
        Self { http, ..self }
    }

    /// What `/metrics` shows beside the process's own metrics.
    #[must_use]
    pub fn registry(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// Full names of the gRPC services, such as `dtc.v1.TransactionService`:
    /// what reflection lists and health answers for.
    #[must_use]
    pub fn service_names(self, names: &[&str]) -> Self {
        Self { service_names: names.iter().map(|&name| name.into()).collect(), ..self }
    }

    /// An encoded `FileDescriptorSet` that describes some of the services, beside those
    /// given before.
    #[must_use]
    pub fn descriptors(mut self, encoded: &'static [u8]) -> Self {
        self.descriptors.push(encoded);
        self
    }

    /// Whether new work is accepted, asked several times a second; an error says why it is
    /// not. Then health says NOT_SERVING, but for the service [`LIVENESS`], and `/readyz`
    /// 503 with the reason.
    #[must_use]
    pub fn accepting(self, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        let readiness = Readiness::new(check);
        let checked = readiness.clone();
        let accepting = Some(Accepting::new(move || checked.now().is_ok()));
        Self { readiness, accepting, ..self }
    }

    /// Serves until `shutdown` resolves; then lets what is being served finish,
    /// for the drain timeout at most. Streams that don't end by themselves have
    /// to watch the shutdown too (see [`Shutdown`](dtc_runtime::Shutdown)).
    ///
    /// # Errors
    ///
    /// [`ServiceError`], before anything is served.
    pub async fn serve(
        self,
        listener: Box<dyn Listener>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServiceError> {
        let (mut health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(LIVENESS, ServingStatus::Serving).await;
        let accepting = self.accepting.unwrap_or_else(|| Accepting::new(|| true));
        accepting.register(&self.registry)?;
        let names: Vec<String> =
            self.service_names.iter().cloned().chain([String::new()]).collect();
        accepting.show(&health, &names).await;
        let watching = tokio::spawn(accepting.watch(health.clone(), names));
        let routes = self.routes.add_service(health_service);
        let routes = reflection::add_to(routes, &self.service_names, &self.descriptors)?;
        let router = routes
            .into_axum_router()
            .merge(metrics::router(self.registry)?)
            .merge(probes::router(self.readiness.clone()))
            .merge(self.http)
            .fallback(not_found)
            .layer(middleware::map_request(|request| ready(Share::count(request))))
            .with_state(());
        announce(&*listener, self.port_file)?;

        let connections = accept(listener, router, shutdown).await;
        watching.abort();
        let _ = watching.await;
        self.readiness.drain();
        tracing::info!(connections = connections.tasks.len(), "draining");
        end_health(&mut health, &self.service_names).await;
        connections.drain(self.drain_timeout).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Where a request came from: among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What is open when accepting ends.
struct Connections {
    tasks: JoinSet<()>,
    /// Cancelled when they are to finish what they serve, and begin nothing.
    finish: CancellationToken,
    intake: Intake,
}

impl Connections {
    async fn drain(mut self, limit: Duration) {
        self.finish.cancel();
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!(?limit, "some requests took longer than the drain timeout; dropped");
        }
        self.tasks.shutdown().await;
    }
}

async fn accept(
    mut listener: Box<dyn Listener>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> Connections {
    let builder = connection_builder();
    let mut open = Connections {
        tasks: JoinSet::new(),
        finish: CancellationToken::new(),
        intake: Intake::default(),
    };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return open,
            Some(_) = open.tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => open.start(&builder, stream, peer, router.clone()),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

impl Connections {
    fn start(
        &mut self,
        builder: &auto::Builder<TokioExecutor>,
        stream: Box<dyn Stream>,
        peer: SocketAddr,
        router: Router,
    ) {
        let router = Extension(self.intake.share()).layer(router);
        let service = TowerToHyperService::new(Extension(Peer(peer)).layer(router));
        let (stream, read) = Counting::new(stream);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let finish = self.finish.clone();
        self.tasks.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = finish.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = says_nothing(read) => {
                    tracing::debug!(%peer, "a connection was closed: requests arrived too slowly");
                    return;
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended with an error");
            }
        });
    }
}

/// Resolves when it is not clear in time which HTTP is spoken: hyper waits for
/// that without a limit.
async fn says_nothing(read: Arc<AtomicUsize>) {
    tokio::time::sleep(HEADER_TIMEOUT).await;
    if read.load(Ordering::Relaxed) >= PREFACE {
        std::future::pending::<()>().await;
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_header_list_size(HEADER_BYTES)
        .auto_date_header(false);
    builder
}

fn announce(listener: &dyn Listener, port_file: Option<PathBuf>) -> Result<(), ServiceError> {
    let address = listener.local_addr().ok();
    if let (Some(path), Some(address)) = (port_file, address) {
        write_port(&path, address.port())
            .map_err(|cause| ServiceError::PortFile { path, cause })?;
    }
    let address = address.map(tracing::field::display);
    tracing::info!(address, "serving");
    Ok(())
}

/// Whoever sees the file can read the whole of it: it is renamed into place.
fn write_port(path: &std::path::Path, port: u16) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    std::fs::write(&unfinished, format!("{port}\n"))?;
    std::fs::rename(&unfinished, path)
}

/// Watchers are told NOT_SERVING, and their streams end: they would hold up the
/// drain otherwise.
async fn end_health(health: &mut HealthReporter, service_names: &[String]) {
    for name in service_names.iter().map(String::as_str).chain(["", LIVENESS]) {
        health.set_service_status(name, ServingStatus::NotServing).await;
        health.clear_service_status(name).await;
    }
}

async fn not_found<B>(request: Request<B>) -> Response {
    let path = request.uri().path();
    let content_type = request.headers().get(CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented(format!(
            "{path} is no method of this service; `grpcurl -plaintext HOST:PORT list` shows what there is"
        ))
        .into_http();
    }
    let status = StatusCode::NOT_FOUND;
    // RFC 9457.
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": "Not Found",
        "status": status.as_u16(),
        "detail": format!(
            "there is nothing at {path}; this port serves gRPC (`grpcurl -plaintext HOST:PORT list` \
             shows the services), /healthz, /readyz and /metrics, and a coordinator's has /docs"
        ),
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}
