//! A participant by script: a real gRPC or HTTP server that answers what a test
//! says, and remembers what it heard. It keeps no promises.

mod gate;
mod http;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dtc_proto::dtc::{
    AbortReason, Acknowledgement, CommitRequest, CommitResponse, LinkAcknowledgement, LinkHello,
    LinkInquiry, LinkOutcome, LinkRequest, LinkResponse, LinkVote, Origin, Payload, PrepareRequest,
    PrepareResponse, RollbackRequest, RollbackResponse, Vote,
    participant_service_server::{ParticipantService, ParticipantServiceServer},
};
use dtc_proto::marker::{EPOCH, FENCED, ROLLED_BACK, UNKNOWN_BRANCH, mark};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

pub use gate::Gate;
pub(crate) use http::Body;

const QUEUE: usize = 1024;

/// What came, by call or by link.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// To promise a branch.
    Prepare(PrepareRequest),
    /// To commit it.
    Commit(CommitRequest),
    /// To roll it back.
    Rollback(RollbackRequest),
    /// A link was opened.
    Hello(Origin),
    /// The answer to a question asked with [`FakeParticipant::ask`].
    Outcome(LinkOutcome),
}

/// Whether it is a prepare, by call or by link.
pub fn is_prepare(heard: &Heard) -> bool {
    matches!(heard, Heard::Prepare(_))
}

/// Whether it is a commit, by call or by link.
pub fn is_commit(heard: &Heard) -> bool {
    matches!(heard, Heard::Commit(_))
}

/// What is answered to prepare, commit or rollback.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To prepare: a promise, with an output.
    Promise(Option<Payload>),
    /// To prepare: read-only.
    ReadOnly,
    /// To prepare: a refusal with this code.
    Refuse(String),
    /// To commit, or to a prepare in one phase: committed. To rollback: it had
    /// been committed before.
    Committed,
    /// To rollback: done. To commit: it had been rolled back.
    RolledBack,
    /// The branch is unknown.
    Unknown,
    /// It could not be done now.
    Failed(String),
    /// A status of gRPC as frameworks send them, without the protocol's mark.
    Status(tonic::Code, String),
    /// The same over HTTP: a status, headers, a body.
    Http(u16, Vec<(&'static str, String)>, String),
    /// The participant says that it knows this epoch of the coordinator.
    Fenced(u64),
    /// No answer, ever.
    Silence,
    /// An answer after a while.
    After(Duration, Box<Reply>),
}

/// How a participant is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// gRPC, with a link.
    Link,
    /// gRPC, the three calls only.
    Calls,
    /// HTTP, and it tells its journal.
    Http,
}

impl Speaks {
    /// All the ways.
    pub const ALL: [Self; 3] = [Self::Link, Self::Calls, Self::Http];
}

/// What a participant without a will of its own says: yes to everything.
pub fn agree(heard: &Heard) -> Reply {
    match heard {
        Heard::Prepare(request) if request.one_phase => Reply::Committed,
        Heard::Prepare(_) => Reply::Promise(None),
        Heard::Commit(_) => Reply::Committed,
        _ => Reply::RolledBack,
    }
}

type Script = Box<dyn FnMut(&Heard) -> Reply + Send>;

struct State {
    journal_id: Uuid,
    /// Whether votes name it too.
    votes_name_it: bool,
    heard: Vec<Heard>,
    script: Script,
    link: Option<mpsc::Sender<Result<LinkResponse, Status>>>,
}

type Shared = Arc<Mutex<State>>;

