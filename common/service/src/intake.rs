//! Requests that came in part.
//!
//! A gRPC message is kept until it is whole, and only then do the service's own
//! limits see it. So what is held of messages that are not whole is bounded here.
//!
//! Invariants:
//! - All connections together hold [`LIMIT`] at most, and one of them [`SHARE`].
//! - Where there is no room, messages that have waited for their rest give it up,
//!   the oldest first: what never ends keeps nobody out.
//! - A message that is not whole [`PATIENCE`] after its beginning is given up.
//! - One that comes in one piece always has room.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// Bytes of all messages that are not whole.
const LIMIT: usize = 256 << 20;
/// Of these, on one connection; several times the largest message.
const SHARE: usize = LIMIT / 8;
/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take where others need the room.
const GRACE: Duration = Duration::from_secs(1);
/// Flag and length before each message.
const PREFIX: usize = 5;

/// What all connections of a server share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intake {
    all: Arc<All>,
}

#[derive(Debug, Default)]
struct All {
    held: AtomicUsize,
    /// Of that, what is being given up.
    leaving: AtomicUsize,
    next: AtomicU64,
    /// Messages that wait for their rest, the oldest first.
    waiting: Mutex<BTreeMap<Place, Waiting>>,
}

/// When a message began, and a number of its own.
type Place = (Instant, u64);

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    waker: Waker,
}

/// What the requests of one connection share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Share {
    own: Arc<AtomicUsize>,
    all: Arc<All>,
}

impl Intake {
    /// For a new connection.
    pub(crate) fn share(&self) -> Share {
        Share { own: Arc::default(), all: Arc::clone(&self.all) }
    }
}

impl All {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Place, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has messages give up so many bytes; false if there are not enough that
    /// have waited for long.
    fn make_room(&self, needed: usize) -> bool {
        let (now, mut found) = (Instant::now(), 0);
        let mut waiting = self.waiting();
        while found < needed
            && let Some(oldest) = waiting.first_entry()
            && oldest.key().0 + GRACE <= now
        {
            let Waiting { bytes, waker } = oldest.remove();
            found += bytes;
            self.leaving.fetch_add(bytes, Relaxed);
            waker.wake();
        }
        found >= needed
    }
}

impl Share {
    /// The same request, counted with those of its connection.
    pub(crate) fn count(request: Request) -> Request {
        let share = request.extensions().get::<Self>().cloned().unwrap_or_default();
        request.map(|body| Body::new(Counted::new(body, share)))
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        let own = self.own.fetch_add(bytes, Relaxed) + bytes;
        let held = self.all.held.fetch_add(bytes, Relaxed) + bytes;
        let held = held.saturating_sub(self.all.leaving.load(Relaxed));
        let (who, bytes, limit) = if own > SHARE {
            ("this connection", own, SHARE)
        } else if held > LIMIT && !self.all.make_room(held - LIMIT) {
            ("all connections", held, LIMIT)
        } else {
            return Ok(());
        };
        Err(Status::resource_exhausted(format!(
            "{who} would hold {bytes} bytes of messages that came in part, the limit is {limit}; \
             try again later"
        )))
    }

    fn give_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Relaxed);
        self.all.held.fetch_sub(bytes, Relaxed);
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
    share: Share,
    /// Our part of what is held.
    held: usize,
    /// When the message that is not whole began.
    since: Option<Instant>,
    /// Where it waits for its rest, and with how many bytes.
    place: Option<(Place, usize)>,
    /// Set where a rest had to be waited for; may be of an earlier message.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    fn new(body: Body, share: Share) -> Self {
        let position = Position::default();
        Self { body, position, share, held: 0, since: None, place: None, timer: None }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        let before = self.position.come;
        let incomplete = self.position.advance(data);
        let goes_on = incomplete == before + data.len();
        self.since = match (incomplete, self.since) {
            (0, _) => None,
            (_, Some(since)) if goes_on => Some(since),
            _ => Some(Instant::now()),
        };
        let before = std::mem::replace(&mut self.held, incomplete);
        if incomplete > before {
            return self.share.take(incomplete - before);
        }
        self.share.give_back(before - incomplete);
        Ok(())
    }

    /// Why the message is given up, if it is; else it waits for its rest.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(since) = self.since else { return Poll::Pending };
        if !self.leave() {
            return Poll::Ready(had_to_leave());
        }
        let deadline = since + PATIENCE;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= deadline {
                let why = format!("a message was not whole {PATIENCE:?} after its beginning");
                return Poll::Ready(Status::deadline_exceeded(why));
            }
            timer.as_mut().reset(deadline);
        }
        let place = (since, self.share.all.next.fetch_add(1, Relaxed));
        let waiting = Waiting { bytes: self.held, waker: context.waker().clone() };
        self.share.all.waiting().insert(place, waiting);
        self.place = Some((place, self.held));
        Poll::Pending
    }

    /// Waits no more; false if it had to give up its room.
    fn leave(&mut self) -> bool {
        let Some((place, bytes)) = self.place.take() else { return true };
        let stayed = self.share.all.waiting().remove(&place).is_some();
        if !stayed {
            self.share.all.leaving.fetch_sub(bytes, Relaxed);
        }
        stayed
    }
}

