//! The coordinator within another program.

mod error;
mod local;
mod optimistic;
mod outcome;
mod resource;
mod start;

use std::{sync::Arc, time::Duration};

pub use dtc_core::CommitPolicy;
use dtc_core::{AnswerAt, NewBranch, Opaque, Reply};
use dtc_proto::dtc::Payload;
use dtc_protocol::TransactionId;
use dtc_runtime::Environment;
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
};

pub use error::{Error, OpenError, Phase, Source};
pub use optimistic::OptimisticResource;
pub use resource::{BoxError, Branch, Closures, Participant, Resource, Vote};

use crate::{
    api::{self, Coordinator},
    driver::{Call, Stopped},
    journal::{Journal, MemoryJournal},
    start::Config,
};
use local::{Locals, shown};
use outcome::{error as failure, outcome, refusal};
use start::{environment, parts};

/// Bytes of disk that are kept from new work.
#[cfg(feature = "sqlite")]
const MIN_FREE: u64 = 64 << 20;
/// How long what finished is remembered in memory.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How a coordinator runs its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long votes are waited for before a transaction rolls back.
    pub prepare_timeout: Duration,
    /// How long one attempt of commit or rollback may take before it is made again.
    pub decision_timeout: Duration,
    /// How long a transaction may stand idle between begin and commit.
    pub idle_timeout: Duration,
    /// How long a call waits for all resources to have done what was decided.
    pub wait: Duration,
    /// How long a journal on disk keeps what finished.
    pub retention: Duration,
    /// What becomes of a commit that keeps failing.
    pub commit_policy: CommitPolicy,
    /// How many transactions may be going on.
    pub max_in_flight: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let Config { core, retention, .. } = Config::default();
        Self {
            prepare_timeout: core.options.prepare_timeout,
            decision_timeout: core.options.commit_attempt_timeout,
            idle_timeout: core.options.idle_timeout,
            wait: Duration::from_secs(30),
            retention: retention.age,
            commit_policy: core.options.commit_policy,
            max_in_flight: core.max_in_flight,
        }
    }
}

/// A branch that nobody answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its transaction.
    pub transaction: TransactionId,
    /// The resource's name, or its type, as it was when it was enlisted.
    pub resource: String,
    /// Whether it is to be committed; it is to be rolled back otherwise.
    pub committed: bool,
}

/// Two-phase commit over [`Resource`]s of this program, remote participants, or both:
/// the machine and the journal of the coordinator's service, without its port.
///
/// Cheap to clone. Its driver and journal have threads of their own; resources are
/// called in the runtime in which it was made.
///
/// ```
/// use dtc::{Resource, TransactionCoordinator, async_trait};
/// use std::sync::{Arc, Mutex};
///
/// /// A number that changes on commit only.
/// struct Balance { change: i64, held: Mutex<bool>, balance: Arc<Mutex<i64>> }
///
/// #[async_trait]
/// impl Resource for Balance {
///     async fn prepare(&self) -> Result<bool, String> {
///         let enough = *self.balance.lock().unwrap() + self.change >= 0;
///         *self.held.lock().unwrap() = enough;
///         Ok(enough)
///     }
///     async fn commit(&self) -> Result<(), String> {
///         // It may be called again: the change is made once.
///         if std::mem::take(&mut *self.held.lock().unwrap()) {
///             *self.balance.lock().unwrap() += self.change;
///         }
///         Ok(())
///     }
///     async fn rollback(&self) -> Result<(), String> {
///         *self.held.lock().unwrap() = false;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let coordinator = TransactionCoordinator::in_memory().await?;
/// let (ada, bob) = (Arc::new(Mutex::new(100)), Arc::new(Mutex::new(0)));
/// let by = |change, balance: &Arc<Mutex<i64>>| Balance {
///     change,
///     held: Mutex::new(false),
///     balance: Arc::clone(balance),
/// };
///
/// let id = coordinator.begin_transaction().await?;
/// coordinator.enlist_resource(id, by(-70, &ada)).await?;
/// coordinator.enlist_resource(id, by(70, &bob)).await?;
/// coordinator.commit_transaction(id).await?;
/// assert_eq!((*ada.lock().unwrap(), *bob.lock().unwrap()), (30, 70));
///
/// // There is not so much: both stay as they are.
/// let id = coordinator.begin_transaction().await?;
/// let done = coordinator.execute(id, [by(-70, &ada), by(70, &bob)]).await?;
/// assert!(!done);
/// assert_eq!((*ada.lock().unwrap(), *bob.lock().unwrap()), (30, 70));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TransactionCoordinator {
    inner: Arc<Inner>,
}

