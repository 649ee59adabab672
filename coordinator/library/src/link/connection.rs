//! A participant's link: connecting, staying connected, and what goes over it.
//!
//! Invariants:
//! - What is queued for a link that is lost is dropped; the machine sends again
//!   what it is still owed once the participant is connected.
//! - 'Connected' is reported only after the participant accepted this run
//!   (rule 10).

use std::{sync::Arc, time::Duration};

use dtc_core::{Event, ParticipantId};
use dtc_proto::dtc::Origin;
use dtc_protocol::fence::Run;
use tokio::{sync::mpsc, time::Instant};
use {
    dtc_proto::dtc::participant_service_client::ParticipantServiceClient,
    tonic::{
        Status,
        transport::{Channel, Endpoint},
    },
};

use super::fence;
use super::http;
use super::{stream, unary};
use crate::{
    address::Address,
    directory::LinkState,
    driver::{Handle, Outgoing},
    journal::Capabilities,
};

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(3);
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The first wait before connecting again; doubled up to the cap.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(2);
/// The same for one that speaks of a newer run: it may come to its senses.
const QUARANTINE: Duration = Duration::from_secs(5);
const QUARANTINE_CAP: Duration = Duration::from_secs(60);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("{}", with_causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("{0}")]
    Protocol(String),
    #[error("{0}")]
    Http(String),
    #[error("the participant says that it knows a newer run of this coordinator, of epoch {0}")]
    Fenced(u64),
}

impl Lost {
    /// The epoch that the participant knows, if it refused this run for a newer one.
    fn newer_epoch(&self, own: &Run) -> Option<u64> {
        match self {
            Self::Status(status) => fence::newer_epoch(status, own),
            Self::Fenced(epoch) => Some(*epoch),
            _ => None,
        }
    }
}

/// One participant's link.
pub(crate) struct Link {
    pub(crate) participant: ParticipantId,
    pub(crate) name: Arc<str>,
    pub(crate) address: Arc<Address>,
    pub(crate) target: Target,
    pub(crate) client: http::Client,
    /// For where no stream says them.
    pub(crate) capabilities: Capabilities,
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
        let (mut failures, mut accusations) = (0_u32, 0_u32);
        while !self.queue.is_closed() {
            let since = Instant::now();
            let (lost, worked) = match self.connect().await {
                Ok(lost) => (lost, true),
                Err(lost) => (lost, false),
            };
            let lasted = worked && since.elapsed() > BACKOFF_CAP;
            let newer = lost.newer_epoch(&self.handle.journal.run());
            // One that is accepted and lost again and again must not be tried without
            // a pause.
            failures = if lasted { 0 } else { failures.saturating_add(1) };
            accusations = match newer {
                Some(_) => accusations.saturating_add(1),
                None if lasted => 0,
                None => accusations,
            };
            self.report_lost(&lost, worked || failures == 1).await;
            if let Some(seen) = newer
                && !fence::accused(&self.handle, self.participant, &self.name, seen).await
            {
                return;
            }
            match newer {
                Some(_) => self.rest(QUARANTINE, accusations - 1, QUARANTINE_CAP).await,
                None if failures > 0 => self.rest(BACKOFF, failures, BACKOFF_CAP).await,
                None => {}
            }
        }
    }

    async fn report_lost(&self, lost: &Lost, is_news: bool) {
        let said = lost.to_string();
        if is_news {
            tracing::warn!(participant = %self.name, error = said, "no link; connecting again");
        }
        let why: Arc<str> = said.into();
        self.handle.directory.update(self.participant, |participant| {
            participant.link = LinkState::Disconnected;
            participant.last_error = Arc::clone(&why);
        });
        let gone = Event::Disconnected { participant: self.participant, why };
        self.handle.events(vec![gone]).await;
    }

    /// One connection's life: how it was lost, or why there was none.
    async fn connect(&mut self) -> Result<Lost, Lost> {
        match self.target.clone() {
            Target::Grpc(endpoint) => self.grpc(&endpoint).await,
            Target::Http(base) => {
                http::probe(&self.handle.environment.network, &self.address).await?;
                Ok(self.http(base).await)
            }
        }
    }

    async fn grpc(&mut self, endpoint: &Endpoint) -> Result<Lost, Lost> {
        let channel = self.handle.environment.network.connect(endpoint).await?;
        let client = ParticipantServiceClient::new(channel.clone());
        match stream::open(client, self.origin.clone()).await {
            Ok(opened) => Ok(self.stream(opened).await),
            Err(Lost::Status(status)) if status.code() == tonic::Code::Unimplemented => {
                Ok(self.unary(channel).await)
            }
            Err(lost) => Err(lost),
        }
    }

    async fn stream(&mut self, opened: stream::Opened) -> Lost {
        let (journal, compensates) = (opened.journal, opened.compensates);
        self.drop_queued();
        let supports_inquiry = true;
        self.note(LinkState::Stream, Some(journal), Capabilities { supports_inquiry, compensates });
        let (participant, journal) = (self.participant, Some(journal));
        let connected = Event::Connected { participant, supports_inquiry, compensates, journal };
        self.handle.events(vec![connected]).await;
        stream::run(self, opened).await
    }

    async fn unary(&mut self, channel: Channel) -> Lost {
        self.connected(LinkState::Unary).await;
        unary::run(self, channel).await
    }

    async fn http(&mut self, base: String) -> Lost {
        self.connected(LinkState::Http).await;
        http::run(self, base).await
    }

    /// Without a stream.
    async fn connected(&mut self, state: LinkState) {
        self.drop_queued();
        self.note(state, None, self.capabilities);
        let Capabilities { supports_inquiry, compensates } = self.capabilities;
        let (participant, journal) = (self.participant, None);
        let connected = Event::Connected { participant, supports_inquiry, compensates, journal };
        self.handle.events(vec![connected]).await;
    }

    fn note(
        &self,
        state: LinkState,
        journal: Option<dtc_protocol::JournalId>,
        capabilities: Capabilities,
    ) {
        tracing::info!(participant = %self.name, link = ?state, "connected");
        self.handle.directory.update(self.participant, |participant| {
            participant.link = state;
            participant.last_error = "".into();
            participant.newer_epoch = None;
            participant.journal = journal;
            participant.on_its_link = Some(capabilities);
        });
    }

    /// Messages from before the link: the machine sends them again.
    fn drop_queued(&mut self) {
        while self.queue.try_recv().is_ok() {}
    }

    /// Waits, after so many failures in a row.
    async fn rest(&self, first: Duration, failures: u32, cap: Duration) {
        let step = first.saturating_mul(1 << failures.min(10)).min(cap);
        let [random, ..] = (self.handle.environment.random)();
        tokio::time::sleep(step.mul_f64(0.5 + 0.5 * f64::from(random) / 255.0)).await;
    }
}

/// An error with what led to it: a transport's own text is that of its last step.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
