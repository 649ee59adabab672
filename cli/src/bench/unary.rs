//! Orders as calls of `Execute`, side by side on one connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::uri::PathAndQuery;
use tonic::{Request, client::Grpc, transport::Channel};

use super::{
    book::Book,
    lane::Lane,
    plan::Order,
    tally::Answer,
    template::Templates,
    versions::Versions,
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
        let request = match lane.versions.clone() {
            Some(versions) => Body::Versioned(versions.into(), Arc::clone(&lane.templates)),
            None => {
                lane.templates.request(&order, &mut message);
                Body::Whole(message.split().freeze())
            }
        };
        Some(call(client.clone(), order, request))
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

/// What is sent.
enum Body {
    Whole(Bytes),
    /// To be read first.
    Versioned(Box<Versions>, Arc<Templates>),
}

async fn call(mut client: Grpc<Channel>, order: Order, body: Body) -> (Order, Answer, Duration) {
    let started = Instant::now();
    let answer = async {
        let request = match body {
            Body::Whole(request) => request,
            Body::Versioned(versions, templates) => versions.request(&templates, &order).await?,
        };
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
