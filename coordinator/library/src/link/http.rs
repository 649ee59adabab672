//! One HTTP request a message, for a participant that speaks HTTP.
//!
//! Invariants:
//! - A rollback is sent only when no prepare of its branch is running: it has ended,
//!   or its connection was closed.
//! - Only the answers that the contract names say anything; all others are 'unknown'.

mod body;
mod dialer;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dtc_core::{Acknowledgement, Event, Failure, Message, Opaque, ParticipantId, Vote};
use dtc_proto::{
    dtc::Origin,
    marker::{COMMITTED, EPOCH, FENCED, INCARNATION, ROLLED_BACK, UNKNOWN_BRANCH},
};
use dtc_protocol::{JournalId, TransactionId};
use dtc_runtime::Network;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::io::AsyncReadExt;

use dialer::Dialer;

use super::fence;
use super::{
    Link, Lost,
    calls::{self, Heard},
    with_causes,
};
use crate::{address::Address, driver::Handle, running::Running, trace};

/// What all HTTP participants are called with: connections are kept and shared.
pub(crate) type Client = legacy::Client<Dialer, Full<Bytes>>;

/// Bytes of an output, and of an answer that has none.
const MAX_OUTPUT: usize = 1 << 20;
const MAX_ANSWER: usize = 64 << 10;
/// Shorter than servers usually keep a connection that is idle.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// How soon a connection that nobody takes is closed.
const CLOSES_WITHIN: Duration = Duration::from_millis(50);
/// How much of an answer that says nothing is told.
const TOLD: usize = 200;
const PREPARE: &str = "prepare";
const AGENT: &str = concat!("dtc-coordinator/", env!("CARGO_PKG_VERSION"));
/// In which a participant may tell its journal: a UUID, made with its database.
const JOURNAL: HeaderName = HeaderName::from_static("dtc-journal-id");

/// A client with no connections yet.
pub(crate) fn client(network: Arc<dyn Network>) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .build(Dialer(network))
}

