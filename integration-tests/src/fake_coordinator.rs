//! A coordinator by script, against a real participant: by calls and by link.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use dtc_proto::dtc::{
    CommitRequest, CommitResponse, LinkRequest, LinkResponse, Origin, Payload, PrepareRequest,
    PrepareResponse, RollbackRequest, RollbackResponse,
    participant_service_client::ParticipantServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use uuid::Uuid;

use crate::{DEADLINE, channel};

const QUEUE: usize = 1024;

/// A run of a coordinator that a test speaks for.
#[derive(Debug, Clone)]
pub struct FakeCoordinator {
    /// Sent with every call and link.
    pub origin: Origin,
    client: ParticipantServiceClient<Channel>,
}

impl FakeCoordinator {
    /// The run `(epoch, incarnation)` of the coordinator `id`, speaking to a
    /// participant.
    pub fn new(participant: SocketAddr, id: Uuid, epoch: u64, incarnation: Uuid) -> Self {
        let origin = Origin {
            coordinator_id: id.to_string(),
            epoch,
            incarnation: incarnation.to_string(),
            recovery_address: String::new(),
        };
        Self { origin, client: ParticipantServiceClient::new(channel(participant)) }
    }

    /// As another run of the same coordinator.
    #[must_use]
    pub fn run(&self, epoch: u64, incarnation: Uuid) -> Self {
        let mut other = self.clone();
        other.origin.epoch = epoch;
        other.origin.incarnation = incarnation.to_string();
        other
    }

    /// Prepare, by call.
    ///
    /// # Errors
    ///
    /// What the participant says.
    pub async fn prepare(
        &self,
        transaction: Uuid,
        branch: u32,
        payload: Payload,
    ) -> Result<PrepareResponse, Status> {
        self.prepare_with(transaction, branch, payload, false).await
    }

    /// Prepare and commit in one phase, by call.
    ///
    /// # Errors
    ///
    /// What the participant says.
    pub async fn one_phase(
        &self,
        transaction: Uuid,
        branch: u32,
        payload: Payload,
    ) -> Result<PrepareResponse, Status> {
        self.prepare_with(transaction, branch, payload, true).await
    }

    async fn prepare_with(
        &self,
        transaction: Uuid,
        branch: u32,
        payload: Payload,
        one_phase: bool,
    ) -> Result<PrepareResponse, Status> {
        let request = PrepareRequest {
            origin: Some(self.origin.clone()),
            transaction_id: transaction.to_string(),
            branch,
            payload: Some(payload),
            one_phase,
            ..PrepareRequest::default()
        };
        Ok(self.client.clone().prepare(request).await?.into_inner())
    }

    /// Commit, by call.
    ///
    /// # Errors
    ///
    /// What the participant says.
    pub async fn commit(&self, transaction: Uuid, branch: u32) -> Result<CommitResponse, Status> {
        let request = CommitRequest {
            origin: Some(self.origin.clone()),
            transaction_id: transaction.to_string(),
            branch,
            decision_number: 1,
            output: None,
        };
        Ok(self.client.clone().commit(request).await?.into_inner())
    }

    /// Rollback, by call.
    ///
    /// # Errors
    ///
    /// What the participant says.
    pub async fn rollback(
        &self,
        transaction: Uuid,
        branch: u32,
    ) -> Result<RollbackResponse, Status> {
        let request = RollbackRequest {
            origin: Some(self.origin.clone()),
            transaction_id: transaction.to_string(),
            branch,
            decision_number: 1,
            ..RollbackRequest::default()
        };
        Ok(self.client.clone().rollback(request).await?.into_inner())
    }

    /// Opens a link and says hello.
    ///
    /// # Errors
    ///
    /// What the participant says.
    pub async fn link(&self) -> Result<FakeLink, Status> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let hello = LinkRequest { hello: Some(self.origin.clone()), ..LinkRequest::default() };
        requests.send(hello).await.map_err(|_| Status::internal("the link's queue is closed"))?;
        let responses = self.client.clone().link(ReceiverStream::new(receiver)).await?;
        Ok(FakeLink { requests, responses: responses.into_inner() })
    }
}

/// The coordinator's end of a link.
#[derive(Debug)]
pub struct FakeLink {
    requests: mpsc::Sender<LinkRequest>,
    responses: Streaming<LinkResponse>,
}

impl FakeLink {
    /// Sends a batch.
    ///
    /// # Errors
    ///
    /// When the link is closed.
    pub async fn send(&self, request: LinkRequest) -> anyhow::Result<()> {
        self.requests.send(request).await.context("the link is closed")
    }

    /// The next batch from the participant.
    ///
    /// # Errors
    ///
    /// When the link ends, or nothing comes.
    pub async fn next(&mut self) -> anyhow::Result<LinkResponse> {
        tokio::time::timeout(DEADLINE, self.responses.message())
            .await
            .context("nothing came on the link")??
            .context("the link has ended")
    }

    /// What comes within `limit`, if anything: to show that nothing does.
    ///
    /// # Errors
    ///
    /// When the link ends.
    pub async fn next_within(&mut self, limit: Duration) -> anyhow::Result<Option<LinkResponse>> {
        match tokio::time::timeout(limit, self.responses.message()).await {
            Err(_) => Ok(None),
            Ok(message) => message?.context("the link has ended").map(Some),
        }
    }
}
