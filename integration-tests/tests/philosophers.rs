//! Dining philosophers and as many forks, on three participants. Each takes both of
//! its forks in one transaction, in whatever order they arrive: they have two
//! coordinators, one of which alone would send all prepares in one order.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::ensure;
use dtc_proto::dtc::{
    BeginRequest, Branch, EnlistRequest, ExecuteRequest, PrepareTransactionRequest,
    RollbackTransactionRequest, Transaction, TransactionOptions,
};
use integration_tests::{Addresses, Alone, DEADLINE, Process, Start, eventually, typed};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

const PARTICIPANTS: usize = 3;

struct Table {
    philosophers: usize,
    /// Of each.
    meals: u32,
    coordinators: [Arc<Alone>; 2],
    participants: Vec<Process>,
    deadlocks: Arc<AtomicUsize>,
    _folder: TempDir,
}

impl Table {
    async fn set(philosophers: usize, meals: u32) -> Self {
        let addresses = Addresses::pick();
        let addresses = [addresses.inventory, addresses.payment, addresses.order];
        let known = addresses.iter().enumerate().fold(Start::new(), |start, (number, address)| {
            start.arg("--participant").arg(format!("{}=http://{address}", name(number)))
        });
        let coordinators = [
            Arc::new(Alone::start_with(known.clone()).await.unwrap()),
            Arc::new(Alone::start_with(known).await.unwrap()),
        ];
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_test-forks"));
        let mut participants = Vec::new();
        for (number, address) in addresses.into_iter().enumerate() {
            let own = folder.path().join(name(number));
            std::fs::create_dir(&own).unwrap();
            let mut process = Process::new("forks", program, &own, address);
            process.start().await.unwrap();
            participants.push(process);
        }
        let deadlocks = Arc::default();
        Self { philosophers, meals, coordinators, participants, deadlocks, _folder: folder }
    }

    /// All sit down. Each tells its number after each meal.
    fn dine(&self) -> mpsc::UnboundedReceiver<usize> {
        let (ate, meals) = mpsc::unbounded_channel();
        let (philosophers, count) = (self.philosophers, self.meals);
        for number in 0..philosophers {
            let (ate, deadlocks) = (ate.clone(), Arc::clone(&self.deadlocks));
            let coordinator = Arc::clone(&self.coordinators[number % 2]);
            tokio::spawn(async move {
                for _ in 0..count {
                    let forks = [number, (number + 1) % philosophers];
                    eat(&coordinator, forks, &deadlocks).await;
                    let _ = ate.send(number);
                }
            });
        }
        meals
    }

    /// Every fork was used for every meal, and lies on the table.
    async fn check(&self) {
        eventually("all forks are back", async || {
            let mut forks = 0;
            for process in &self.participants {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let connection = Connection::open_with_flags(process.database(), flags)?;
                let mut select = connection.prepare("SELECT name, taken, used FROM forks")?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    let fork: (String, i64, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    ensure!((fork.1, fork.2) == (0, 2 * self.meals), "{fork:?}");
                    forks += 1;
                }
            }
            ensure!(forks == self.philosophers, "{forks} forks");
            Ok(())
        })
        .await
        .unwrap();
    }
}

fn name(participant: usize) -> String {
    format!("forks-{participant}")
}

fn fork(number: usize) -> Branch {
    let payload = Some(typed(&format!("fork {number}")));
    Branch { participant: name(number % PARTICIPANTS), payload }
}

