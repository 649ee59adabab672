//! A server on a real port, seen by real clients.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use dtc_runtime::{Environment, Exit, Shutdown};
use dtc_service::{Server, ServiceArgs, ServiceError, bind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

const SERVICE: &str = "shop.v1.OrderService";
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
}

fn args(more: &[&str]) -> ServiceArgs {
    let args = ["service", "--listen", "127.0.0.1:0"].iter().chain(more);
    Args::parse_from(args).service
}

struct Running {
    address: SocketAddr,
    shutdown: Shutdown,
    served: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    async fn start(more: &[&str]) -> Self {
        let args = args(more);
        let listener = bind(&Environment::real(), args.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let server = Server::new(&args)
            .service_names(&[SERVICE])
            .descriptors(shop_proto::DESCRIPTORS.encoded());
        let served = tokio::spawn(server.serve(listener, shutdown.begun()));
        Self { address, shutdown, served }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.begin();
        let served = tokio::time::timeout(DEADLINE, self.served).await.expect("it stops in time");
        served.unwrap().unwrap();
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

macro_rules! reflect {
    ($version:ident, $channel:expr, $question:ident($value:expr)) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest,
        };
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::$question($value.into())),
        };
        let mut client = ServerReflectionClient::new($channel);
        let questions = tokio_stream::once(question);
        let mut answers = client.server_reflection_info(questions).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    }};
}

macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use $version::server_reflection_response::MessageResponse;
            let server = Running::start(&[]).await;
            let channel = server.channel().await;
            let answer = reflect!($version, channel.clone(), ListServices(""));
            let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
            let mut names: Vec<_> = list.service.into_iter().map(|it| it.name).collect();
            names.sort();
            assert_eq!(
                names,
                [
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                    SERVICE,
                ]
            );
            for name in names {
                let answer =
                    reflect!($version, channel.clone(), FileContainingSymbol(name.clone()));
                let MessageResponse::FileDescriptorResponse(files) = answer else {
                    panic!("{answer:?}")
                };
                assert!(!files.file_descriptor_proto.is_empty(), "{name}");
            }
            server.stop().await;
        }
    };
}

reflection_test!(reflection_v1_lists_and_describes, v1);
reflection_test!(reflection_v1alpha_lists_and_describes, v1alpha);

#[tokio::test]
async fn health_is_serving_and_its_watchers_learn_of_the_stop() {
    let server = Running::start(&[]).await;
    let mut client = HealthClient::new(server.channel().await);
    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let request = HealthCheckRequest { service: "no.such.Service".into() };
    assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);

    let request = HealthCheckRequest { service: SERVICE.into() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.shutdown.begin();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap(), None);
    server.stop().await;
}

#[tokio::test]
async fn metrics_and_a_helpful_404_are_on_the_same_port() {
    let server = Running::start(&[]).await;
    let metrics = server.get("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    #[cfg(target_os = "linux")]
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    let missing = server.get("/orders").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.contains("/orders") && missing.contains("grpcurl"), "{missing}");
    server.stop().await;
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented() {
    let server = Running::start(&[]).await;
    let channel = server.channel().await;
    let mut client = shop_proto::order_service_client::OrderServiceClient::new(channel);
    let request = Request::new(shop_proto::GetOrderRequest::default());
    let status = client.get_order(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("GetOrder"), "{status}");
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(&Environment::real(), address).await.unwrap_err();
    assert_eq!(error.exit(), Exit::PortInUse);
    let text = error.to_string();
    assert!(text.contains(&address.port().to_string()) && text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn the_port_file_names_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("port");
    let server = Running::start(&["--port-file", path.to_str().unwrap()]).await;
    // Answered only after the file is written.
    server.get("/metrics").await;
    let port = std::fs::read_to_string(&path).unwrap();
    assert_eq!(port.trim(), server.address.port().to_string());
    server.stop().await;

    let args = args(&["--port-file", "/nowhere/at/all/port"]);
    let listener = bind(&Environment::real(), args.listen).await.unwrap();
    let error = Server::new(&args).serve(listener, std::future::pending()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Configuration);
}

/// Answers `/slow` after a while; the semaphore says when it has begun to.
async fn slow_server(drain_timeout: &str, delay: Duration) -> (Running, Arc<Semaphore>) {
    let begun = Arc::new(Semaphore::new(0));
    let handler_begun = Arc::clone(&begun);
    let args = args(&["--drain-timeout", drain_timeout]);
    let listener = bind(&Environment::real(), args.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let slow = axum::Router::new().route(
        "/slow",
        axum::routing::get(move || async move {
            handler_begun.add_permits(1);
            tokio::time::sleep(delay).await;
            "done"
        }),
    );
    let server = Server::new(&args).grpc(slow.into());
    let served = tokio::spawn(server.serve(listener, shutdown.begun()));
    (Running { address, shutdown, served }, begun)
}

#[tokio::test]
async fn what_is_being_served_is_finished_and_nothing_new_accepted() {
    let (server, begun) = slow_server("10s", Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let _ = begun.acquire().await.unwrap();
    let address = server.address;
    let idle = TcpStream::connect(address).await.unwrap();
    server.stop().await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_timeout_is_dropped() {
    let (server, begun) = slow_server("200ms", Duration::from_secs(3600)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let _ = begun.acquire().await.unwrap();
    server.stop().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}