struct Inner {
    coordinator: Coordinator,
    locals: Locals,
    wait: Duration,
    /// Why it can't go on, once it can't.
    stopped: watch::Receiver<Option<String>>,
    /// Where driver, journal and links run; none once it is being dropped.
    own: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}

impl TransactionCoordinator {
    /// With a journal in memory.
    ///
    /// What a crash means then: everything here is gone, decisions too. Resources of
    /// this process are gone with it. Remote participants that had promised stay in
    /// doubt, since a new memory is a new identity, which knows nothing of what the old
    /// one decided; somebody has to look at them by hand. For more than tests and for
    /// resources that live in this process alone, [`open`](Self::open) a journal.
    ///
    /// # Errors
    ///
    /// When no thread is to be had.
    pub async fn in_memory() -> Result<Self, OpenError> {
        Self::in_memory_with(Settings::default()).await
    }

    /// [`in_memory`](Self::in_memory), with settings.
    ///
    /// # Errors
    ///
    /// When no thread is to be had.
    pub async fn in_memory_with(settings: Settings) -> Result<Self, OpenError> {
        let settings = Settings { retention: REMEMBERED.min(settings.retention), ..settings };
        Self::start(settings, |_| Ok(Arc::new(MemoryJournal::new()))).await
    }

    /// With a journal in a SQLite file, which is made if there is none. What was
    /// unfinished there goes on: attach the resources that it names
    /// ([`attach`](Self::attach)), and see [`orphans`](Self::orphans). A file is one
    /// coordinator's at a time: [`close`](Self::close) it before it is opened again.
    ///
    /// # Errors
    ///
    /// When the file is damaged, another program's, or in use.
    #[cfg(feature = "sqlite")]
    pub async fn open(path: impl AsRef<std::path::Path>) -> Result<Self, OpenError> {
        Self::open_with(path, Settings::default()).await
    }

    /// [`open`](Self::open), with settings.
    ///
    /// # Errors
    ///
    /// As of open.
    #[cfg(feature = "sqlite")]
    pub async fn open_with(
        path: impl AsRef<std::path::Path>,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        Self::start(settings, move |environment| {
            Ok(Arc::new(crate::journal::SqliteJournal::open(&path, MIN_FREE, false, environment)?))
        })
        .await
    }

    async fn start(
        settings: Settings,
        open: impl FnOnce(Environment) -> Result<Arc<dyn Journal>, OpenError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        let mut builder = runtime::Builder::new_multi_thread();
        let own = builder.worker_threads(1).thread_name("transactions").enable_all().build();
        let own = own?;
        let (stop, stopped) = watch::channel(None);
        let environment = environment(stop);
        let (at, program) = (own.handle().clone(), runtime::Handle::current());
        let wait = settings.wait;
        let started =
            own.spawn(async move { parts(settings, environment, open, at, program).await });
        let parts = started.await.map_err(|error| OpenError::Panicked(error.to_string()))?;
        match parts {
            Ok((coordinator, locals)) => {
                let own = Some(own);
                let inner = Inner { coordinator, locals, wait, stopped, own };
                Ok(Self { inner: Arc::new(inner) })
            }
            Err(error) => {
                own.shutdown_background();
                Err(error)
            }
        }
    }

