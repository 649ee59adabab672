//! One call a message, for a participant that offers no link.

use std::{sync::Arc, time::Duration};

use dtc_core::{Acknowledgement, Event, Failure, Message, ParticipantId};
use dtc_proto::{
    dtc::{
        CommitRequest, Origin, PrepareRequest, RollbackRequest,
        participant_service_client::ParticipantServiceClient,
    },
    marker::{ROLLED_BACK, UNKNOWN_BRANCH, marker},
};
use dtc_protocol::{JournalId, TransactionId};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::fence;
use super::{
    CONNECT_TIMEOUT, Link, Lost,
    batch::payload,
    calls::{self, Heard},
    inbound, transport,
};
use crate::driver::Handle;

use transport::Trouble;

/// What was done, and with which journal, where the answer names one.
type Done = (Option<JournalId>, Acknowledgement);

/// What a call needs beside its message.
#[derive(Clone)]
struct Caller {
    participant: ParticipantId,
    name: Arc<str>,
    origin: Origin,
    handle: Handle,
    client: ParticipantServiceClient<Channel>,
    heard: Heard,
}

/// Works until a call shows that the participant is away.
pub(super) async fn run(link: &mut Link, channel: Channel) -> Lost {
    let heard = Heard::now();
    let caller = Caller {
        participant: link.participant,
        name: link.name.clone(),
        origin: link.origin.clone(),
        handle: link.handle.clone(),
        client: ParticipantServiceClient::new(channel.clone()),
        heard: heard.clone(),
    };
    calls::run(link, caller, calls::watch(heard, || probe(channel.clone()))).await
}

/// Any answer will do, 'unimplemented' too: what accepts connections may be a proxy with
/// nobody behind it.
async fn probe(channel: Channel) -> Result<(), Lost> {
    let check = request(HealthCheckRequest::default(), CONNECT_TIMEOUT);
    match HealthClient::new(channel).check(check).await {
        Err(status) if transport::trouble(&status) == Trouble::ConnectionLost => {
            Err(Lost::Status(status))
        }
        _ => Ok(()),
    }
}

impl calls::Caller for Caller {
    async fn call(mut self, call: calls::Call) -> Option<Lost> {
        let (id, branch, attempt) = (call.id, call.branch, call.attempt);
        let name = match &call.message {
            Message::Prepare { .. } => "prepare",
            Message::Commit { .. } => "commit",
            Message::Rollback { .. } => "rollback",
        };
        let status = match self.attempt(call).await {
            Ok(event) => {
                self.heard.again();
                self.handle.events(vec![event]).await;
                return None;
            }
            Err(status) => status,
        };
        let why = match transport::trouble(&status) {
            // The machine has timed it itself.
            Trouble::Late => return None,
            Trouble::Answered => {
                self.heard.again();
                let (code, message) = (transport::name(status.code()), status.message());
                Failure::answered(&format!("{name} was answered {code}: {message}"))
            }
            Trouble::CallLost | Trouble::ConnectionLost => {
                let causes = super::with_causes(&status);
                Failure::lost(&format!("{name} got no answer: {causes}"))
            }
        };
        tracing::debug!(participant = %self.name, transaction = %id, branch, error = %why.what,
            "no valid answer");
        let participant = self.participant;
        self.handle.directory.update(participant, |it| it.last_error = Arc::clone(&why.what));
        let event = Event::Unreachable { participant, id, branch, attempt, why };
        self.handle.events(vec![event]).await;
        if let Some(known) = fence::newer_epoch(&status, &self.handle.journal.run()) {
            return Some(Lost::Fenced(known));
        }
        // What was answered says nothing about the calls of others.
        (transport::trouble(&status) == Trouble::ConnectionLost).then_some(Lost::Status(status))
    }
}

impl Caller {
    async fn attempt(&mut self, call: calls::Call) -> Result<Event, Status> {
        let calls::Call { id, branch, message, timeout, .. } = call;
        let of = (id, branch);
        match message {
            Message::Prepare { payload: it, one_phase, may_compensate, age } => {
                let body = PrepareRequest {
                    origin: Some(self.origin.clone()),
                    transaction_id: id.to_string(),
                    branch,
                    payload: payload(&it),
                    one_phase,
                    retry_of: if age == id { String::new() } else { age.to_string() },
                    may_compensate,
                };
                self.prepare(of, request(body, timeout)).await
            }
            Message::Commit { number, output } => {
                let body = CommitRequest {
                    origin: Some(self.origin.clone()),
                    transaction_id: id.to_string(),
                    branch,
                    decision_number: number,
                    output: output.as_ref().and_then(payload),
                };
                let done = self.commit(request(body, timeout)).await?;
                Ok(self.acknowledged(of, number, done))
            }
            Message::Rollback { number, output, compensate } => {
                let body = RollbackRequest {
                    origin: Some(self.origin.clone()),
                    transaction_id: id.to_string(),
                    branch,
                    decision_number: number,
                    output: output.as_ref().and_then(payload),
                    compensate,
                };
                let done = self.rollback(request(body, timeout)).await?;
                Ok(self.acknowledged(of, number, done))
            }
        }
    }

    async fn prepare(
        &mut self,
        (id, branch): (TransactionId, u32),
        request: Request<PrepareRequest>,
    ) -> Result<Event, Status> {
        let from = self.participant;
        let answer = self.client.prepare(request).await?.into_inner();
        let journal = Some(journal_id(&answer.journal_id)?);
        let kind = answer.vote();
        let (output, reason) = (answer.output, answer.abort_reason);
        let vote = inbound::vote(from, kind, output, reason, answer.committed)
            .map_err(|what| Status::internal(format!("the participant sent {what}")))?;
        Ok(Event::Voted { from, journal, id, branch, vote })
    }

    async fn commit(&mut self, request: Request<CommitRequest>) -> Result<Done, Status> {
        match self.client.commit(request).await {
            Ok(answer) => {
                let journal = journal_id(&answer.into_inner().journal_id)?;
                Ok((Some(journal), Acknowledgement::Committed))
            }
            // Frameworks and proxies have these codes too, without the mark.
            Err(status) => match (status.code(), marker(&status)) {
                (Code::NotFound, Some(UNKNOWN_BRANCH)) => Ok((None, Acknowledgement::Unknown)),
                (Code::Aborted, Some(ROLLED_BACK)) => Ok((None, Acknowledgement::RolledBack)),
                _ => Err(status),
            },
        }
    }

    async fn rollback(&mut self, request: Request<RollbackRequest>) -> Result<Done, Status> {
        let compensate = request.get_ref().compensate;
        let answer = match self.client.rollback(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status)
                if compensate
                    && status.code() == Code::NotFound
                    && marker(&status) == Some(UNKNOWN_BRANCH) =>
            {
                return Ok((None, Acknowledgement::Unknown));
            }
            Err(status) => return Err(status),
        };
        let journal = Some(journal_id(&answer.journal_id)?);
        Ok(match answer.committed {
            true => (journal, Acknowledgement::Committed),
            false => (journal, Acknowledgement::RolledBack),
        })
    }

    fn acknowledged(
        &self,
        (id, branch): (TransactionId, u32),
        number: u32,
        (journal, acknowledgement): Done,
    ) -> Event {
        Event::Acknowledged { from: self.participant, journal, id, branch, number, acknowledgement }
    }
}

fn request<T>(body: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(body);
    request.set_timeout(timeout);
    request
}

fn journal_id(text: &str) -> Result<JournalId, Status> {
    text.parse()
        .map_err(|_| Status::internal(format!("the participant's journal_id '{text}' is no UUID")))
}
