//! The kit with a small domain: accounts that money is taken from.

mod admin;
mod branches;
mod compensation;
mod faults;
mod handle;
mod in_doubt;
mod link;
mod locks;
mod panics;
mod retention;
mod run;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use dtc_proto::dtc::{
    self, CommitRequest, Payload, PrepareRequest, PrepareResponse, RollbackRequest, Vote,
    participant_service_server::ParticipantService, payload,
};

use dtc_protocol::{BranchId, CoordinatorId, TransactionId};
use dtc_runtime::Environment;
use dtc_store::{Options, Store};
use prometheus::Registry;
use prost::Message;
use rusqlite::Transaction;
use shop_proto::{GetAccountRequest, TakePayment};
use tempfile::TempDir;
use tonic::{Request, Status};

use crate::{
    Error, Refusal, ResourceManager, engine::Engine, in_doubt as in_doubt_task, journal,
    limits::Limits, metrics::Metrics, retention as retention_task, service::Service,
};

/// A currency for which SQLite ends the transaction, as on a full disk.
const ENDS_TRANSACTION: &str = "END";

/// Takes money from one account of 100; an amount of 0 only looks.
#[derive(Clone, Default)]
struct Till {
    fail_prepare: Arc<AtomicBool>,
    fail_settle: Arc<AtomicBool>,
    panic: Arc<AtomicBool>,
}

impl Till {
    fn update(&self, transaction: &Transaction<'_>, sql: &str, amount: i64) -> Result<(), Error> {
        transaction.execute(sql, [amount])?;
        assert!(!self.panic.load(SeqCst), "as the test wants");
        match self.fail_settle.load(SeqCst) {
            true => Err(Error::Inconsistent("as the test wants")),
            false => Ok(()),
        }
    }
}

impl ResourceManager for Till {
    const NAME: &'static str = "till";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS till (
            only INTEGER PRIMARY KEY, balance INTEGER NOT NULL, held INTEGER NOT NULL
        );
        INSERT OR IGNORE INTO till VALUES (1, 100, 0);
    ";
    type Payload = TakePayment;
    type Output = GetAccountRequest;

    fn descriptors() -> &'static dtc_proto::Descriptors {
        &shop_proto::DESCRIPTORS
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
    ) -> Result<crate::Vote<GetAccountRequest>, Error> {
        if payload.currency == ENDS_TRANSACTION {
            transaction.execute_batch("ROLLBACK")?;
            return Err(Error::Inconsistent("as the test wants"));
        }
        let amount = payload.amount_minor;
        transaction.execute("UPDATE till SET held = held + ?1", [amount])?;
        assert!(!self.panic.load(SeqCst), "as the test wants");
        if self.fail_prepare.load(SeqCst) {
            return Err(Error::Inconsistent("as the test wants"));
        }
        let enough = "SELECT held <= balance FROM till";
        if !transaction.query_row(enough, [], |row| row.get(0))? {
            return Ok(crate::Vote::Abort(Refusal::new("TOO_LITTLE", format!("not {amount}"))));
        }
        Ok(match amount {
            0 => crate::Vote::ReadOnly,
            _ => crate::Vote::Commit(GetAccountRequest { account: payload.account.clone() }),
        })
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        output: &GetAccountRequest,
    ) -> Result<(), Error> {
        assert_eq!(output.account, payload.account);
        let sql = "UPDATE till SET balance = balance - ?1, held = held - ?1";
        self.update(transaction, sql, payload.amount_minor)
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        output: &GetAccountRequest,
    ) -> Result<(), Error> {
        assert_eq!(output.account, payload.account);
        self.update(transaction, "UPDATE till SET held = held - ?1", payload.amount_minor)
    }
}

/// A participant on a file.
struct Bench<R: ResourceManager = Till> {
    engine: Arc<Engine<R>>,
    service: Service<R>,
    till: R,
}

fn limits() -> Limits {
    Limits {
        max_payload: 1 << 20,
        max_undecided: 1000,
        lock_wait: Duration::from_secs(3600),
        overdue_after: Duration::from_secs(60),
        retention: Duration::from_secs(3600),
        retention_bytes: 1 << 30,
        retention_floor: Duration::ZERO,
        coordinator: None,
    }
}

fn options() -> Options {
    options_of::<Till>()
}

fn options_of<R: ResourceManager>() -> Options {
    let schema = crate::run::schema::<R>();
    Options { role: R::NAME, schema, ..Options::default() }
}