impl State {
    fn new() -> Shared {
        Arc::new(Mutex::new(Self {
            journal_id: Uuid::from_u128(0x0fa4e),
            votes_name_it: true,
            heard: Vec::new(),
            script: Box::new(agree),
            link: None,
        }))
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A participant by script. Ends when dropped.
pub struct FakeParticipant {
    address: SocketAddr,
    speaks: Speaks,
    state: Shared,
    serving: JoinHandle<()>,
}

impl FakeParticipant {
    /// One that agrees to everything until a script is set.
    ///
    /// # Errors
    ///
    /// When there is no port to be had.
    pub async fn start(speaks: Speaks) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State::new();
        let serving = match speaks {
            Speaks::Http => tokio::spawn(http::serve(listener, Arc::clone(&state))),
            Speaks::Link | Speaks::Calls => {
                let link = speaks == Speaks::Link;
                let service = Service { state: Arc::clone(&state), link };
                tokio::spawn(serve_grpc(listener, ParticipantServiceServer::new(service)))
            }
        };
        Ok(Self { address, speaks, state, serving })
    }

    /// Where it serves, as a coordinator wants it.
    pub fn uri(&self) -> String {
        self.uri_at(self.address)
    }

    /// The same if it were there, say behind a proxy.
    pub fn uri_at(&self, address: SocketAddr) -> String {
        match self.speaks {
            Speaks::Link | Speaks::Calls => format!("http://{address}"),
            Speaks::Http => format!("http://{address}/base/prepare"),
        }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers by `script` from now on.
    pub fn set_script(&self, script: impl FnMut(&Heard) -> Reply + Send + 'static) {
        lock(&self.state).script = Box::new(script);
    }

    /// Has another journal from now on, as after the loss of its disk.
    pub fn set_journal_id(&self, journal_id: Uuid) {
        lock(&self.state).journal_id = journal_id;
    }

    /// Over HTTP: names its journal with acknowledgements only, and not with its votes.
    pub fn vote_without_journal_id(&self) {
        lock(&self.state).votes_name_it = false;
    }

    /// Everything that came, in order.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.state).heard.clone()
    }

    /// Asks for the outcome of a branch on the link; false without one.
    pub async fn ask(&self, inquiry: LinkInquiry) -> bool {
        let link = lock(&self.state).link.clone();
        let message = LinkResponse { inquiries: vec![inquiry], ..LinkResponse::default() };
        match link {
            Some(link) => link.send(Ok(message)).await.is_ok(),
            None => false,
        }
    }

    /// Sends anything on the link; false without one.
    pub async fn say(&self, message: LinkResponse) -> bool {
        let link = lock(&self.state).link.clone();
        match link {
            Some(link) => link.send(Ok(message)).await.is_ok(),
            None => false,
        }
    }
}

impl Drop for FakeParticipant {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve_grpc(listener: TcpListener, service: ParticipantServiceServer<Service>) {
    let incoming = TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    // It ends with the test.
    let _ = server.serve_with_incoming(incoming).await;
}

struct Service {
    state: Shared,
    link: bool,
}

/// Notes what came and looks up the answer; waits if the script says so. None: no
/// answer.
async fn reply(state: &Shared, heard: Heard) -> Option<Reply> {
    let mut reply = {
        let mut state = lock(state);
        let reply = (state.script)(&heard);
        state.heard.push(heard);
        reply
    };
    loop {
        match reply {
            Reply::After(delay, then) => {
                tokio::time::sleep(delay).await;
                reply = *then;
            }
            Reply::Silence => return None,
            reply => return Some(reply),
        }
    }
}

fn misfit(reply: &Reply) -> Status {
    match reply {
        Reply::Status(code, message) => return Status::new(*code, message),
        Reply::Fenced(epoch) => {
            let mut status = mark(Status::failed_precondition("a newer run is known"), FENCED);
            status.metadata_mut().insert(EPOCH, (*epoch).into());
            return status;
        }
        _ => {}
    }
    Status::internal(format!("the script's answer {reply:?} does not fit the call"))
}

fn reason(code: String) -> AbortReason {
    AbortReason { code, message: "the script says so".into(), participant: String::new() }
}

#[tonic::async_trait]
impl ParticipantService for Service {
    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<PrepareResponse>, Status> {
        let reply = reply(&self.state, Heard::Prepare(request.into_inner())).await;
        let journal_id = lock(&self.state).journal_id.to_string();
        let Some(reply) = reply else { return std::future::pending().await };
        let answer = PrepareResponse { journal_id, ..PrepareResponse::default() };
        Ok(Response::new(match reply {
            Reply::Promise(output) => {
                PrepareResponse { vote: Vote::Commit.into(), output, ..answer }
            }
            Reply::ReadOnly => PrepareResponse { vote: Vote::ReadOnly.into(), ..answer },
            Reply::Committed => {
                PrepareResponse { vote: Vote::Commit.into(), committed: true, ..answer }
            }
            Reply::Refuse(code) => PrepareResponse {
                vote: Vote::Abort.into(),
                abort_reason: Some(reason(code)),
                ..answer
            },
            Reply::Failed(message) => return Err(Status::internal(message)),
            reply => return Err(misfit(&reply)),
        }))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitResponse>, Status> {
        let reply = reply(&self.state, Heard::Commit(request.into_inner())).await;
        let journal_id = lock(&self.state).journal_id.to_string();
        match reply {
            None => std::future::pending().await,
            Some(Reply::Committed) => Ok(Response::new(CommitResponse { journal_id })),
            Some(Reply::Unknown) => {
                Err(mark(Status::not_found("the branch is unknown"), UNKNOWN_BRANCH))
            }
            Some(Reply::RolledBack) => {
                Err(mark(Status::aborted("the branch was rolled back"), ROLLED_BACK))
            }
            Some(Reply::Failed(message)) => Err(Status::internal(message)),
            Some(reply) => Err(misfit(&reply)),
        }
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<RollbackResponse>, Status> {
        let reply = reply(&self.state, Heard::Rollback(request.into_inner())).await;
        let journal_id = lock(&self.state).journal_id.to_string();
        let answer = |committed| Ok(Response::new(RollbackResponse { journal_id, committed }));
        match reply {
            None => std::future::pending().await,
            Some(Reply::RolledBack) => answer(false),
            Some(Reply::Committed) => answer(true),
            Some(Reply::Unknown) => {
                Err(mark(Status::not_found("the branch is unknown"), UNKNOWN_BRANCH))
            }
            Some(Reply::Failed(message)) => Err(Status::internal(message)),
            Some(reply) => Err(misfit(&reply)),
        }
    }

    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        if !self.link {
            return Err(Status::unimplemented("this participant has no link"));
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(serve_link(Arc::clone(&self.state), request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn serve_link(
    state: Shared,
    mut requests: Streaming<LinkRequest>,
    answers: mpsc::Sender<Result<LinkResponse, Status>>,
) {
    let mut origin = Origin::default();
    while let Ok(Some(message)) = requests.message().await {
        if let Some(hello) = &message.hello {
            origin = hello.clone();
            let journal_id = {
                let mut state = lock(&state);
                state.heard.push(Heard::Hello(origin.clone()));
                state.link = Some(answers.clone());
                state.journal_id.as_bytes().to_vec().into()
            };
            let hello = Some(LinkHello { journal_id, compensates: true });
            let _ = answers.send(Ok(LinkResponse { hello, ..LinkResponse::default() })).await;
        }
        lock(&state).heard.extend(message.outcomes.iter().cloned().map(Heard::Outcome));
        for heard in requests_of(&origin, message) {
            // Beside each other: one that is answered late holds up no other.
            let (state, answers) = (Arc::clone(&state), answers.clone());
            tokio::spawn(async move {
                let asked = heard.clone();
                if let Some(reply) = reply(&state, heard).await {
                    let _ = answers.send(link_answer(&asked, reply)).await;
                }
            });
        }
    }
}

/// The batch as the calls that it stands for.
fn requests_of(origin: &Origin, message: LinkRequest) -> Vec<Heard> {
    let origin = || Some(origin.clone());
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap_or_default().to_string();
    let prepares = message.prepares.into_iter().map(|it| {
        Heard::Prepare(PrepareRequest {
            origin: origin(),
            transaction_id: id(&it.transaction_id),
            branch: it.branch,
            payload: it.payload,
            one_phase: it.one_phase,
            ..PrepareRequest::default()
        })
    });
    let commits = message.commits.into_iter().map(|it| {
        Heard::Commit(CommitRequest {
            origin: origin(),
            transaction_id: id(&it.transaction_id),
            branch: it.branch,
            decision_number: it.decision_number,
            output: it.output,
        })
    });
    let rollbacks = message.rollbacks.into_iter().map(|it| {
        Heard::Rollback(RollbackRequest {
            origin: origin(),
            transaction_id: id(&it.transaction_id),
            branch: it.branch,
            decision_number: it.decision_number,
            output: it.output,
            compensate: it.compensate,
        })
    });
    prepares.chain(commits).chain(rollbacks).collect()
}

fn link_answer(asked: &Heard, reply: Reply) -> Result<LinkResponse, Status> {
    let id = |text: &str| {
        let id = Uuid::try_parse(text).unwrap_or_default();
        prost::bytes::Bytes::copy_from_slice(id.as_bytes())
    };
    let (transaction_id, branch, decision_number) = match asked {
        Heard::Prepare(it) => return link_vote(id(&it.transaction_id), it.branch, reply),
        Heard::Commit(it) => (id(&it.transaction_id), it.branch, it.decision_number),
        Heard::Rollback(it) => (id(&it.transaction_id), it.branch, it.decision_number),
        Heard::Hello(_) | Heard::Outcome(_) => return Err(misfit(&reply)),
    };
    let (acknowledgement, message) = match reply {
        Reply::Committed => (Acknowledgement::Committed, String::new()),
        Reply::RolledBack => (Acknowledgement::RolledBack, String::new()),
        Reply::Unknown => (Acknowledgement::Unknown, String::new()),
        Reply::Failed(message) => (Acknowledgement::Failed, message),
        reply => return Err(misfit(&reply)),
    };
    let acknowledgement = LinkAcknowledgement {
        transaction_id,
        branch,
        acknowledgement: acknowledgement.into(),
        message,
        decision_number,
        ..LinkAcknowledgement::default()
    };
    Ok(LinkResponse { acknowledgements: vec![acknowledgement], ..LinkResponse::default() })
}

fn link_vote(
    transaction_id: prost::bytes::Bytes,
    branch: u32,
    reply: Reply,
) -> Result<LinkResponse, Status> {
    let vote = LinkVote { transaction_id, branch, ..LinkVote::default() };
    let vote = match reply {
        Reply::Promise(output) => LinkVote { vote: Vote::Commit.into(), output, ..vote },
        Reply::ReadOnly => LinkVote { vote: Vote::ReadOnly.into(), ..vote },
        Reply::Committed => LinkVote { vote: Vote::Commit.into(), committed: true, ..vote },
        Reply::Refuse(code) => {
            LinkVote { vote: Vote::Abort.into(), abort_reason: Some(reason(code)), ..vote }
        }
        reply => return Err(misfit(&reply)),
    };
    Ok(LinkResponse { votes: vec![vote], ..LinkResponse::default() })
}