/// Until it has eaten: each try is a new transaction with the age of the first.
async fn eat(coordinator: &Alone, forks: [usize; 2], deadlocks: &AtomicUsize) {
    let mut first = String::new();
    // No deadline ends a circle: it would show.
    let long = prost_types::Duration { seconds: 120, nanos: 0 };
    for attempt in 0.. {
        let request = ExecuteRequest {
            branches: forks.map(fork).into(),
            retry_of: first.clone(),
            options: Some(TransactionOptions {
                prepare_timeout: Some(long),
                ..TransactionOptions::default()
            }),
            wait: Some(long),
            ..ExecuteRequest::default()
        };
        let answer = coordinator.execute(request).await.unwrap();
        if answer.committed {
            return;
        }
        let transaction = answer.transaction.unwrap();
        if first.is_empty() {
            first.clone_from(&transaction.id);
        }
        match code(&transaction) {
            "DEADLOCK" => {
                let message = &transaction.abort_reason.as_ref().unwrap().message;
                assert!(message.contains(&format!("retry_of = {first}")), "{message}");
                deadlocks.fetch_add(1, Relaxed);
            }
            code => panic!("{code}: {transaction:?}"),
        }
        sleep(Duration::from_millis(5 + (forks[0] * 7 + attempt * 3) as u64 % 20)).await;
    }
}

fn code(transaction: &Transaction) -> &str {
    &transaction.abort_reason.as_ref().unwrap_or_else(|| panic!("{transaction:?}")).code
}

/// Waits for all meals, with something done after each. At all times somebody gets
/// on, and at the end all have eaten.
async fn all_eat(table: &mut Table, mut after: impl AsyncFnMut(&mut Table, usize)) {
    let mut meals = table.dine();
    let mut eaten = vec![0; table.philosophers];
    for meal in 1..=table.philosophers * table.meals as usize {
        let next = timeout(DEADLINE, meals.recv()).await;
        eaten[next.expect("somebody eats").expect("nobody gave up")] += 1;
        after(table, meal).await;
    }
    assert_eq!(eaten, vec![table.meals; table.philosophers]);
    table.check().await;
}

#[tokio::test]
async fn fifty_philosophers_all_eat() {
    let mut table = Table::set(50, 4).await;
    all_eat(&mut table, async |_, _| {}).await;
    assert!(table.deadlocks.load(Relaxed) > 0, "nobody got in anybody's way");
}

#[tokio::test]
async fn fifty_philosophers_all_eat_though_participants_are_killed() {
    let mut table = Table::set(50, 4).await;
    let kill = async |table: &mut Table, meal: usize| {
        if meal.is_multiple_of(60) {
            table.participants[meal / 60 % PARTICIPANTS].restart().await.unwrap();
        }
    };
    all_eat(&mut table, kill).await;
}

/// The smallest circle, which many meals would close.
#[tokio::test]
async fn two_philosophers_all_eat() {
    let mut table = Table::set(2, 100).await;
    all_eat(&mut table, async |_, _| {}).await;
}

#[tokio::test]
async fn a_promise_keeps_its_fork_when_its_participant_is_killed() {
    let mut table = Table::set(2, 0).await;
    let coordinator = Arc::clone(&table.coordinators[0]);
    let mut client = coordinator.transactions.clone();
    let begun = client.begin(BeginRequest::default()).await.unwrap().into_inner();
    let transaction_id = begun.transaction_id;
    let branch = Some(fork(0));
    let enlist = EnlistRequest {
        transaction_id: transaction_id.clone(),
        branch,
        ..EnlistRequest::default()
    };
    client.enlist(enlist).await.unwrap();
    let prepare = PrepareTransactionRequest { transaction_id: transaction_id.clone(), wait: None };
    assert!(client.prepare(prepare).await.unwrap().into_inner().prepared);

    table.participants[0].restart().await.unwrap();
    let wants = || ExecuteRequest { branches: vec![fork(0), fork(1)], ..Default::default() };
    let refused = coordinator.execute(wants()).await.unwrap().transaction.unwrap();
    assert_eq!(code(&refused), "DEADLOCK");
    let message = &refused.abort_reason.as_ref().unwrap().message;
    assert!(message.contains(&transaction_id) && message.contains(&refused.id), "{message}");

    let rollback = RollbackTransactionRequest { transaction_id, ..Default::default() };
    client.rollback(rollback).await.unwrap();
    let retry_of = refused.id;
    eventually("the fork is free", async || {
        let request = ExecuteRequest { retry_of: retry_of.clone(), ..wants() };
        ensure!(coordinator.execute(request).await?.committed, "refused");
        Ok(())
    })
    .await
    .unwrap();
}
