//! A client: sends transactions of all kinds, and asks again after every answer
//! that leaves it in doubt, until it knows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use dtc_proto::dtc::{
    ExecuteRequest, ListTransactionsRequest, admin_service_client::AdminServiceClient,
    transaction_service_client::TransactionServiceClient,
};

use rand::{RngExt, rngs::StdRng};
use shop_proto::{
    GetAccountRequest, GetStockRequest, inventory_service_client::InventoryServiceClient,
    payment_service_client::PaymentServiceClient,
};
use tokio::{sync::watch, time::sleep};
use tonic::{Code, Status, transport::Channel};

use super::{
    catalog::{self, Extras, Progress},
    history::{Case, History, Kind, Told},
    tally::Tally,
};

/// What clients share.
pub(crate) struct Catalog {
    pub(crate) history: History,
    pub(crate) tally: Tally,
    /// How far the run has come.
    pub(crate) progress: Box<dyn Fn() -> Progress + Send + Sync>,
    /// Clients with a transaction whose outcome they want and don't know.
    pub(crate) busy: AtomicUsize,
    /// The longest wait between two transactions of a client.
    pub(crate) rest: Duration,
    /// Milliseconds, as the witness counts them.
    pub(crate) now: fn() -> i64,
    /// What is drawn beside the usual.
    pub(crate) extras: Extras,
}

/// One client.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) random: StdRng,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) transactions: TransactionServiceClient<Channel>,
    /// For what is ended by an operator.
    pub(crate) admin: AdminServiceClient<Channel>,
    /// Another way to the coordinator, for duplicates.
    pub(crate) other_way: TransactionServiceClient<Channel>,
    pub(crate) inventory: InventoryServiceClient<Channel>,
    pub(crate) payment: PaymentServiceClient<Channel>,
    /// Whether new transactions may be begun.
    pub(crate) open: watch::Receiver<bool>,
}

const KINDS: [(Kind, u32); 13] = [
    (Kind::Order, 24),
    (Kind::Streamed, 6),
    (Kind::WithoutKey, 10),
    (Kind::Interactive, 12),
    (Kind::Vanishing, 4),
    (Kind::OneBranch, 12),
    (Kind::Versioned, 8),
    (Kind::Reading, 6),
    (Kind::Duplicated, 6),
    (Kind::OverAsking, 6),
    (Kind::SameOrder, 6),
    (Kind::Compensable, 10),
    (Kind::Locked, 8),
];

impl Client {
    /// Goes on for ever; while `open` is false it begins nothing.
    pub(crate) async fn run(mut self) {
        for serial in 0_u64.. {
            if self.open.wait_for(|open| *open).await.is_err() {
                return;
            }
            let catalog = Arc::clone(&self.catalog);
            catalog.busy.fetch_add(1, Relaxed);
            // The gate may have closed between the two.
            if *self.open.borrow() {
                self.one(serial).await;
            }
            catalog.busy.fetch_sub(1, Relaxed);
            let rest = self.catalog.rest.mul_f64(self.random.random::<f64>());
            sleep(rest).await;
        }
    }

    /// Whether the coordinator answers at all.
    pub(crate) async fn serves(&mut self) -> bool {
        let request = ListTransactionsRequest { page_size: 1, ..Default::default() };
        within(Duration::from_secs(2), self.transactions.list(request)).await.is_ok()
    }

    async fn one(&mut self, serial: u64) {
        let kind = self.kind();
        let name = format!("{}-{serial}", self.number);
        let progress = (self.catalog.progress)();
        let mut case = self.case(kind, &name, progress);
        match kind {
            Kind::Streamed => return self.stream(&name, case, progress).await,
            Kind::Interactive | Kind::Vanishing => return self.step_by_step(case).await,
            Kind::Versioned => self.look_at_versions(&mut case).await,
            _ => {}
        }
        let number = self.begin(case);
        match kind {
            Kind::WithoutKey => self.once(number).await,
            Kind::Duplicated => self.at_once(number).await,
            _ => self.until_known(number, 0).await,
        }
        // Where keys are forgotten it would be taken for the first.
        if self.random.random_bool(0.1) && !self.catalog.extras.forgets {
            self.with_another_body(number).await;
        }
        if self.random.random_bool(0.2) {
            self.ask_again().await;
        }
        let often = if self.catalog.extras.operators { 0.3 } else { 0.05 };
        if self.random.random_bool(often) {
            self.operate().await;
        }
    }

    /// A transaction of a kind, as the catalog says.
    pub(crate) fn case(&mut self, kind: Kind, name: &str, progress: Progress) -> Case {
        let mut case = catalog::case(kind, name, progress, &mut self.random);
        self.catalog.extras.change(&mut case, &mut self.random);
        case
    }

    fn kind(&mut self) -> Kind {
        let total = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.random_range(0..total);
        for (kind, weight) in KINDS {
            if left < weight {
                return kind;
            }
            left -= weight;
        }
        Kind::Order
    }

    pub(crate) fn begin(&self, case: Case) -> usize {
        self.catalog.tally.count(case.kind, |count| count.tried += 1);
        self.catalog.history.begin(case)
    }

