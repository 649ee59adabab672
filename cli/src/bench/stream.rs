//! Orders over one `ExecuteStream`. There is no task for each of them: when
//! answers come, as many new orders go out in one message.

use std::time::Instant;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use http::uri::PathAndQuery;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming, client::Grpc, transport::Channel};

use super::{
    book::Book,
    lane::Lane,
    plan::Order,
    tally::Answer,
    wire::{Encoded, Results},
};

const METHOD: &str = "/dtc.v1.TransactionService/ExecuteStream";
/// Of a message; the coordinator takes 4 MiB.
const MESSAGE: usize = 1 << 20;

/// Runs the lane until it has no more orders.
pub(crate) async fn run(lane: Lane, channel: Channel) -> anyhow::Result<Book> {
    let (requests, messages) = unbounded_channel();
    let mut pipe = Pipe { slots: vec![None; lane.in_flight], open: 0, requests, lane };
    // The coordinator answers the call when it has something to say.
    pipe.place(0..pipe.slots.len());
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    let messages = Request::new(UnboundedReceiverStream::new(messages));
    client.ready().await.context("the coordinator cannot be reached")?;
    let method = PathAndQuery::from_static(METHOD);
    match client.streaming(messages, method, Encoded::<Results>::default()).await {
        Ok(answers) => pipe.pump(answers.into_inner()).await,
        Err(error) => pipe.give_up(&error),
    }
    Ok(pipe.lane.into_book())
}

/// A stream and what is in flight on it. An order's tag is its slot.
struct Pipe {
    slots: Vec<Option<(Order, Instant)>>,
    open: usize,
    requests: UnboundedSender<Bytes>,
    lane: Lane,
}

impl Pipe {
    async fn pump(&mut self, mut answers: Streaming<Results>) {
        let mut free = Vec::new();
        while self.open > 0 {
            match answers.next().await {
                Some(Ok(message)) => self.enter(message, &mut free),
                Some(Err(error)) => return self.give_up(&error),
                None => return self.give_up(&Status::unavailable("the stream has ended")),
            }
            // What is there already is answered by the same message.
            while let Some(Some(Ok(more))) = answers.next().now_or_never() {
                self.enter(more, &mut free);
            }
            self.place(free.drain(..));
        }
    }

    /// Enters results; their slots are free then.
    fn enter(&mut self, message: Results, free: &mut Vec<usize>) {
        let now = Instant::now();
        let already_free = free.len();
        let slots = &mut self.slots;
        self.lane.enter(message.results.into_iter().filter_map(|result| {
            let slot = usize::try_from(result.tag).ok()?;
            let (order, started) = slots.get_mut(slot)?.take()?;
            free.push(slot);
            Some((order, result.answer(), now - started))
        }));
        self.open -= free.len() - already_free;
    }

    /// Fills slots with new orders, while there are any.
    fn place(&mut self, free: impl IntoIterator<Item = usize>) {
        let mut message = BytesMut::new();
        let now = Instant::now();
        for slot in free {
            let Some(order) = self.lane.next_order() else { break };
            self.lane.templates.item(slot as u64, &order, &mut message);
            self.slots[slot] = Some((order, now));
            self.open += 1;
            if message.len() >= MESSAGE {
                self.send(message.split());
            }
        }
        if !message.is_empty() {
            self.send(message);
        }
    }

    fn send(&self, message: BytesMut) {
        // Fails only when the stream has ended, which the answers show.
        let _ = self.requests.send(message.freeze());
    }

    /// Nothing is known of what is in flight.
    fn give_up(&mut self, error: &Status) {
        let answer = Answer::Unknown(format!("{:?}: {}", error.code(), error.message()));
        let lost = self.slots.iter_mut().filter_map(Option::take);
        self.lane.enter(lost.map(|(order, started)| (order, answer.clone(), started.elapsed())));
        self.open = 0;
    }
}