fn had_to_leave() -> Status {
    Status::resource_exhausted(format!(
        "a message was not whole {GRACE:?} after its beginning, and others needed the room"
    ))
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_wait(context).map(|status| Some(Err(status.into())));
        };
        if !self.leave() {
            return Poll::Ready(Some(Err(had_to_leave().into())));
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.take(data)
        {
            return Poll::Ready(Some(Err(status.into())));
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
        self.leave();
        self.share.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use tonic::Code;

    use super::*;

    fn message(length: u32, come: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(PREFIX + come, 7);
        bytes
    }

    /// A body that goes on for ever after these.
    fn endless(share: &Share, frames: Vec<Vec<u8>>) -> Counted {
        let frames = frames.into_iter().map(|it| Ok::<_, Status>(Frame::data(Bytes::from(it))));
        let body = StreamBody::new(stream::iter(frames).chain(stream::pending()));
        Counted::new(Body::new(body), share.clone())
    }

    fn code(result: Option<Result<Frame<Bytes>, axum::BoxError>>) -> Code {
        match result.expect("a frame") {
            Ok(_) => Code::Ok,
            Err(error) => Status::from_error(error).code(),
        }
    }

    #[test]
    fn only_what_is_not_whole_counts_however_it_is_cut() {
        let whole = |length: u8| message(length.into(), length.into());
        let all = [whole(0), whole(9), whole(200), whole(1)].concat();
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

    const PIECE: usize = 1 << 20;

    /// One that comes to a part of its length; what became of it.
    async fn part(share: &Share) -> Result<Counted, Code> {
        let mut body = endless(share, vec![message(PIECE as u32 * 8, PIECE)]);
        match code(body.frame().await) {
            Code::Ok => {
                // It waits for its rest.
                assert!(body.frame().now_or_never().is_none());
                Ok(body)
            }
            code => Err(code),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_a_share() {
        let intake = Intake::default();
        let (share, other) = (intake.share(), intake.share());
        let mut held = Vec::new();
        let refused = loop {
            match part(&share).await {
                Ok(body) => held.push(body),
                Err(code) => break code,
            }
        };
        assert_eq!((refused, held.len()), (Code::ResourceExhausted, SHARE / PIECE - 1));
        part(&other).await.unwrap();
        drop(held);
        assert_eq!((share.own.load(Relaxed), intake.all.held.load(Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_connections_gives_up_what_does_not_end() {
        let intake = Intake::default();
        let mut held = Vec::new();
        while let Ok(body) = part(&intake.share()).await {
            held.push(body);
        }
        assert_eq!(held.len(), LIMIT / PIECE - 1);
        tokio::time::sleep(GRACE).await;
        let late = part(&intake.share()).await.unwrap();
        // The oldest is told, and gives its room back.
        let oldest = &mut held[0];
        assert_eq!(code(oldest.frame().await), Code::ResourceExhausted);
        assert!(held[2].frame().now_or_never().is_none());
        drop((held, late));
        let all = &intake.all;
        assert_eq!((all.held.load(Relaxed), all.leaving.load(Relaxed)), (0, 0));
        assert!(all.waiting().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_to_its_end_is_given_up() {
        let share = Intake::default().share();
        let whole = message(3, 3);
        let mut body = endless(&share, vec![whole.clone(), message(1000, 10), vec![7; 10]]);
        for _ in 0..3 {
            assert_eq!(code(body.frame().await), Code::Ok);
        }
        let began = Instant::now();
        assert_eq!(code(body.frame().await), Code::DeadlineExceeded);
        assert_eq!(began.elapsed(), PATIENCE);
        drop(body);
        assert_eq!(share.own.load(Relaxed), 0);

        // Between two messages a stream may rest for as long as it wants to.
        let mut body = endless(&share, vec![message(10, 5), vec![7; 5], whole]);
        for _ in 0..3 {
            assert_eq!(code(body.frame().await), Code::Ok);
        }
        assert!(body.frame().now_or_never().is_none());
        tokio::time::sleep(PATIENCE * 5).await;
        assert!(body.frame().now_or_never().is_none());
    }
}
