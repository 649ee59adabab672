//! The link as a stream of batches in both directions.

use dtc_proto::dtc::{
    LinkRequest, LinkResponse, Origin, participant_service_client::ParticipantServiceClient,
};
use dtc_protocol::JournalId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{Link, Lost, batch::batches, inbound};

/// Messages of one batch at most.
const BATCH: usize = 1024;
/// Batches that wait for the network; what comes meanwhile makes the next larger.
const IN_FLIGHT: usize = 4;
const HELLO_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A link that the participant has accepted.
pub(super) struct Opened {
    pub(super) journal: JournalId,
    pub(super) compensates: bool,
    requests: mpsc::Sender<LinkRequest>,
    responses: Streaming<LinkResponse>,
}

/// Opens a link and waits for the participant's hello.
pub(super) async fn open(
    mut client: ParticipantServiceClient<Channel>,
    origin: Origin,
) -> Result<Opened, Lost> {
    let (requests, queued) = mpsc::channel(IN_FLIGHT);
    let hello = LinkRequest { hello: Some(origin), ..LinkRequest::default() };
    let _ = requests.send(hello).await;
    let greet = async {
        let mut responses = client.link(ReceiverStream::new(queued)).await?.into_inner();
        let first = responses.message().await?;
        let hello = first.and_then(|response| response.hello).unwrap_or_default();
        let journal = JournalId::from_slice(&hello.journal_id).ok_or_else(|| {
            Lost::Protocol("the participant's first message is no hello with its journal".into())
        })?;
        Ok(Opened { journal, compensates: hello.compensates, requests, responses })
    };
    tokio::time::timeout(HELLO_TIMEOUT, greet)
        .await
        .unwrap_or_else(|_| Err(Lost::Protocol(format!("no hello within {HELLO_TIMEOUT:?}"))))
}

/// Works until the link is lost.
pub(super) async fn run(link: &mut Link, opened: Opened) -> Lost {
    let Opened { journal, requests, mut responses, .. } = opened;
    let (participant, handle) = (link.participant, link.handle.clone());
    let (answers, mut answered) = mpsc::channel(BATCH);
    let receive = async {
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Lost::Protocol("the participant ended the link".into()),
                Err(status) => return Lost::Status(status),
            };
            match inbound::read(participant, journal, response, &*handle.journal) {
                Ok(inbound) => {
                    handle.events(inbound.events).await;
                    for answer in inbound.answers {
                        // If there is no room, the participant asks again.
                        let _ = answers.try_send(answer);
                    }
                }
                Err(what) => return Lost::Protocol(format!("the participant sent {what}")),
            }
        }
    };
    let send = async {
        let mut taken = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                Some(answer) = answered.recv() => taken.push(answer),
                count = link.queue.recv_many(&mut taken, BATCH) => if count == 0 {
                    return Lost::Protocol("the participant has another address now".into());
                },
            }
            for batch in batches(taken.drain(..)) {
                if requests.send(batch).await.is_err() {
                    // The receiving half knows why.
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        lost = receive => lost,
        lost = send => lost,
    }
}