    /// Begins a transaction. It rolls back by itself when it stands idle for
    /// [`Settings::idle_timeout`].
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`], [`Error::Stopped`].
    pub async fn begin_transaction(&self) -> Result<TransactionId, Error> {
        self.begin(api::Options::default()).await
    }

    /// [`begin_transaction`](Self::begin_transaction), with a commit policy of its own:
    /// with [`CommitPolicy::Compensate`], `rollback` is called also after `commit`
    /// has succeeded, where another resource's commit keeps failing.
    ///
    /// # Errors
    ///
    /// As of begin_transaction.
    pub async fn begin_transaction_with(
        &self,
        policy: CommitPolicy,
    ) -> Result<TransactionId, Error> {
        let commit_policy = Some(match policy {
            CommitPolicy::Retry => CommitPolicy::Retry,
            CommitPolicy::Compensate { after } => CommitPolicy::Compensate { after: after.max(1) },
        });
        self.begin(api::Options { commit_policy, ..api::Options::default() }).await
    }

    async fn begin(&self, options: api::Options) -> Result<TransactionId, Error> {
        let new = api::NewTransaction { options, ..api::NewTransaction::default() };
        let begun = self.unless_stopped(self.inner.coordinator.begin(&new)).await?;
        begun.map_err(|error| failure(None, error))
    }

    /// Adds a resource to a transaction that was begun, and remembers its version. Its
    /// branches of earlier runs are this one's from here on, if it has a name. Returns
    /// the branch's number.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTransaction`], [`Error::WrongState`], [`Error::Exhausted`],
    /// [`Error::Stopped`].
    pub async fn enlist_resource(
        &self,
        id: TransactionId,
        resource: impl Participant,
    ) -> Result<u32, Error> {
        self.enlist_resource_with(id, resource, Vec::new()).await
    }

    /// [`enlist_resource`](Self::enlist_resource), with an input: [`Branch::input`].
    ///
    /// # Errors
    ///
    /// As of enlist_resource.
    pub async fn enlist_resource_with(
        &self,
        id: TransactionId,
        resource: impl Participant,
        input: Vec<u8>,
    ) -> Result<u32, Error> {
        let resource: Arc<dyn Participant> = Arc::new(resource);
        let (name, version) = (resource.name().into_owned(), resource.version().await);
        let locals = &self.inner.locals;
        let participant = match name.as_str() {
            "" => locals.unnamed(&*resource).await,
            named => locals.attach(named, Arc::clone(&resource)).await,
        };
        let payload = Opaque::from(input.clone());
        let branch = Some(NewBranch { participant, payload, one_phase: false });
        let call = Call::Enlist { branch, key: None };
        match self.call(id, call).await? {
            Reply::Enlisted(number) => {
                let compensating = false;
                let branch = Branch { transaction: id, number, version, input, compensating };
                locals.enlist(branch, resource);
                Ok(number)
            }
            reply => Err(self.not_enlisted(id, reply).await),
        }
    }

    /// Adds a remote participant: `http://host:port` of one that speaks gRPC, or
    /// `http://host:port/base/prepare` of one that speaks HTTP, which takes JSON only; on
    /// this machine.
    ///
    /// # Errors
    ///
    /// [`Error::Participant`] for an address or a payload that can't be used, and as of
    /// [`enlist_resource`](Self::enlist_resource).
    pub async fn enlist_remote(
        &self,
        id: TransactionId,
        address: &str,
        payload: Payload,
    ) -> Result<u32, Error> {
        let branch = api::NewBranch { participant: address.into(), payload: Some(payload) };
        let enlisted = self.inner.coordinator.enlist(id, &branch, None);
        self.unless_stopped(enlisted).await?.map_err(|error| failure(Some(id), error))
    }

    /// Asks all resources whether they can commit. True: all have promised. False: one
    /// refused, and the transaction is rolled back.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`], [`Error::Panicked`], [`Error::PrepareTimeout`]: it is rolled
    /// back. Also as of [`enlist_resource`](Self::enlist_resource).
    pub async fn prepare_transaction(&self, id: TransactionId) -> Result<bool, Error> {
        let _awaiting = self.inner.locals.awaiting(id);
        let transaction = self.drive(id, Call::Prepare).await?;
        match transaction.is_prepared() {
            true => Ok(true),
            false => refusal(outcome(id, &transaction, Phase::Prepare, &self.inner.locals)),
        }
    }

    /// Commits, preparing first where that has not been done. Ok: all resources have
    /// committed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Broken`], [`Error::Panicked`],
    /// [`Error::PrepareTimeout`], [`Error::RolledBack`]: it is rolled back.
    /// [`Error::Unfinished`]: it is committed, and some resource has not done it yet.
    /// [`Error::Heuristic`]: some resource did not do as it had promised. Also as of
    /// [`enlist_resource`](Self::enlist_resource).
    pub async fn commit_transaction(&self, id: TransactionId) -> Result<(), Error> {
        let _awaiting = self.inner.locals.awaiting(id);
        let transaction = self.drive(id, Call::Commit(AnswerAt::Completion)).await?;
        outcome(id, &transaction, Phase::Commit, &self.inner.locals)
    }

    /// Rolls back. Ok: all resources have.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] if it is committed; [`Error::Unfinished`] if some resource
    /// has not rolled back yet. Also as of [`enlist_resource`](Self::enlist_resource).
    pub async fn rollback_transaction(&self, id: TransactionId) -> Result<(), Error> {
        let _awaiting = self.inner.locals.awaiting(id);
        let transaction = self.drive(id, Call::Rollback(AnswerAt::Completion)).await?;
        if transaction.committed {
            let cause = "it is committed, and a commit decision is not taken back".into();
            return Err(Error::WrongState { transaction: id, cause });
        }
        match outcome(id, &transaction, Phase::Rollback, &self.inner.locals) {
            Err(error @ (Error::Unfinished { .. } | Error::Heuristic { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    /// Enlists the resources and commits. True: committed. False: one refused, and all
    /// are rolled back.
    ///
    /// # Errors
    ///
    /// As of [`commit_transaction`](Self::commit_transaction), but for
    /// [`Error::Refused`].
    pub async fn execute<P: Participant>(
        &self,
        id: TransactionId,
        resources: impl IntoIterator<Item = P>,
    ) -> Result<bool, Error> {
        for resource in resources {
            self.enlist_resource(id, resource).await?;
        }
        match self.commit_transaction(id).await {
            Ok(()) => Ok(true),
            error => refusal(error),
        }
    }

    /// After a restart: this resource's unfinished branches, found by its name, are
    /// driven to their end.
    ///
    /// # Errors
    ///
    /// [`Error::Participant`] for a resource without a name.
    pub async fn attach(&self, resource: impl Participant) -> Result<(), Error> {
        let name = resource.name().into_owned();
        if name.is_empty() {
            return Err(Error::Participant("a resource without a name cannot be attached".into()));
        }
        self.inner.locals.attach(&name, Arc::new(resource)).await;
        Ok(())
    }

    /// Branches of earlier runs whose resource has not come back.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn orphans(&self) -> Result<Vec<Orphan>, Error> {
        let inner = &*self.inner;
        let handle = &inner.coordinator.handle;
        let views = self.unless_stopped(handle.list_all()).await?;
        let views = views.map_err(|error| failure(None, error.into()))?;
        let held = inner.locals.transactions();
        let mut orphans = Vec::new();
        for view in views.iter().filter(|view| !held.contains(&view.id)) {
            for branch in view.branches.iter().filter(|branch| branch.state.is_owed()) {
                let name = handle.directory.name(branch.participant);
                if let (resource, true) = shown(&name)
                    && !inner.locals.is_attached(branch.participant)
                {
                    let (transaction, resource) = (view.id, resource.to_owned());
                    orphans.push(Orphan { transaction, resource, committed: view.committed });
                }
            }
        }
        Ok(orphans)
    }

    /// Everything else that can be asked of it: lists, watching, locks, what operators do.
    pub fn api(&self) -> &Coordinator {
        &self.inner.coordinator
    }

    /// Writes all that is going to be written and lets go of the journal's file. Later
    /// calls say [`Error::Stopped`].
    pub async fn close(&self) {
        self.inner.coordinator.close().await;
    }

    async fn call(&self, id: TransactionId, call: Call) -> Result<Reply, Error> {
        let reply = self.inner.coordinator.handle.call(id, call, self.inner.wait);
        self.unless_stopped(reply).await?.map_err(|error: Stopped| failure(Some(id), error.into()))
    }

    async fn drive(&self, id: TransactionId, call: Call) -> Result<api::Transaction, Error> {
        let reply = self.call(id, call).await?;
        self.shown(id, reply).await
    }

    async fn shown(&self, id: TransactionId, reply: Reply) -> Result<api::Transaction, Error> {
        let shown = self.unless_stopped(self.inner.coordinator.shown(Some(id), reply)).await?;
        shown.map_err(|error| failure(Some(id), error))
    }

    async fn not_enlisted(&self, id: TransactionId, reply: Reply) -> Error {
        match self.shown(id, reply).await {
            Err(error) => error,
            Ok(transaction) => {
                let cause = format!("it is {:?} and takes no resources", transaction.state);
                Error::WrongState { transaction: id, cause }
            }
        }
    }

    /// A call's result, unless the coordinator has stopped: then nothing comes.
    async fn unless_stopped<T>(&self, call: impl Future<Output = T>) -> Result<T, Error> {
        let mut stopped = self.inner.stopped.clone();
        tokio::select! {
            biased;
            result = call => Ok(result),
            why = stopped.wait_for(Option::is_some) => {
                let why = why.ok().and_then(|why| why.clone());
                Err(Error::Stopped(why.unwrap_or_else(|| "it is gone".into())))
            }
        }
    }
}
