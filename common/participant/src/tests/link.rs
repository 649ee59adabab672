use dtc_proto::dtc::{
    Acknowledgement, BranchOutcome, LinkCommit, LinkInquiry, LinkOutcome, LinkPrepare, LinkRequest,
    LinkResponse, LinkRollback, participant_service_client::ParticipantServiceClient,
    participant_service_server::ParticipantServiceServer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Streaming, transport::Server};

use super::*;

/// A coordinator's end of a link.
pub(super) struct Peer {
    pub(super) requests: mpsc::Sender<LinkRequest>,
    responses: Streaming<LinkResponse>,
}

impl<R: ResourceManager> Bench<R> {
    /// Serves it on a port of its own.
    pub(super) async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = Service { engine: Arc::clone(&self.engine) };
        let server = Server::builder().add_service(ParticipantServiceServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

impl Peer {
    async fn connect(address: &str, first: LinkRequest) -> Self {
        let mut client = ParticipantServiceClient::connect(address.to_owned()).await.unwrap();
        let (requests, stream) = mpsc::channel(100);
        requests.send(first).await.unwrap();
        let responses = client.link(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    /// After the hellos.
    pub(super) async fn greet(address: &str, hello: dtc::Origin) -> (Self, Vec<u8>) {
        let first = LinkRequest { hello: Some(hello), ..LinkRequest::default() };
        let mut peer = Self::connect(address, first).await;
        let answer = peer.receive().await.unwrap();
        (peer, answer.hello.unwrap().journal_id.to_vec())
    }

    pub(super) async fn receive(&mut self) -> Result<LinkResponse, Status> {
        let message = tokio::time::timeout(Duration::from_secs(10), self.responses.message());
        Ok(message.await.expect("an answer")?.expect("the link is open"))
    }

    pub(super) async fn ask(&mut self, request: LinkRequest) -> Result<LinkResponse, Status> {
        self.requests.send(request).await.unwrap();
        self.receive().await
    }
}

pub(super) fn id(number: u8) -> bytes::Bytes {
    transaction(number).as_bytes().to_vec().into()
}

fn prepares(numbers: &[u8], amount: i64) -> LinkRequest {
    let prepare = |&number: &u8| LinkPrepare {
        transaction_id: id(number),
        branch: 0,
        payload: Some(typed(amount)),
        ..LinkPrepare::default()
    };
    LinkRequest { prepares: numbers.iter().map(prepare).collect(), ..LinkRequest::default() }
}

fn outcome(number: u8, outcome: BranchOutcome) -> LinkOutcome {
    LinkOutcome {
        transaction_id: id(number),
        branch: 0,
        outcome: outcome.into(),
        decision_number: 1,
        output: None,
    }
}

#[tokio::test]
async fn a_link_carries_both_phases_in_batches() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let address = bench.serve().await;
    let (mut peer, journal) = Peer::greet(&address, origin()).await;
    assert_eq!(journal, bench.engine.store.identity().id);

    let votes = peer.ask(prepares(&[1, 2, 3], 40)).await.unwrap().votes;
    let votes: Vec<_> = votes.iter().map(dtc::LinkVote::vote).collect();
    assert_eq!(votes, [Vote::Commit, Vote::Commit, Vote::Abort]);

    // Phase two goes first in a batch, so that the prepare finds room.
    let decision_number = 1;
    let commit =
        LinkCommit { transaction_id: id(1), branch: 0, decision_number, ..LinkCommit::default() };
    let transaction_id = id(2);
    let rollback = LinkRollback { transaction_id, decision_number, ..LinkRollback::default() };
    let unknown = LinkCommit { transaction_id: id(9), ..commit.clone() };
    let request = LinkRequest {
        commits: vec![commit, unknown],
        rollbacks: vec![rollback],
        ..prepares(&[4], 60)
    };
    let response = peer.ask(request).await.unwrap();
    let told: Vec<_> = response
        .acknowledgements
        .iter()
        .map(|told| (told.transaction_id[0], told.acknowledgement()))
        .collect();
    let expected = [
        (1, Acknowledgement::Committed),
        (9, Acknowledgement::Unknown),
        (2, Acknowledgement::RolledBack),
    ];
    assert_eq!(told, expected);
    assert_eq!(response.votes[0].vote(), Vote::Commit);
    assert_eq!(bench.till().await, (60, 60));
    bench.close().await;
}

#[tokio::test]
async fn a_new_link_is_asked_about_everything_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    for number in 1..=4 {
        bench.prepare(number, 10).await;
    }
    bench.close().await;
    let bench = Bench::open(&folder).await.with_tasks();
    let address = bench.serve().await;
    let newer = dtc::Origin { epoch: 6, ..origin() };
    let (mut peer, _) = Peer::greet(&address, newer).await;
    let inquiries = peer.receive().await.unwrap().inquiries;
    let first =
        LinkInquiry { transaction_id: id(1), branch: 0, epoch: 5, incarnation: vec![5; 16].into() };
    assert_eq!((inquiries.len(), &inquiries[0]), (4, &first));

    let outcomes = vec![
        outcome(1, BranchOutcome::Committed),
        outcome(2, BranchOutcome::Aborted),
        outcome(3, BranchOutcome::Pending),
        outcome(4, BranchOutcome::NotMine),
    ];
    peer.requests.send(LinkRequest { outcomes, ..LinkRequest::default() }).await.unwrap();
    let mut told = Vec::new();
    let mut again = Vec::new();
    // The two that are not decided are asked about again.
    while told.len() < 2 || again.len() < 2 {
        let response = peer.receive().await.unwrap();
        told.extend(response.acknowledgements.into_iter().map(|told| told.acknowledgement()));
        again.extend(response.inquiries.into_iter().map(|inquiry| inquiry.transaction_id[0]));
    }
    assert_eq!(told, [Acknowledgement::Committed, Acknowledgement::RolledBack]);
    assert!(again.ends_with(&[3, 4]), "{again:?}");
    assert_eq!(bench.till().await, (90, 20));
    assert_eq!(bench.engine.metrics.not_mine.get(), 1);
    bench.close().await;
}

#[tokio::test]
async fn a_late_answer_about_a_decided_branch_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let address = bench.serve().await;
    let (mut peer, _) = Peer::greet(&address, origin()).await;
    bench.prepare(1, 10).await;
    bench.commit(1).await.unwrap();
    let outcomes = vec![outcome(1, BranchOutcome::Aborted), outcome(2, BranchOutcome::Aborted)];
    let request = LinkRequest { outcomes, ..prepares(&[2], 10) };
    let response = peer.ask(request).await.unwrap();
    assert_eq!(response.acknowledgements, []);
    assert_eq!(response.votes[0].vote(), Vote::Commit);
    assert_eq!(bench.till().await, (90, 10));
    bench.close().await;
}

#[tokio::test]
async fn malformed_input_ends_the_link_with_the_field_and_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let address = bench.serve().await;
    let mut peer = Peer::connect(&address, prepares(&[1], 1)).await;
    let status = peer.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("hello is missing"), "{status}");

    let (mut peer, _) = Peer::greet(&address, origin()).await;
    let mut request = prepares(&[1], 1);
    request.prepares[0].transaction_id = bytes::Bytes::from_static(&[0xAB; 5]);
    let status = peer.ask(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let expected = "prepares.transaction_id: 'ababababab' has 5 bytes; an id has 16";
    assert_eq!(status.message(), expected);
    bench.close().await;
}