/// Whether somebody listens there, and keeps a connection open: a proxy with nobody behind
/// it closes what it accepts.
pub(super) async fn probe(network: &Arc<dyn Network>, address: &Address) -> Result<(), Lost> {
    let uri: Uri = address.base().parse().map_err(|error| lost(&error))?;
    let opened = Dialer(Arc::clone(network)).open(uri).await;
    let mut connection = opened.map_err(|error| lost(&error))?;
    match tokio::time::timeout(CLOSES_WITHIN, connection.0.read_u8()).await {
        Ok(Err(error)) => Err(Lost::Http(format!("the connection was closed at once: {error}"))),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn lost(error: &dyn std::error::Error) -> Lost {
    Lost::Http(with_causes(error))
}

/// Works until the participant does not listen any more.
pub(super) async fn run(link: &mut Link, base: String) -> Lost {
    let heard = Heard::now();
    let caller = Caller {
        participant: link.participant,
        name: link.name.clone(),
        base: base.into(),
        origin: link.origin.clone(),
        handle: link.handle.clone(),
        client: link.client.clone(),
        prepares: Running::default(),
        heard: heard.clone(),
    };
    let address = link.address.clone();
    let network = Arc::clone(&link.handle.environment.network);
    let probe = || probe(&network, &address);
    calls::run(link, caller, calls::watch(heard, probe)).await
}

/// What a call needs beside its message.
#[derive(Clone)]
struct Caller {
    participant: ParticipantId,
    name: Arc<str>,
    base: Arc<str>,
    origin: Origin,
    handle: Handle,
    client: Client,
    prepares: Running,
    heard: Heard,
}

/// An answer, whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Why a call says nothing about its branch.
enum Unknown {
    /// Nobody is there.
    Away(String),
    /// A newer run of this coordinator was seen there.
    Fenced(u64),
    /// Somebody is, and says something else.
    Answered(String),
    /// No answer came to its end.
    Lost(String),
    /// The machine knows by itself, and may have made the next attempt.
    Over(String),
}

impl calls::Caller for Caller {
    async fn call(self, call: calls::Call) -> Option<Lost> {
        let (id, branch, attempt) = (call.id, call.branch, call.attempt);
        let participant = self.participant;
        let (why, lost) = match self.attempt(call).await {
            Ok(event) => {
                self.handle.events(vec![event]).await;
                return None;
            }
            Err(Unknown::Fenced(known)) => {
                let lost = Lost::Fenced(known);
                (Failure::answered(&lost.to_string()), Some(lost))
            }
            Err(Unknown::Away(why)) => (Failure::lost(&why), Some(Lost::Http(why))),
            Err(Unknown::Answered(why)) => (Failure::answered(&why), None),
            Err(Unknown::Lost(why)) => (Failure::lost(&why), None),
            Err(Unknown::Over(why)) => {
                self.note(id, branch, &why.into());
                return None;
            }
        };
        self.note(id, branch, &why.what);
        let event = Event::Unreachable { participant, id, branch, attempt, why };
        self.handle.events(vec![event]).await;
        lost
    }
}

impl Caller {
    fn note(&self, id: TransactionId, branch: u32, why: &Arc<str>) {
        tracing::debug!(participant = %self.name, transaction = %id, branch, error = %why,
            "no valid answer");
        self.handle.directory.update(self.participant, |it| it.last_error = Arc::clone(why));
    }

    async fn attempt(&self, call: calls::Call) -> Result<Event, Unknown> {
        let calls::Call { id, branch, message, timeout, trace, .. } = call;
        let from = self.participant;
        let acknowledged = |journal, number, acknowledgement| Event::Acknowledged {
            from,
            journal,
            id,
            branch,
            number,
            acknowledgement,
        };
        let to = Recipient { origin: &self.origin, id, branch, trace };
        match message {
            Message::Prepare { payload, may_compensate, age, .. } => {
                let body = body::prepare(&to, &payload, may_compensate, age);
                let body = body.map_err(|why| Unknown::Lost(format!("not sent: {why}")))?;
                let Some(turn) = self.prepares.enter(id, branch).await else {
                    return Err(Unknown::Lost("an earlier prepare is still being closed".into()));
                };
                let answer = tokio::select! {
                    biased;
                    () = turn.closed() => {
                        return Err(Unknown::Over("prepare was closed by a rollback".into()));
                    }
                    answer = self.post(PREPARE, &to, body, timeout) => answer?,
                };
                let vote = self.vote(&answer)?;
                let journal = journal(&answer)?;
                Ok(Event::Voted { from, journal, id, branch, vote })
            }
            Message::Commit { number, output } => {
                let body = body::decision(&to, number, output.as_ref(), false);
                let answer = self.post("commit", &to, body, timeout).await?;
                let done = match (answer.status, body::code(&answer.body).as_deref()) {
                    (StatusCode::OK, _) => Acknowledgement::Committed,
                    (StatusCode::NOT_FOUND, Some(UNKNOWN_BRANCH)) => Acknowledgement::Unknown,
                    (StatusCode::CONFLICT, Some(ROLLED_BACK)) => Acknowledgement::RolledBack,
                    _ => return Err(self.unknown("commit", "200 means done", &answer)),
                };
                Ok(acknowledged(journal(&answer)?, number, done))
            }
            Message::Rollback { number, output, compensate } => {
                self.prepares.close(id, branch).await;
                let body = body::decision(&to, number, output.as_ref(), compensate);
                let answer = self.post("rollback", &to, body, timeout).await?;
                let done = match (answer.status, body::code(&answer.body).as_deref()) {
                    (StatusCode::OK, _) => Acknowledgement::RolledBack,
                    (StatusCode::CONFLICT, Some(COMMITTED)) => Acknowledgement::Committed,
                    (StatusCode::NOT_FOUND, Some(UNKNOWN_BRANCH)) if compensate => {
                        Acknowledgement::Unknown
                    }
                    _ => return Err(self.unknown("rollback", "200 means done", &answer)),
                };
                Ok(acknowledged(journal(&answer)?, number, done))
            }
        }
    }

    fn vote(&self, answer: &Answer) -> Result<Vote, Unknown> {
        match answer.status {
            StatusCode::OK => {
                let output = body::output(&answer.body).map_err(|what| {
                    Unknown::Answered(format!("prepare was answered 200 with {what}"))
                })?;
                Ok(Vote::Commit { output, committed: false })
            }
            StatusCode::CONFLICT => {
                Ok(Vote::Abort(Arc::new(body::refusal(self.participant, &answer.body))))
            }
            _ => Err(self.unknown("prepare", "200 means yes, 409 no", answer)),
        }
    }

    fn unknown(&self, call: &str, good: &str, answer: &Answer) -> Unknown {
        let text = |name| answer.headers.get(name).and_then(|it| it.to_str().ok());
        let newer = || fence::newer_run(text(EPOCH), text(INCARNATION), &self.handle.journal.run());
        let fenced = answer.status == StatusCode::PRECONDITION_FAILED
            && body::code(&answer.body).as_deref() == Some(FENCED);
        if let Some(known) = fenced.then(newer).flatten() {
            return Unknown::Fenced(known);
        }
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(TOLD).collect();
        let said = if said.is_empty() { "no body".into() } else { said };
        Unknown::Answered(format!("{call} was answered {} ({good}): {said}", answer.status))
    }

    async fn post(
        &self,
        call: &str,
        to: &Recipient<'_>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Unknown> {
        let other = |error: &dyn std::error::Error| {
            Unknown::Lost(format!("{call} got no answer: {}", with_causes(error)))
        };
        let request = Request::post(format!("{}/{call}", self.base)).body(Full::new(body));
        let mut request = request.map_err(|error| other(&error))?;
        self.write_headers(request.headers_mut(), to);
        let answered = async {
            let response =
                self.client.request(request).await.map_err(|error| match error.is_connect() {
                    true => Unknown::Away(with_causes(&error)),
                    false => other(&error),
                })?;
            let (parts, body) = response.into_parts();
            let is_promise = parts.status == StatusCode::OK && call == PREPARE;
            let limit = if is_promise { MAX_OUTPUT } else { MAX_ANSWER };
            let body = Limited::new(body, limit).collect().await.map_err(|error| {
                let why = with_causes(&*error);
                Unknown::Lost(format!("{call}'s answer could not be read to its end: {why}"))
            })?;
            self.heard.again();
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let late = |_| Unknown::Over(format!("{call} was not answered within {timeout:?}"));
        tokio::time::timeout(timeout, answered).await.map_err(late)?
    }

    fn write_headers(&self, headers: &mut HeaderMap, to: &Recipient<'_>) {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.insert(header::ACCEPT, json);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let [random @ .., _, _, _, _, _, _, _, _] = (self.handle.environment.random)();
        let span = u64::from_le_bytes(random);
        let (parent, state) = trace::of_call(to.trace.as_ref(), to.id, span);
        let texts = [
            ("dtc-transaction-id", to.id.to_string()),
            ("dtc-branch", to.branch.to_string()),
            ("dtc-coordinator-id", to.origin.coordinator_id.clone()),
            ("dtc-epoch", to.origin.epoch.to_string()),
            ("dtc-incarnation", to.origin.incarnation.clone()),
            ("traceparent", parent),
            ("tracestate", state),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
    }
}

/// The journal that an answer comes from, where it tells.
fn journal(answer: &Answer) -> Result<Option<JournalId>, Unknown> {
    let read = |value: &HeaderValue| {
        let id = value.to_str().ok().and_then(|text| text.parse().ok());
        id.ok_or_else(|| Unknown::Answered(format!("{JOURNAL} is {value:?}, which is no UUID")))
    };
    answer.headers.get(JOURNAL).map(read).transpose()
}

/// Which branch a call is about, and who calls.
struct Recipient<'a> {
    origin: &'a Origin,
    id: TransactionId,
    branch: u32,
    trace: Option<Opaque>,
}
