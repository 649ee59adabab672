//! The other ways in which a client talks to the coordinator: step by step, over
//! a stream, and about what it knows already.

use std::time::Duration;

use dtc_proto::dtc::{
    AnswerAt, BeginRequest, CommitTransactionRequest, EnlistRequest, ExecuteStreamItem,
    ExecuteStreamRequest, GetTransactionRequest, PrepareTransactionRequest,
    RollbackTransactionRequest, TransactionOptions, execute_stream_result::Result as Outcome,
    get_transaction_request::By,
};
use rand::RngExt;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    catalog,
    client::{Client, within},
    history::{Case, Kind, Told},
};

const WAIT: prost_types::Duration = prost_types::Duration { seconds: 5, nanos: 0 };

impl Client {
    /// Begin, enlist each branch, perhaps prepare, then commit or roll back; or
    /// vanish somewhere on the way.
    pub(crate) async fn step_by_step(&mut self, case: Case) {
        let kind = case.kind;
        let work = case.work.clone();
        let number = self.begin(case);
        let idle = self.random.random_range(1..8);
        let idle_timeout = Some(prost_types::Duration { seconds: idle, nanos: 0 });
        let options = Some(TransactionOptions { idle_timeout, ..work.options() });
        let request_key = self.key_of_a_call();
        let request = BeginRequest { options, request_key, ..BeginRequest::default() };
        let id = match self.begin_once(number, request).await {
            Ok(id) => id,
            Err(status) => {
                self.failed(number, &status);
                return self.catalog.tally.count(kind, |count| count.untold += 1);
            }
        };
        self.catalog.history.change(number, |case| case.id = id.parse().ok());
        let vanish = kind == Kind::Vanishing;
        for branch in work.branches() {
            if vanish && self.random.random_bool(0.2) {
                return self.catalog.tally.count(kind, |count| count.untold += 1);
            }
            let request_key = self.key_of_a_call();
            let transaction_id = id.clone();
            let request = EnlistRequest { transaction_id, branch: Some(branch), request_key };
            if let Err(status) = self.enlist_once(number, request).await {
                self.stumbled(number, &id, &status);
                return self.roll_back(number, &id).await;
            }
        }
        if vanish || self.random.random_bool(0.5) {
            let request =
                PrepareTransactionRequest { transaction_id: id.clone(), wait: Some(WAIT) };
            let prepared = within(self.patience(), self.transactions.prepare(request)).await;
            if let Err(status) = prepared {
                self.stumbled(number, &id, &status);
            }
        }
        if vanish {
            return self.catalog.tally.count(kind, |count| count.untold += 1);
        }
        if self.random.random_bool(0.15) {
            return self.roll_back(number, &id).await;
        }
        self.commit(number, &id).await;
    }

    /// One that no other call has; perhaps none.
    fn key_of_a_call(&mut self) -> String {
        match self.random.random_bool(0.7) {
            true => format!("call-{}-{:032x}", self.number, self.random.random::<u128>()),
            false => String::new(),
        }
    }

    /// Whether a call is made once more: its answer may be lost, or come twice.
    fn repeats(&mut self, key: &str, answered: bool) -> bool {
        !key.is_empty() && self.random.random_bool(if answered { 0.2 } else { 0.7 })
    }

    /// With a key it may be repeated, and begins one transaction.
    async fn begin_once(&mut self, number: usize, request: BeginRequest) -> Result<String, Status> {
        let mut first: Option<String> = None;
        loop {
            let begun = within(self.patience(), self.transactions.begin(request.clone())).await;
            let begun = begun.map(|begun| begun.into_inner().transaction_id);
            if let (Some(first), Ok(again)) = (&first, &begun)
                && first != again
                && !self.catalog.extras.forgets
            {
                let text = format!("begun twice with one key: {first} and {again}");
                self.catalog.history.tell(number, Told::Nonsense(text));
            }
            first = first.or_else(|| begun.as_ref().ok().cloned());
            if !self.repeats(&request.request_key, begun.is_ok()) {
                return first.map_or(begun, Ok);
            }
            self.before_retry(number).await;
        }
    }