#[tokio::test]
async fn the_link_of_a_replaced_run_ends() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let address = bench.serve().await;
    let (mut old, _) = Peer::greet(&address, origin()).await;
    // Only the journal knows: the newer run has called and not linked.
    let request =
        PrepareRequest { origin: Some(dtc::Origin { epoch: 6, ..origin() }), ..prepare(1, 10) };
    bench.send(request).await.unwrap();
    let status = old.ask(prepares(&[2], 10)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.metadata().get("dtc-epoch").unwrap(), "6");
    assert_eq!(bench.till().await, (100, 10));

    let stale = LinkRequest { hello: Some(origin()), ..LinkRequest::default() };
    let status = Peer::connect(&address, stale).await.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);

    let newer = dtc::Origin { epoch: 7, ..origin() };
    let (mut first, _) = Peer::greet(&address, newer.clone()).await;
    first.receive().await.expect("the question about branch 1");
    // Another name for this participant at the same coordinator: both stay.
    let (mut second, _) = Peer::greet(&address, newer).await;
    second.receive().await.expect("the question about branch 1");
    let newest = dtc::Origin { epoch: 8, ..origin() };
    let (_newest, _) = Peer::greet(&address, newest).await;
    for mut replaced in [first, second] {
        assert_eq!(replaced.receive().await.unwrap_err().code(), Code::Aborted);
    }
    bench.close().await;
}

#[tokio::test]
async fn a_link_ends_when_the_service_stops() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let address = bench.serve().await;
    let (mut peer, _) = Peer::greet(&address, origin()).await;
    bench.engine.environment.shutdown.begin();
    let end = tokio::time::timeout(Duration::from_secs(10), peer.responses.message()).await;
    assert!(end.unwrap().unwrap().is_none());
    bench.close().await;
}