impl Bench {
    async fn open(folder: &TempDir) -> Self {
        Self::open_with(folder.path(), limits(), options()).await
    }

    async fn open_with(folder: &Path, limits: Limits, options: Options) -> Self {
        Self::of(folder, limits, options, Till::default()).await
    }

    /// Balance and what is held of it.
    async fn till(&self) -> (i64, i64) {
        let sql = "SELECT balance, held FROM till";
        let read = |connection: &rusqlite::Connection| {
            connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        self.engine.store.read(read).await.unwrap()
    }

    async fn wait_for_till(&self, expected: (i64, i64)) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.till().await != expected {
            assert!(Instant::now() < deadline, "{:?}, not {expected:?}", self.till().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl<R: ResourceManager + Clone> Bench<R> {
    async fn of(folder: &Path, limits: Limits, options: Options, till: R) -> Self {
        Self::within(Environment::real(), folder, limits, options, till).await
    }

    async fn within(
        environment: Environment,
        folder: &Path,
        limits: Limits,
        options: Options,
        till: R,
    ) -> Self {
        let store = Store::open(&folder.join(R::NAME).with_extension("db"), options).unwrap();
        let metrics = Metrics::new(&Registry::new(), &store).unwrap();
        let engine = Engine::new(store, till.clone(), limits, metrics, environment).await.unwrap();
        Self { service: Service { engine: Arc::clone(&engine) }, engine, till }
    }

    /// With the tasks that run beside the requests.
    fn with_tasks(self) -> Self {
        tokio::spawn(in_doubt_task::run(Arc::clone(&self.engine)));
        tokio::spawn(retention_task::run(Arc::clone(&self.engine)));
        self
    }

    async fn close(self) {
        self.engine.environment.shutdown.begin();
        self.engine.store.close().await;
    }

    async fn prepare(&self, transaction: u8, amount: i64) -> PrepareResponse {
        self.send(prepare(transaction, amount)).await.unwrap()
    }

    async fn send(&self, request: PrepareRequest) -> Result<PrepareResponse, Status> {
        self.service.prepare(Request::new(request)).await.map(tonic::Response::into_inner)
    }

    async fn commit(&self, transaction: u8) -> Result<(), Status> {
        self.service.commit(Request::new(commit(transaction))).await.map(drop)
    }

    /// Whether it had been committed.
    async fn rollback(&self, transaction: u8) -> Result<bool, Status> {
        let rolled_back = self.service.rollback(Request::new(rollback(transaction))).await?;
        Ok(rolled_back.into_inner().committed)
    }

    async fn count(&self, table: &'static str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let read = move |connection: &rusqlite::Connection| {
            connection.query_row(&sql, [], |row| row.get(0))
        };
        self.engine.store.read(read).await.unwrap()
    }
}

/// The coordinator's run with epoch 5.
fn origin() -> dtc::Origin {
    dtc::Origin {
        coordinator_id: coordinator().to_string(),
        epoch: 5,
        incarnation: dtc_protocol::Incarnation::from_bytes([5; 16]).to_string(),
        recovery_address: String::new(),
    }
}

fn coordinator() -> CoordinatorId {
    CoordinatorId::from_bytes([0xC0; 16])
}

fn transaction(number: u8) -> TransactionId {
    TransactionId::from_bytes([number; 16])
}

fn typed(amount_minor: i64) -> Payload {
    let take = TakePayment { amount_minor, account: "a".into(), ..TakePayment::default() };
    Payload { kind: Some(payload::Kind::Typed(take.encode_to_vec().into())) }
}

fn prepare(number: u8, amount: i64) -> PrepareRequest {
    PrepareRequest {
        origin: Some(origin()),
        transaction_id: transaction(number).to_string(),
        branch: 0,
        payload: Some(typed(amount)),
        ..PrepareRequest::default()
    }
}

fn commit(number: u8) -> CommitRequest {
    CommitRequest {
        origin: Some(origin()),
        transaction_id: transaction(number).to_string(),
        branch: 0,
        decision_number: 1,
        output: None,
    }
}

fn rollback(number: u8) -> RollbackRequest {
    RollbackRequest {
        origin: Some(origin()),
        transaction_id: transaction(number).to_string(),
        decision_number: 1,
        ..RollbackRequest::default()
    }
}

fn code(response: &PrepareResponse) -> &str {
    assert_eq!(response.vote(), Vote::Abort);
    &response.abort_reason.as_ref().unwrap().code
}
