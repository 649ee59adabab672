use std::sync::Mutex;

use dtc_proto::dtc::{
    BranchOutcome, GetOutcomeRequest, GetOutcomeResponse,
    recovery_service_server::{RecoveryService, RecoveryServiceServer},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Response, transport::Server};

use super::*;

/// Answers as it was set to.
#[derive(Clone)]
struct Oracle(Arc<Mutex<GetOutcomeResponse>>);

#[tonic::async_trait]
impl RecoveryService for Oracle {
    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<GetOutcomeResponse>, Status> {
        let request = request.into_inner();
        assert_eq!((request.coordinator_id, request.epoch), (coordinator().to_string(), 5));
        Ok(Response::new(self.0.lock().unwrap().clone()))
    }
}

impl Oracle {
    fn says(outcome: BranchOutcome, origin: dtc::Origin) -> GetOutcomeResponse {
        GetOutcomeResponse {
            outcome: outcome.into(),
            decision_number: 1,
            output: None,
            origin: Some(origin),
        }
    }

    async fn serve(first: GetOutcomeResponse) -> (Self, String) {
        let oracle = Self(Arc::new(Mutex::new(first)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(RecoveryServiceServer::new(oracle.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (oracle, address)
    }
}

#[tokio::test]
async fn without_a_link_the_address_that_came_with_the_branch_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let newer = dtc::Origin { epoch: 6, ..origin() };
    let (_, address) = Oracle::serve(Oracle::says(BranchOutcome::Committed, newer)).await;
    let bench = Bench::open(&folder).await.with_tasks();
    let origin = dtc::Origin { recovery_address: address, ..origin() };
    bench.send(PrepareRequest { origin: Some(origin), ..prepare(1, 30) }).await.unwrap();
    bench.wait_for_till((70, 0)).await;
    bench.close().await;
}

#[tokio::test]
async fn without_an_address_the_configured_coordinator_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let answer = Oracle::says(BranchOutcome::Aborted, origin());
    let (_, address) = Oracle::serve(answer).await;
    let coordinator = Some(tonic::transport::Endpoint::from_shared(address).unwrap());
    let limits = Limits { coordinator, ..limits() };
    let bench = Bench::open_with(folder.path(), limits, options()).await.with_tasks();
    bench.prepare(1, 30).await;
    bench.wait_for_till((100, 0)).await;
    bench.close().await;
}

#[tokio::test]
async fn the_word_of_another_coordinator_or_an_old_run_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let other =
        dtc::Origin { coordinator_id: CoordinatorId::from_bytes([7; 16]).to_string(), ..origin() };
    let (oracle, address) = Oracle::serve(Oracle::says(BranchOutcome::Aborted, other)).await;
    let bench = Bench::open(&folder).await.with_tasks();
    let known = dtc::Origin { recovery_address: address, ..origin() };
    bench.send(PrepareRequest { origin: Some(known), ..prepare(1, 30) }).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.engine.metrics.not_mine.get() == 0 {
        assert!(Instant::now() < deadline, "the branch is reported");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.till().await, (100, 30));

    let old = dtc::Origin { epoch: 4, ..origin() };
    *oracle.0.lock().unwrap() = Oracle::says(BranchOutcome::Aborted, old);
    while bench.engine.metrics.stale_refusals.get() == 0 {
        assert!(Instant::now() < deadline, "the old run is refused");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.till().await, (100, 30));

    *oracle.0.lock().unwrap() = Oracle::says(BranchOutcome::Committed, origin());
    bench.wait_for_till((70, 0)).await;
    while bench.engine.metrics.not_mine.get() == 1 {
        assert!(Instant::now() < deadline, "it is no longer reported");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.close().await;
}

#[tokio::test]
async fn pending_of_another_coordinator_is_reported_too() {
    let folder = tempfile::tempdir().unwrap();
    let other =
        dtc::Origin { coordinator_id: CoordinatorId::from_bytes([7; 16]).to_string(), ..origin() };
    let (_oracle, address) = Oracle::serve(Oracle::says(BranchOutcome::Pending, other)).await;
    let bench = Bench::open(&folder).await.with_tasks();
    let known = dtc::Origin { recovery_address: address, ..origin() };
    bench.send(PrepareRequest { origin: Some(known), ..prepare(1, 30) }).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.engine.metrics.not_mine.get() == 0 {
        assert!(Instant::now() < deadline, "the branch is reported");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.till().await, (100, 30));
    bench.close().await;
}
