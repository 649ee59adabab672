//! What every one of the four serves beside its own calls.

use std::net::SocketAddr;

use integration_tests::{Cluster, Purchase, Role, Start, channel};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The value of a series without labels, or of the one with these.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{series} is not in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

macro_rules! services {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = |request| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let list = ask(MessageRequest::ListServices(String::new()));
        let file = ask(MessageRequest::FileContainingSymbol("dtc.v1.Payload".into()));
        let mut client = ServerReflectionClient::new($channel);
        let details = ["ErrorInfo", "BadRequest", "Status"];
        let details = details
            .map(|name| ask(MessageRequest::FileContainingSymbol(format!("google.rpc.{name}"))));
        let requests = tokio_stream::iter([list, file].into_iter().chain(details));
        let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        let listed = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
        let file = answers.message().await.unwrap().unwrap().message_response.unwrap();
        assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)), "{file:?}");
        for _ in 0..3 {
            let file = answers.message().await.unwrap().unwrap().message_response.unwrap();
            assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)), "{file:?}");
        }
        listed.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
    }};
}

#[tokio::test]
async fn one_whose_disk_is_nearly_full_is_alive_and_not_ready() {
    let mut cluster = Cluster::start().await.unwrap();
    for role in Role::ALL {
        let process = cluster.process(role);
        process.kill();
        process.start_with(Start::new().arg("--min-free").arg(u64::MAX.to_string())).await.unwrap();
        let address = process.address();
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"), "{role:?}");
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{role:?}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains("--min-free"), "{answer}");
    }
}

#[tokio::test]
async fn all_four_have_reflection_health_and_metrics_on_their_one_port() {
    let mut cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 5).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();
    assert!(shop.place(&Purchase::new("a", "ada", "teapot", 1, 100)).await.unwrap().committed);
    assert!(!shop.place(&Purchase::new("b", "ada", "teapot", 9, 100)).await.unwrap().committed);

    let own = |role| match role {
        Role::Coordinator => "dtc.v1.TransactionService",
        Role::Inventory => "shop.v1.InventoryService",
        Role::Payment => "shop.v1.PaymentService",
        Role::Order => "shop.v1.OrderService",
    };
    for role in Role::ALL {
        let address = cluster.process(role).address();
        let channel = channel(address);
        for names in [services!(v1, channel.clone()), services!(v1alpha, channel.clone())] {
            assert!(names.iter().any(|name| name == own(role)), "{role:?}: {names:?}");
            assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
        }
        for service in ["", own(role)] {
            let request = HealthCheckRequest { service: service.into() };
            let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{role:?} {service}");
        }
        let metrics = get(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(value(&metrics, "dtc_journal_syncs_total") > 0.0);
        assert!(value(&metrics, "dtc_journal_batch_size_count") > 0.0);
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));
        for probe in ["/healthz", "/readyz"] {
            let answer = get(address, probe).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        }
        if role == Role::Coordinator {
            assert_eq!(value(&metrics, "dtc_transactions_started_total"), 2.0);
            assert_eq!(value(&metrics, "dtc_transactions_committed_total"), 1.0);
            let aborted = "dtc_transactions_aborted_total{reason=\"OUT_OF_STOCK\"}";
            assert_eq!(value(&metrics, aborted), 1.0);
            assert_eq!(value(&metrics, "dtc_phase_one_seconds_count"), 2.0);
            for series in [
                "dtc_phase_two_seconds_count",
                "dtc_transactions_active",
                "dtc_transactions_in_doubt",
                "dtc_transactions_stalled",
                "dtc_retries_total",
                "dtc_unreachable_total",
            ] {
                value(&metrics, series);
            }
        } else {
            let votes = "dtc_participant_prepares_total{vote=\"commit\"}";
            assert!(value(&metrics, votes) >= 1.0);
            assert!(value(&metrics, "dtc_participant_commits_total") >= 1.0);
            value(&metrics, "dtc_participant_undecided");
            value(&metrics, "dtc_participant_in_doubt");
        }
    }
}
