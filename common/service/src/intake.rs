//! Requests that came in part.
//!
//! A gRPC message is kept until it is whole, and only then do the service's own
//! limits see it. So what all requests together have sent of messages that are
//! not whole is bounded here: a message that would go beyond is refused, and one
//! that comes in one piece always has room.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use hyper::body::{Bytes, Frame, SizeHint};
use tonic::Status;

/// Bytes of all messages that are not whole.
const LIMIT: usize = 256 << 20;
/// Flag and length before each message.
const PREFIX: usize = 5;

/// What all requests of a server share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intake {
    held: Arc<AtomicUsize>,
}

impl Intake {
    /// The same request, counted.
    pub(crate) fn count(&self, request: Request) -> Request {
        request.map(|body| {
            let position = Position::default();
            Body::new(Counted { body, position, held: 0, intake: self.clone() })
        })
    }
}

/// Where in its messages a body is.
#[derive(Debug, Default)]
struct Position {
    prefix: [u8; PREFIX],
    /// Bytes of the message, its prefix included, that have come.
    come: usize,
}

impl Position {
    /// Bytes of the last message that came, if it is not whole.
    fn advance(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            let wanted = match self.come {
                come @ 0..PREFIX => PREFIX - come,
                come => PREFIX + self.length() - come,
            };
            let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
            if self.come < PREFIX {
                self.prefix[self.come..self.come + taken.len()].copy_from_slice(taken);
            }
            self.come += taken.len();
            if self.come >= PREFIX && self.come == PREFIX + self.length() {
                self.come = 0;
            }
            bytes = rest;
        }
        self.come
    }

    fn length(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length) as usize
    }
}

struct Counted {
    body: Body,
    position: Position,
    /// Our part of what all hold.
    held: usize,
    intake: Intake,
}

impl Counted {
    fn hold(&mut self, bytes: usize) -> Result<(), Status> {
        let before = std::mem::replace(&mut self.held, bytes);
        if bytes <= before {
            self.intake.held.fetch_sub(before - bytes, Relaxed);
            return Ok(());
        }
        let all = self.intake.held.fetch_add(bytes - before, Relaxed) + bytes - before;
        match all <= LIMIT {
            true => Ok(()),
            false => Err(Status::resource_exhausted(format!(
                "requests that came in part hold {all} bytes, the limit is {LIMIT}; try again later"
            ))),
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let incomplete = self.position.advance(data);
            if let Err(status) = self.hold(incomplete) {
                return Poll::Ready(Some(Err(status.into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.intake.held.fetch_sub(self.held, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_whole_counts_however_it_is_cut() {
        let message = |length: u8| [&[0, 0, 0, 0, length][..], &vec![7; length.into()]].concat();
        let all = [message(0), message(9), message(200), message(1)].concat();
        for size in 1..all.len() {
            let mut position = Position::default();
            let mut at = 0;
            for piece in all.chunks(size) {
                at += piece.len();
                let whole = [5, 19, 224, 230].into_iter().rfind(|end| *end <= at).unwrap_or(0);
                assert_eq!(position.advance(piece), at - whole, "pieces of {size}, at {at}");
            }
        }
    }
}
