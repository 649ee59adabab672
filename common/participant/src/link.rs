//! A coordinator's link: requests in batches one way, answers and questions the
//! other.
//!
//! Invariants:
//! - Each batch that comes is one work of the storage; a bounded number of them
//!   is under way, and the next is read when an answer has gone out.
//! - A message that goes out is smaller than what gRPC accepts.
//! - Whatever ends the link, what was accepted is done. What waits for a lock is
//!   not accepted yet: it goes with the link.

use std::sync::Arc;

use dtc_proto::dtc::{LinkHello, LinkInquiry, LinkRequest, LinkResponse};
use futures::{StreamExt, future::try_join3, stream::FuturesUnordered};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use crate::{
    ResourceManager,
    answers::{Answers, DeferredVotes, Refused},
    engine::Engine,
    event_log,
    journal::{self, InDoubtBranch},
    links::{Place, Responses},
    wire::{Batch, Origin},
};

/// Batches that are under way on one link.
const IN_FLIGHT: usize = 16;
/// Bytes; gRPC's own limit is 4 MiB.
const MAX_MESSAGE: usize = 3 << 20;
/// Questions in a message.
pub(crate) const MAX_INQUIRIES: usize = 1000;
/// Batches' answers that are merged into one message at most.
const MERGED: usize = 64;

type Answered = (Result<Answers, Refused>, Option<OwnedSemaphorePermit>);

/// Serves a link until either side ends it.
pub(crate) async fn run<R: ResourceManager>(
    engine: Arc<Engine<R>>,
    requests: Streaming<LinkRequest>,
    responses: Responses,
) {
    if let Err(status) = serve(&engine, requests, &responses).await {
        tracing::info!(code = ?status.code(), message = status.message(), "the link ends");
        let _ = responses.send(Err(status)).await;
    }
}

async fn serve<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    mut requests: Streaming<LinkRequest>,
    responses: &Responses,
) -> Result<(), Status> {
    let first = tokio::select! {
        biased;
        () = engine.environment.shutdown.begun() => None,
        message = requests.message() => message?,
    };
    let Some(mut first) = first else { return Ok(()) };
    let origin = Arc::new(Origin::parse("hello", first.hello.take().as_ref())?);
    let coordinator = origin.coordinator;
    // Refused here, or kept: only then is anything answered.
    let admitted = engine.perform(Arc::clone(&origin), Batch::default()).await;
    admitted.map_err(|refused| Status::from(&refused))?;
    tracing::info!(%coordinator, epoch = origin.run.epoch, "linked");
    let (place, replaced) = engine.links.open(coordinator, origin.run, responses.clone());

    let journal_id = engine.store.identity().id.to_vec().into();
    let hello = LinkHello { journal_id, compensates: R::COMPENSATES };
    send(responses, LinkResponse { hello: Some(hello), ..LinkResponse::default() }).await?;
    let (answered, answers) = mpsc::unbounded_channel();
    let reading = async {
        tokio::select! {
            biased;
            _ = replaced => Err(Status::aborted("a newer run of this coordinator has a link")),
            result = read(engine, &origin, &place, (first, requests), answered) => result,
        }
    };
    try_join3(reading, write(answers, responses), ask_all(engine, &origin, responses)).await?;
    tracing::info!(%coordinator, "unlinked");
    Ok(())
}

async fn read<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    origin: &Arc<Origin>,
    place: &Place,
    (first, mut requests): (LinkRequest, Streaming<LinkRequest>),
    answered: mpsc::UnboundedSender<Answered>,
) -> Result<(), Status> {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut next = Some(first);
    while let Some(request) = next {
        if request.hello.is_some() {
            return Err(Status::invalid_argument("hello: only the first message has one"));
        }
        let (batch, ended) =
            Batch::from_link(origin.coordinator, request, engine.limits.max_payload)?;
        if let Some(ended) = ended {
            place.note_ended(&ended, engine.service_time());
        }
        if !batch.is_empty() {
            let permit = Arc::clone(&in_flight).acquire_owned().await;
            let permit = permit.map_err(|_| Status::internal("the link is closed"))?;
            let answered = answered.clone();
            engine.submit(Arc::clone(origin), batch, move |result| {
                let _ = answered.send((result, Some(permit)));
            });
        }
        next = tokio::select! {
            biased;
            () = engine.environment.shutdown.begun() => None,
            message = requests.message() => message?,
        };
    }
    Ok(())
}

