//! Calls about branches that are running: one a branch at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use dtc_protocol::TransactionId;
use tokio_util::sync::CancellationToken;

type Branch = (TransactionId, u32);

/// All of one participant's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    calls: Arc<Mutex<HashMap<Branch, Call>>>,
}

#[derive(Debug, Clone, Default)]
struct Call {
    closed: CancellationToken,
    ended: CancellationToken,
}

/// A call's, for as long as it runs.
#[derive(Debug)]
pub(crate) struct Turn {
    branch: Branch,
    call: Call,
    all: Running,
}

impl Running {
    /// Begins a call, when an earlier one of the branch was closed; none where one that
    /// was closed before does not end.
    pub(crate) async fn enter(&self, id: TransactionId, branch: u32) -> Option<Turn> {
        loop {
            let earlier = match self.begin(id, branch) {
                Ok(turn) => return Some(turn),
                Err(earlier) => earlier,
            };
            if earlier.closed.is_cancelled() && !earlier.ended.is_cancelled() {
                return None;
            }
            earlier.close().await;
        }
    }

    /// Begins a call, unless one of the branch is running.
    pub(crate) fn try_enter(&self, id: TransactionId, branch: u32) -> Option<Turn> {
        self.begin(id, branch).ok()
    }

    fn begin(&self, id: TransactionId, branch: u32) -> Result<Turn, Call> {
        let branch = (id, branch);
        let mut all = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(&branch) {
            Some(earlier) => Err(earlier.clone()),
            None => {
                let call = Call::default();
                all.insert(branch, call.clone());
                Ok(Turn { branch, call, all: self.clone() })
            }
        }
    }

    /// Closes the branch's call, if there is one; it has ended on return.
    pub(crate) async fn close(&self, id: TransactionId, branch: u32) {
        let call = {
            let all = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&(id, branch)).cloned()
        };
        if let Some(call) = call {
            call.close().await;
        }
    }
}

impl Call {
    async fn close(&self) {
        self.closed.cancel();
        self.ended.cancelled().await;
    }
}

impl Turn {
    /// Resolves when the call is to end.
    pub(crate) async fn closed(&self) {
        self.call.closed.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.all.calls.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.branch);
        self.call.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closing_waits_until_the_call_has_ended() {
        let (running, id) = (Running::default(), TransactionId::from_bytes([1; 16]));
        let turn = running.enter(id, 0).await.unwrap();
        let closing = tokio::spawn({
            let running = running.clone();
            async move { running.close(id, 0).await }
        });
        turn.closed().await;
        assert!(!closing.is_finished());
        drop(turn);
        closing.await.unwrap();
        running.close(id, 0).await;
    }

    #[tokio::test]
    async fn a_second_call_of_a_branch_closes_the_first() {
        let (running, id) = (Running::default(), TransactionId::from_bytes([1; 16]));
        let first = running.enter(id, 0).await.unwrap();
        let second = tokio::spawn({
            let running = running.clone();
            async move { running.enter(id, 0).await }
        });
        first.closed().await;
        drop(first);
        let _other = running.enter(id, 1).await.unwrap();
        let _second = second.await.unwrap().unwrap();
    }
}
