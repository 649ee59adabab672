//! Calls over HTTP/2 whose body is made by hand.

use std::time::Duration;

use anyhow::ensure;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, StreamBody};
use tonic::{Status, body::Body, transport::Channel};
use tower::ServiceExt;

/// How long an answer is waited for: many calls have none.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a body's end is.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// As it should be.
    Clean,
    /// The stream is reset.
    Reset,
    /// Nothing more comes, until the caller has had enough.
    Stall,
}

/// A message as it should be framed.
pub(super) fn framed(message: &[u8]) -> Bytes {
    prefixed(0, message.len() as u32, message)
}

/// A message with any flag and length.
pub(super) fn prefixed(flag: u8, length: u32, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(flag);
    bytes.put_u32(length);
    bytes.put_slice(message);
    bytes.freeze()
}

/// Calls a method with these chunks as its body. None when there is no answer in
/// time, or none that is gRPC's.
pub(super) async fn call(
    channel: Channel,
    path: &str,
    chunks: Vec<Bytes>,
    end: End,
) -> Option<i32> {
    let chunks = chunks.into_iter().map(|chunk| Ok(http_body::Frame::data(chunk)));
    let end = stream::once(async move {
        match end {
            End::Clean => None,
            End::Reset => Some(Err(Status::cancelled("reset"))),
            // hyper's client keeps a connection for as long as a body may go on.
            End::Stall => {
                tokio::time::sleep(2 * PATIENCE).await;
                Some(Err(Status::cancelled("enough")))
            }
        }
    });
    let frames = futures::StreamExt::chain(
        stream::iter(chunks),
        futures::StreamExt::filter_map(end, std::future::ready),
    );
    let request = Request::post(format!("http://localhost{path}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Body::new(StreamBody::new(frames)))
        .ok()?;
    let answer = async {
        let response = channel.oneshot(request).await.ok()?;
        let status = |headers: &http::HeaderMap| {
            headers.get("grpc-status").and_then(|it| it.to_str().ok()?.parse().ok())
        };
        if let Some(status) = status(response.headers()) {
            return Some(status);
        }
        let body = response.into_body().collect().await.ok()?;
        body.trailers().and_then(status)
    };
    tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
}

/// Whether a process has a method.
pub(super) async fn has(channel: Channel, path: &str) -> anyhow::Result<bool> {
    let status = call(channel, path, vec![framed(&[0xff])], End::Clean).await;
    ensure!(status.is_some(), "{path} gave no answer");
    Ok(status != Some(tonic::Code::Unimplemented as i32))
}
