//! Orders as calls of `Execute`, side by side on one connection.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::uri::PathAndQuery;
use tonic::{Request, client::Grpc, transport::Channel};

use super::{
    book::Book,
    load::Lane,
    plan::Order,
    tally::Answer,
    wire::{Encoded, Response},
};

const METHOD: &str = "/dtc.v1.TransactionService/Execute";

/// Runs the lane until it has no more orders.
pub(crate) async fn run(mut lane: Lane, channel: Channel) -> anyhow::Result<Book> {
    let mut client = Grpc::new(channel);
    client.ready().await.context("the coordinator cannot be reached")?;
    let mut message = BytesMut::new();
    let mut place = |lane: &Lane| {
        let order = lane.next_order()?;
        lane.templates.request(&order, &mut message);
        Some(call(client.clone(), order, message.split().freeze()))
    };
    let mut calls: FuturesUnordered<_> = (0..lane.in_flight).map_while(|_| place(&lane)).collect();
    while let Some(first) = calls.next().await {
        let mut done = vec![first];
        while let Some(Some(more)) = calls.next().now_or_never() {
            done.push(more);
        }
        let count = done.len();
        lane.enter(done);
        calls.extend((0..count).map_while(|_| place(&lane)));
    }
    Ok(lane.into_book())
}

async fn call(
    mut client: Grpc<Channel>,
    order: Order,
    request: Bytes,
) -> (Order, Answer, Duration) {
    let started = Instant::now();
    let answer = async {
        client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let method = PathAndQuery::from_static(METHOD);
        client.unary(Request::new(request), method, Encoded::<Response>::default()).await
    };
    let answer = match answer.await {
        Ok(response) => response.into_inner().answer(),
        Err(status) => Answer::from(&status),
    };
    (order, answer, started.elapsed())
}