    /// With a key it may be repeated, and enlists one branch. Without, a branch would
    /// be there twice.
    async fn enlist_once(&mut self, number: usize, request: EnlistRequest) -> Result<u32, Status> {
        let mut first: Option<u32> = None;
        loop {
            let enlisted = within(self.patience(), self.transactions.enlist(request.clone())).await;
            let enlisted = enlisted.map(|enlisted| enlisted.into_inner().branch);
            if let (Some(first), Ok(again)) = (first, &enlisted)
                && first != *again
            {
                let text = format!("enlisted twice with one key: branches {first} and {again}");
                self.catalog.history.tell(number, Told::Nonsense(text));
            }
            first = first.or(enlisted.as_ref().ok().copied());
            let refused =
                matches!(&enlisted, Err(status) if status.code() == Code::FailedPrecondition);
            if refused || !self.repeats(&request.request_key, enlisted.is_ok()) {
                return first.filter(|_| !refused).map_or(enlisted, Ok);
            }
            self.before_retry(number).await;
        }
    }

    async fn commit(&mut self, number: usize, id: &str) {
        self.catalog.history.change(number, |case| case.commit_asked = true);
        let answer_at = match self.random.random_bool(0.5) {
            true => AnswerAt::Decision,
            false => AnswerAt::Completion,
        };
        loop {
            let request = CommitTransactionRequest {
                transaction_id: id.into(),
                answer_at: answer_at.into(),
                wait: Some(WAIT),
            };
            let known = match within(self.patience(), self.transactions.commit(request)).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    self.heard(number, answer.transaction.as_ref(), answer.committed)
                }
                Err(status) => self.stumbled(number, id, &status),
            };
            if known || self.get(number, id).await {
                return;
            }
            self.before_retry(number).await;
        }
    }

    async fn roll_back(&mut self, number: usize, id: &str) {
        loop {
            let request = RollbackTransactionRequest {
                transaction_id: id.into(),
                wait: Some(WAIT),
                ..RollbackTransactionRequest::default()
            };
            let known = match within(self.patience(), self.transactions.rollback(request)).await {
                Ok(answer) => self.heard(number, answer.into_inner().transaction.as_ref(), false),
                Err(status) => self.stumbled(number, id, &status),
            };
            if known || self.get(number, id).await {
                return;
            }
            self.before_retry(number).await;
        }
    }

    async fn before_retry(&mut self, number: usize) {
        let kind = self.catalog.history.case(number).kind;
        self.catalog.tally.count(kind, |count| count.retries += 1);
        sleep(Duration::from_millis(self.random.random_range(10..400))).await;
    }

    /// An error of a step: the transaction may have been rolled back meanwhile.
    fn stumbled(&self, number: usize, id: &str, status: &Status) -> bool {
        let kind = self.catalog.history.case(number).kind;
        match status.code() {
            Code::FailedPrecondition => {
                self.catalog.tally.unknown(kind, "FailedPrecondition");
                false
            }
            Code::NotFound => {
                self.catalog.history.tell(number, Told::Unknown { id: id.parse().ok() });
                true
            }
            _ => self.failed(number, status),
        }
    }

    /// True if it learned the outcome, or that there is none.
    async fn get(&mut self, number: usize, id: &str) -> bool {
        let request = GetTransactionRequest { by: Some(By::TransactionId(id.into())) };
        match within(self.patience(), self.transactions.get(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.heard(number, answer.transaction.as_ref(), answer.committed)
            }
            Err(status) => self.stumbled(number, id, &status),
        }
    }

    /// By its key, which may not be known yet.
    pub(crate) async fn get_by_key(&mut self, number: usize) {
        let Some(key) = self.catalog.history.case(number).key else { return };
        let request = GetTransactionRequest { by: Some(By::RequestKey(key)) };
        match within(self.patience(), self.transactions.get(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.heard(number, answer.transaction.as_ref(), answer.committed);
            }
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => {
                self.failed(number, &status);
            }
        }
    }

    /// Several with keys over one stream; those that it left open one by one.
    pub(crate) async fn stream(&mut self, name: &str, first: Case, progress: catalog::Progress) {
        let mut numbers = vec![self.begin(first)];
        for part in 1..self.random.random_range(2..20) {
            let name = format!("{name}-{part}");
            let case = self.case(Kind::Streamed, &name, progress);
            numbers.push(self.begin(case));
        }
        let wait = Duration::from_millis(self.random.random_range(50..6_000));
        let items = numbers.iter().map(|number| {
            let case = self.catalog.history.case(*number);
            let request = Some(case.work.request(case.key.as_deref(), wait));
            ExecuteStreamItem { tag: *number as u64, request }
        });
        let request = ExecuteStreamRequest { items: items.collect() };
        let patience = self.patience();
        self.results(request, patience).await;
        for number in numbers {
            self.until_known(number, 1).await;
        }
    }

    /// Sends a request over a stream and takes down what comes in time; how many
    /// outcomes did.
    pub(crate) async fn results(
        &mut self,
        request: ExecuteStreamRequest,
        patience: Duration,
    ) -> usize {
        let end = Instant::now() + patience;
        let asked_at = (self.catalog.now)();
        let mut known = 0;
        let call = self.transactions.execute_stream(tokio_stream::once(request));
        let Ok(answer) = within(patience, call).await else { return known };
        let mut answers = answer.into_inner();
        while let Ok(Some(Ok(response))) = timeout_at(end, answers.next()).await {
            for result in response.results {
                let number = result.tag as usize;
                known += usize::from(match result.result {
                    Some(Outcome::Response(answer)) => {
                        self.heard(number, answer.transaction.as_ref(), answer.committed)
                    }
                    Some(Outcome::Error(error)) => {
                        let code = Code::from_i32(error.code);
                        self.failed_of(number, &Status::new(code, error.message), asked_at)
                    }
                    None => self.failed(number, &Status::internal("a result without one")),
                });
            }
        }
        known
    }

    /// The key of a known outcome with another body has to be refused.
    pub(crate) async fn with_another_body(&mut self, number: usize) {
        let case = self.catalog.history.case(number);
        let (Some(key), Some(_)) = (&case.key, case.outcome()) else { return };
        let mut other = case.work.clone();
        other.prepare_timeout += Duration::from_millis(1);
        if let Some(order) = &mut other.order
            && self.random.random_bool(0.5)
        {
            order.total += 1;
            other.prepare_timeout = case.work.prepare_timeout;
        }
        let request = other.request(Some(key), Duration::from_secs(1));
        match within(self.patience(), self.transactions.execute(request)).await {
            Ok(_) => self.catalog.history.tell(number, Told::OtherBodyAccepted),
            Err(status) if status.code() == Code::AlreadyExists => {
                self.catalog.tally.change(|numbers| numbers.other_bodies += 1);
            }
            Err(status) => {
                self.failed(number, &status);
            }
        }
    }

    /// Some outcome that anybody learned at any time must be the same now.
    pub(crate) async fn ask_again(&mut self) {
        let number = {
            let cases = self.catalog.history.lock();
            self.random.random_range(0..cases.len())
        };
        let case = self.catalog.history.case(number);
        let Some((_, id)) = case.outcome() else { return };
        let asked_at = (self.catalog.now)();
        self.catalog.tally.change(|numbers| numbers.asked_again += 1);
        match &case.key {
            Some(key) if self.random.random_bool(0.5) => {
                let request = case.work.request(Some(key), Duration::from_secs(1));
                match within(self.patience(), self.transactions.execute(request)).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        if !self.heard(number, answer.transaction.as_ref(), answer.committed) {
                            let text = format!("a known outcome is open again: {answer:?}");
                            self.catalog.history.tell(number, Told::OpenAgain { id, text });
                        }
                    }
                    Err(status) => {
                        self.failed_of(number, &status, asked_at);
                    }
                }
            }
            _ => {
                self.get(number, &id.to_string()).await;
            }
        }
    }

    /// At the end: all known outcomes with a key once more, and those that were
    /// told otherwise by their ids. How many were answered.
    pub(crate) async fn ask_all_again(&mut self) -> anyhow::Result<usize> {
        const AT_ONCE: usize = 25;
        let cases = self.catalog.history.lock().clone();
        let known = |it: &(usize, &Case)| it.1.outcome().is_some();
        let (keyed, others): (Vec<_>, Vec<_>) =
            cases.iter().enumerate().filter(known).partition(|(_, case)| case.key.is_some());
        let mut answered = 0;
        for chunk in keyed.chunks(AT_ONCE) {
            let items = chunk.iter().map(|(number, case)| {
                let request = case.work.request(case.key.as_deref(), Duration::from_secs(20));
                ExecuteStreamItem { tag: *number as u64, request: Some(request) }
            });
            let request = ExecuteStreamRequest { items: items.collect() };
            let known = self.results(request, Duration::from_secs(30)).await;
            anyhow::ensure!(
                known == chunk.len(),
                "of {} known outcomes that were asked for again, {known} were answered",
                chunk.len()
            );
            answered += known;
        }
        for (number, case) in others {
            let id: Option<Uuid> = case.outcome().map(|(_, id)| id);
            answered += usize::from(self.get(number, &id.unwrap_or_default().to_string()).await);
        }
        self.catalog.tally.change(|numbers| numbers.asked_again += answered);
        Ok(answered)
    }
}
