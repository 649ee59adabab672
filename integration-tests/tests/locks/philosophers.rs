//! Fifty philosophers at one table, each of whom needs the forks on both sides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use dtc_proto::dtc::CommitTransactionRequest;
use integration_tests::{Alone, Start};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::{Locking, exclusive, linked, request_at};

const PHILOSOPHERS: usize = 50;
/// Much longer than it ever takes.
const DEADLINE: Duration = Duration::from_secs(90);

struct Table {
    coordinator: Alone,
    forks: Vec<AtomicBool>,
    refused: AtomicUsize,
}

impl Table {
    async fn new(policy: &str) -> Self {
        let start = Start::new().arg("--deadlocks").arg(policy);
        Self {
            coordinator: Alone::start_with(start).await.unwrap(),
            forks: (0..PHILOSOPHERS).map(|_| AtomicBool::new(false)).collect(),
            refused: AtomicUsize::new(0),
        }
    }

    /// Takes one fork and then the other; begins anew, as old as before, when it is
    /// told that this would be a deadlock.
    async fn eat(&self, number: usize) {
        let sides = [number, (number + 1) % PHILOSOPHERS];
        let mut first = String::new();
        loop {
            let id = self.coordinator.begin(&first).await.unwrap();
            if first.is_empty() {
                first.clone_from(&id);
            }
            if self.take(&id, sides).await {
                // Nobody else has one of them.
                assert!(sides.iter().all(|fork| !self.forks[*fork].swap(true, SeqCst)));
                tokio::task::yield_now().await;
                sides.iter().for_each(|fork| self.forks[*fork].store(false, SeqCst));
                let request = CommitTransactionRequest { transaction_id: id, ..Default::default() };
                let answer = self.coordinator.transactions.clone().commit(request).await.unwrap();
                assert!(answer.into_inner().committed);
                return;
            }
            self.refused.fetch_add(1, SeqCst);
        }
    }

    async fn take(&self, id: &str, sides: [usize; 2]) -> bool {
        for fork in sides {
            if let Err(status) = self.coordinator.lock(id, &[&format!("fork/{fork}")]).await {
                assert_eq!(status.code(), Code::Aborted, "{status}");
                return false;
            }
        }
        true
    }
}

async fn dine(policy: &str, meals: usize) {
    let table = Arc::new(Table::new(policy).await);
    let mut philosophers = JoinSet::new();
    for number in 0..PHILOSOPHERS {
        let table = Arc::clone(&table);
        philosophers.spawn(async move {
            for _ in 0..meals {
                table.eat(number).await;
            }
        });
    }
    let all = timeout(DEADLINE, philosophers.join_all());
    assert!(all.await.is_ok(), "{policy}: they starve");
    table.coordinator.free("fork/").await;
    println!("{policy}: {} retries", table.refused.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fork_after_the_other_with_wait_die() {
    dine("wait-die", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fork_after_the_other_with_detection() {
    dine("detect", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forks_at_once_and_nobody_is_ever_refused() {
    for policy in ["wait-die", "detect"] {
        let table = Arc::new(Table::new(policy).await);
        let (one, two) = (Arc::new(linked().await), Arc::new(linked().await));
        let mut philosophers = JoinSet::new();
        for number in 0..PHILOSOPHERS {
            let (table, one, two) = (Arc::clone(&table), Arc::clone(&one), Arc::clone(&two));
            philosophers.spawn(async move {
                let sides = [number, (number + 1) % PHILOSOPHERS].map(|it| format!("fork/{it}"));
                let locks = exclusive(&sides.each_ref().map(String::as_str));
                for _ in 0..5 {
                    let request = request_at(&[&one, &two], locks.clone());
                    let answer = table.coordinator.execute(request).await.unwrap();
                    assert!(answer.committed, "{answer:?}");
                }
            });
        }
        let all = timeout(DEADLINE, philosophers.join_all());
        assert!(all.await.is_ok(), "{policy}: they starve");
        table.coordinator.free("fork/").await;
    }
}