/// Sends answers, those of several batches in one message where they queued up.
async fn write(
    mut answers: mpsc::UnboundedReceiver<Answered>,
    responses: &Responses,
) -> Result<(), Status> {
    let mut batches = Vec::with_capacity(MERGED);
    // They hold no permit: what they wait for may come on this link.
    let mut waiting = FuturesUnordered::<DeferredVotes>::new();
    loop {
        tokio::select! {
            biased;
            Some(later) = waiting.next() => {
                batches.extend(later.ok().map(|result| (result, None)));
            }
            count = answers.recv_many(&mut batches, MERGED) => if count == 0 {
                return Ok(());
            },
        }
        let mut response = LinkResponse::default();
        let mut size = 0;
        let mut permits = Vec::with_capacity(batches.len());
        for (result, permit) in batches.drain(..) {
            permits.push(permit);
            let answers = result.map_err(|refused| Status::from(&refused))?;
            event_log::log(&answers);
            waiting.extend(answers.later);
            for vote in answers.votes {
                flush(&mut response, &mut size, vote.encoded_len(), responses).await?;
                response.votes.push(vote);
            }
            for acknowledgement in answers.acknowledgements {
                flush(&mut response, &mut size, acknowledgement.encoded_len(), responses).await?;
                response.acknowledgements.push(acknowledgement);
            }
        }
        if size > 0 {
            send(responses, response).await?;
        }
    }
}

/// Makes room for another `more` bytes.
async fn flush(
    response: &mut LinkResponse,
    size: &mut usize,
    more: usize,
    responses: &Responses,
) -> Result<(), Status> {
    // A few bytes of framing come with each entry.
    let more = more + 8;
    if *size > 0 && *size + more > MAX_MESSAGE {
        send(responses, std::mem::take(response)).await?;
        *size = 0;
    }
    *size += more;
    Ok(())
}

async fn send(responses: &Responses, response: LinkResponse) -> Result<(), Status> {
    responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the coordinator hung up"))
}

/// A new link asks about everything that is undecided.
async fn ask_all<R: ResourceManager>(
    engine: &Engine<R>,
    origin: &Origin,
    responses: &Responses,
) -> Result<(), Status> {
    #[cfg(feature = "mutants")]
    if crate::mutants::asks_nobody() {
        return Ok(());
    }
    let coordinator = origin.coordinator;
    let mut after = None;
    loop {
        let page = engine
            .store
            .read(move |connection| {
                let of = Some(coordinator);
                journal::undecided_page(connection, of, after.as_ref(), MAX_INQUIRIES)
            })
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.branch);
        if let Some(inquiries) = inquiries(engine, &page) {
            send(responses, inquiries).await?;
        }
    }
}

/// Questions about those that have no decision yet.
pub(crate) fn inquiries<R: ResourceManager>(
    engine: &Engine<R>,
    doubts: &[InDoubtBranch],
) -> Option<LinkResponse> {
    let undecided = doubts.iter().filter(|doubt| doubt.state.is_in_doubt());
    let inquiries: Vec<_> = undecided
        .map(|doubt| {
            event_log::asked(doubt);
            LinkInquiry {
                transaction_id: doubt.branch.transaction.as_bytes().to_vec().into(),
                branch: doubt.branch.number,
                epoch: doubt.run.epoch,
                incarnation: doubt.run.incarnation.as_bytes().to_vec().into(),
            }
        })
        .collect();
    engine.metrics.inquiries.inc_by(inquiries.len() as u64);
    (!inquiries.is_empty()).then(|| LinkResponse { inquiries, ..LinkResponse::default() })
}

#[cfg(test)]
mod tests {
    use dtc_proto::dtc::{LinkVote, Payload, payload};

    use super::*;

    #[tokio::test]
    async fn a_message_is_never_larger_than_what_grpc_accepts() {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let (answered, answers) = mpsc::unbounded_channel();
        let output = Payload { kind: Some(payload::Kind::Typed(vec![0; 1 << 20].into())) };
        for number in 0..8 {
            let mut answers = Answers::default();
            let output = Some(output.clone());
            answers.votes.push(LinkVote { branch: number, output, ..LinkVote::default() });
            let permit = Arc::clone(&in_flight).acquire_owned().await.unwrap();
            answered.send((Ok(answers), Some(permit))).unwrap();
        }
        drop(answered);
        let (responses, mut sent) = mpsc::channel(IN_FLIGHT);
        write(answers, &responses).await.unwrap();
        drop(responses);

        let (mut votes, mut messages) = (Vec::new(), 0);
        while let Some(response) = sent.recv().await {
            let response = response.unwrap();
            assert!(response.encoded_len() <= MAX_MESSAGE);
            votes.extend(response.votes.iter().map(|vote| vote.branch));
            messages += 1;
        }
        assert_eq!(votes, (0..8).collect::<Vec<_>>());
        assert_eq!(messages, 4, "those that fit share a message");
    }

    #[tokio::test]
    async fn many_small_answers_are_no_larger_message() {
        let (answered, answers) = mpsc::unbounded_channel();
        let vote = LinkVote { transaction_id: vec![7; 16].into(), ..LinkVote::default() };
        let count = MAX_MESSAGE / vote.encoded_len() + 1;
        let small = Answers { votes: vec![vote; count], ..Answers::default() };
        answered.send((Ok(small), None)).unwrap();
        drop(answered);
        let (responses, mut sent) = mpsc::channel(IN_FLIGHT);
        write(answers, &responses).await.unwrap();
        drop(responses);
        let mut votes = 0;
        while let Some(response) = sent.recv().await {
            let response = response.unwrap();
            assert!(response.encoded_len() <= MAX_MESSAGE, "{}", response.encoded_len());
            votes += response.votes.len();
        }
        assert_eq!(votes, count);
    }
}
