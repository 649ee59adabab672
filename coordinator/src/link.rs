//! A participant's link: connecting, staying connected, and what goes over it.
//!
//! Invariants:
//! - What is queued for a link that is lost is dropped; the machine sends again
//!   what it is still owed once the participant is connected.
//! - 'Connected' is reported only after the participant accepted this run
//!   (rule 10).

mod batch;
mod calls;
mod http;
mod inbound;
mod stream;
mod unary;

use std::{sync::Arc, time::Duration};

use common::TransactionId;
use coordinator_core::{BranchOutcome, Ended, Event, Message, Opaque, ParticipantId};
use proto::dtc::{LinkState, Origin, participant_service_client::ParticipantServiceClient};
use tokio::{sync::mpsc, time::Instant};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub(crate) use batch::outcome_parts;
pub(crate) use http::{Client, client};

use crate::{address::Address, driver::Handle, fence, journal::Declared};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The first wait before connecting again; doubled up to the cap.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// What the driver hands to a link.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    Message {
        id: TransactionId,
        branch: u32,
        message: Message,
        timeout: Duration,
        /// The client's.
        trace: Option<Opaque>,
    },
    Outcome {
        id: TransactionId,
        branch: u32,
        outcome: BranchOutcome,
    },
    Ended(Ended),
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{}", with_causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("{0}")]
    Protocol(String),
    #[error("{0}")]
    Http(String),
    #[error("another run of this coordinator, of epoch {0}, has taken over")]
    Fenced(u64),
}

/// One participant's link.
pub(crate) struct Link {
    pub(crate) participant: ParticipantId,
    pub(crate) name: Arc<str>,
    pub(crate) address: Arc<Address>,
    pub(crate) target: Target,
    pub(crate) client: Client,
    /// For where there is no stream that tells.
    pub(crate) declared: Declared,
    pub(crate) origin: Origin,
    pub(crate) handle: Handle,
    pub(crate) queue: mpsc::Receiver<Outgoing>,
}

/// How a participant is called.
#[derive(Clone)]
pub(crate) enum Target {
    Grpc(Box<Endpoint>),
    /// What `/prepare`, `/commit` and `/rollback` come under.
    Http(String),
}

/// How every channel to a participant is set up.
pub(crate) fn endpoint(address: &Address) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(address.base())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

impl Link {
    /// Connects, works, and connects again, until the queue's sender is gone.
    pub(crate) async fn run(mut self) {
        let mut failures = 0_u32;
        while !self.queue.is_closed() {
            let since = Instant::now();
            let lost = match self.connect().await {
                Ok(()) => {
                    let gone = Event::Disconnected { participant: self.participant };
                    self.handle.events(vec![gone]).await;
                    // One that is accepted and lost again and again must not be
                    // tried without a pause.
                    if since.elapsed() > BACKOFF_CAP {
                        failures = 0;
                    } else {
                        failures = failures.saturating_add(1);
                        self.rest(failures).await;
                    }
                    continue;
                }
                Err(lost) => lost,
            };
            self.stop_if_fenced(&lost).await;
            failures = failures.saturating_add(1);
            let said = lost.to_string();
            if failures == 1 {
                tracing::warn!(participant = %self.name, error = said, "no link; connecting again");
            }
            self.handle.directory.update(self.participant, |participant| {
                participant.link = LinkState::Disconnected;
                participant.last_error = said.into();
            });
            self.rest(failures).await;
        }
    }

    /// One connection's life. Ok when it worked and was lost.
    async fn connect(&mut self) -> Result<(), Lost> {
        let endpoint = match &self.target {
            Target::Grpc(endpoint) => endpoint,
            Target::Http(base) => {
                let base = base.clone();
                http::probe(&self.handle.environment.network, &self.address).await?;
                self.http(base).await;
                return Ok(());
            }
        };
        let channel = self.handle.environment.network.connect(endpoint).await?;
        let client = ParticipantServiceClient::new(channel);
        match stream::open(client.clone(), self.origin.clone()).await {
            Ok(opened) => self.stream(opened).await,
            Err(Lost::Status(status)) if status.code() == tonic::Code::Unimplemented => {
                self.unary(client).await;
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    async fn stream(&mut self, opened: stream::Opened) {
        let (journal, compensates) = (opened.journal, opened.compensates);
        self.drop_queued();
        let asks = true;
        self.note(LinkState::Stream, Some(journal), Declared { asks, compensates });
        let (participant, journal) = (self.participant, Some(journal));
        let connected = Event::Connected { participant, asks, compensates, journal };
        self.handle.events(vec![connected]).await;
        let lost = stream::run(self, opened).await;
        self.ended(&lost).await;
    }

    async fn unary(&mut self, client: ParticipantServiceClient<Channel>) {
        self.connected(LinkState::Unary).await;
        let lost = unary::run(self, client).await;
        self.ended(&lost).await;
    }

    async fn http(&mut self, base: String) {
        self.connected(LinkState::Http).await;
        let lost = http::run(self, base).await;
        self.ended(&lost).await;
    }

    /// Without a stream.
    async fn connected(&mut self, state: LinkState) {
        self.drop_queued();
        self.note(state, None, self.declared);
        let Declared { asks, compensates } = self.declared;
        let (participant, journal) = (self.participant, None);
        let connected = Event::Connected { participant, asks, compensates, journal };
        self.handle.events(vec![connected]).await;
    }

    fn note(&self, state: LinkState, journal: Option<common::JournalId>, declared: Declared) {
        let link = state.as_str_name();
        tracing::info!(participant = %self.name, link, "connected");
        self.handle.directory.update(self.participant, |participant| {
            participant.link = state;
            participant.last_error = "".into();
            participant.journal = journal;
            participant.on_its_link = Some(declared);
        });
    }

    async fn ended(&self, lost: &Lost) {
        self.stop_if_fenced(lost).await;
        let said = lost.to_string();
        tracing::warn!(participant = %self.name, error = said, "link lost");
        self.handle.directory.update(self.participant, |participant| {
            participant.link = LinkState::Disconnected;
            participant.last_error = said.into();
        });
    }

    /// Messages from before the link: the machine sends them again.
    fn drop_queued(&mut self) {
        while self.queue.try_recv().is_ok() {}
    }

    async fn stop_if_fenced(&self, lost: &Lost) {
        match lost {
            Lost::Status(status) => stop_if_fenced(&self.name, status, &self.handle).await,
            Lost::Fenced(known) => stop_for(&self.name, *known, &self.handle).await,
            _ => {}
        }
    }

    /// Waits, after so many failures in a row.
    async fn rest(&self, failures: u32) {
        let step = BACKOFF.saturating_mul(1 << failures.min(10)).min(BACKOFF_CAP);
        let [random, ..] = (self.handle.environment.random)();
        tokio::time::sleep(step.mul_f64(0.5 + 0.5 * f64::from(random) / 255.0)).await;
    }
}

/// Ends the process if a participant refused this run for a newer one: from now
/// on the decisions are the other's (rule 10).
async fn stop_if_fenced(participant: &str, status: &Status, handle: &Handle) {
    if let Some(known) = fence::newer_epoch(status, &handle.journal.run()) {
        stop_for(participant, known, handle).await;
    }
}

async fn stop_for(participant: &str, known_epoch: u64, handle: &Handle) {
    tracing::error!(
        participant,
        own_epoch = handle.journal.run().epoch,
        known_epoch,
        "another run of this coordinator has taken over; stopping. If its data folder was copied, \
         stop one of the two for good"
    );
    handle.environment.halt(common_service::Exit::Fenced).await;
}

/// An error with what led to it: a transport's own text is that of its last step.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
