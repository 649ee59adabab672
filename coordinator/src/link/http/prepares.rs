//! The prepare calls that are running.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use common::TransactionId;
use tokio_util::sync::CancellationToken;

type Branch = (TransactionId, u32);

/// All of one participant's.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepares {
    running: Arc<Mutex<HashMap<Branch, Running>>>,
}

#[derive(Debug, Clone, Default)]
struct Running {
    closed: CancellationToken,
    ended: CancellationToken,
}

/// A call's, for as long as it runs.
#[derive(Debug)]
pub(super) struct Turn {
    branch: Branch,
    running: Running,
    prepares: Prepares,
}

impl Prepares {
    /// Begins a call, when an earlier one of the branch was closed.
    pub(super) async fn enter(&self, id: TransactionId, branch: u32) -> Turn {
        let branch = (id, branch);
        loop {
            let earlier = {
                let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                match all.get(&branch) {
                    Some(earlier) => earlier.clone(),
                    None => {
                        let running = Running::default();
                        all.insert(branch, running.clone());
                        return Turn { branch, running, prepares: self.clone() };
                    }
                }
            };
            earlier.close().await;
        }
    }

    /// Closes the branch's call, if there is one; it has ended on return.
    pub(super) async fn close(&self, id: TransactionId, branch: u32) {
        let running = {
            let all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&(id, branch)).cloned()
        };
        if let Some(running) = running {
            running.close().await;
        }
    }
}

impl Running {
    async fn close(&self) {
        self.closed.cancel();
        self.ended.cancelled().await;
    }
}

impl Turn {
    /// Resolves when the call is to end.
    pub(super) async fn closed(&self) {
        self.running.closed.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.prepares.running.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.branch);
        self.running.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closing_waits_until_the_call_has_ended() {
        let (prepares, id) = (Prepares::default(), TransactionId::from_bytes([1; 16]));
        let turn = prepares.enter(id, 0).await;
        let closing = tokio::spawn({
            let prepares = prepares.clone();
            async move { prepares.close(id, 0).await }
        });
        turn.closed().await;
        assert!(!closing.is_finished());
        drop(turn);
        closing.await.unwrap();
        prepares.close(id, 0).await;
    }

    #[tokio::test]
    async fn a_second_call_of_a_branch_closes_the_first() {
        let (prepares, id) = (Prepares::default(), TransactionId::from_bytes([1; 16]));
        let first = prepares.enter(id, 0).await;
        let second = tokio::spawn({
            let prepares = prepares.clone();
            async move { prepares.enter(id, 0).await }
        });
        first.closed().await;
        drop(first);
        let _other = prepares.enter(id, 1).await;
        let _second = second.await.unwrap();
    }
}