    /// The versions that it read go with the request, where it could read them.
    async fn look_at_versions(&mut self, case: &mut Case) {
        if let Some(stock) = &mut case.work.stock {
            let request = GetStockRequest { sku: stock.sku.clone() };
            let read = within(Duration::from_secs(1), self.inventory.get_stock(request)).await;
            stock.version =
                read.ok().and_then(|answer| answer.into_inner().stock).map(|it| it.version);
            stock.check_only = stock.version.is_some() && self.random.random_bool(0.5);
        }
        if let Some(money) = &mut case.work.money
            && self.random.random_bool(0.3)
        {
            let request = GetAccountRequest { account: money.account.clone() };
            let read = within(Duration::from_secs(1), self.payment.get_account(request)).await;
            money.version =
                read.ok().and_then(|answer| answer.into_inner().account).map(|it| it.version);
        }
    }

    /// Without a key it must not be sent again.
    async fn once(&mut self, number: usize) {
        let request = self.request(number);
        let answer = within(self.patience(), self.transactions.execute(request)).await;
        let answer = answer.map(|answer| answer.into_inner());
        let known = match answer {
            Ok(answer) => self.heard(number, answer.transaction.as_ref(), answer.committed),
            Err(status) => self.failed(number, &status),
        };
        if !known {
            self.catalog.tally.count(Kind::WithoutKey, |count| count.untold += 1);
        }
    }

    /// The same request three times, over two connections.
    async fn at_once(&mut self, number: usize) {
        let (mut first, mut second) = (self.transactions.clone(), self.transactions.clone());
        let mut third = self.other_way.clone();
        let patience = self.patience();
        let request = self.request(number);
        let answers = tokio::join!(
            within(patience, first.execute(request.clone())),
            within(patience, second.execute(request.clone())),
            within(patience, third.execute(request)),
        );
        for answer in [answers.0, answers.1, answers.2] {
            match answer.map(|answer| answer.into_inner()) {
                Ok(answer) => self.heard(number, answer.transaction.as_ref(), answer.committed),
                Err(status) => self.failed(number, &status),
            };
        }
        self.until_known(number, 3).await;
    }

    /// Sends it again with its key, or asks about it, until its outcome is known.
    pub(crate) async fn until_known(&mut self, number: usize, calls_before: usize) {
        let kind = self.catalog.history.case(number).kind;
        for call in calls_before.. {
            if self.catalog.history.case(number).is_settled() {
                return;
            }
            if call > 0 {
                self.catalog.tally.count(kind, |count| count.retries += 1);
                sleep(Duration::from_millis(self.random.random_range(10..400))).await;
            }
            if call > 0 && self.random.random_bool(0.2) {
                self.get_by_key(number).await;
                continue;
            }
            let (request, asked_at) = (self.request(number), (self.catalog.now)());
            match within(self.patience(), self.transactions.execute(request)).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    self.heard(number, answer.transaction.as_ref(), answer.committed);
                }
                Err(status) => {
                    self.failed_of(number, &status, asked_at);
                }
            }
        }
    }

    fn request(&mut self, number: usize) -> ExecuteRequest {
        let case = self.catalog.history.case(number);
        let wait = Duration::from_millis(self.random.random_range(50..6_000));
        case.work.request(case.key.as_deref(), wait)
    }

    /// How long an answer is waited for; the call is dropped then.
    pub(crate) fn patience(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(200..8_000))
    }

    /// Takes down an answer; true if it says an outcome.
    pub(crate) fn heard(
        &self,
        number: usize,
        transaction: Option<&dtc_proto::dtc::Transaction>,
        committed: bool,
    ) -> bool {
        let kind = self.catalog.history.case(number).kind;
        let Some(told) = Told::by(transaction, committed) else {
            let state = transaction.map(|it| it.state().as_str_name()).unwrap_or_default();
            self.catalog.tally.unknown(kind, state.trim_start_matches("TRANSACTION_"));
            return false;
        };
        let first = self.catalog.history.case(number).outcome().is_none();
        if first && let Told::Outcome { committed, .. } = told {
            self.catalog.tally.count(kind, |count| match committed {
                true => count.committed += 1,
                false => count.aborted += 1,
            });
            let reason = transaction.and_then(|it| it.abort_reason.as_ref());
            if let Some(reason) = reason {
                self.catalog.tally.change(|numbers| {
                    *numbers.abort_reasons.entry(reason.code.clone()).or_default() += 1;
                });
            }
        }
        self.catalog.history.tell(number, told);
        true
    }

    /// Takes down an error; true if it is one that settles something.
    pub(crate) fn failed(&self, number: usize, status: &Status) -> bool {
        self.failed_of(number, status, 0)
    }

    /// The same, of a call that was made at a time.
    pub(crate) fn failed_of(&self, number: usize, status: &Status, asked_at: i64) -> bool {
        let unknown = [
            Code::Unavailable,
            Code::Cancelled,
            Code::Unknown,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Internal,
        ];
        if unknown.contains(&status.code()) {
            let kind = self.catalog.history.case(number).kind;
            self.catalog.tally.unknown(kind, &format!("{:?}", status.code()));
            return false;
        }
        let refusals = [
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::PermissionDenied,
            Code::NotFound,
        ];
        if self.catalog.extras.refuses && refusals.contains(&status.code()) {
            let why = status.message().to_owned();
            self.catalog.history.tell(number, Told::Refused { asked_at, why });
            return true;
        }
        self.catalog.history.tell(number, Told::Nonsense(format!("{status:?}")));
        true
    }
}

/// A call's answer, or that it was given up.
pub(crate) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let given_up = || Status::deadline_exceeded("the client waited no longer");
    tokio::time::timeout(patience, call).await.unwrap_or_else(|_| Err(given_up()))
}
