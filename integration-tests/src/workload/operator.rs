//! Whoever is on call: ends what takes too long, sends it again, and gives back what
//! was looked at. Never against a decision: that breaks no promise.

use dtc_proto::dtc::{
    BranchState, ForgetRequest, ListTransactionsRequest, Resolution, ResolveRequest, RetryRequest,
    Transaction, TransactionState,
};
use rand::{RngExt, seq::IndexedRandom};

use super::client::{Client, within};

const WAIT: prost_types::Duration = prost_types::Duration { seconds: 5, nanos: 0 };

impl Client {
    /// Resolves what is stalled as it was decided; a busy operator also resolves single
    /// branches of what is not, retries, and forgets.
    pub(crate) async fn operate(&mut self) {
        let busy = self.catalog.extras.operators;
        let request = ListTransactionsRequest { stalled: !busy, ..Default::default() };
        let Ok(list) = within(self.patience(), self.transactions.list(request)).await else {
            return;
        };
        let mut transactions = list.into_inner().transactions;
        if busy {
            transactions.retain(|it| decided(it).is_some() || self.random.random_bool(0.2));
            transactions.truncate(4);
        }
        for transaction in transactions {
            let choice = if busy { self.random.random_range(0..6) } else { 0 };
            match choice {
                0..3 => self.resolve(&transaction, busy && choice == 1).await,
                3 => self.retry(&transaction).await,
                _ => self.forget(&transaction).await,
            }
        }
    }

    async fn resolve(&mut self, transaction: &Transaction, one_branch: bool) {
        let Some(resolution) = decided(transaction) else { return };
        let owed = |state| matches!(state, BranchState::Committing | BranchState::RollingBack);
        let branches: Vec<_> = transaction.branches.iter().filter(|it| owed(it.state())).collect();
        let branch = branches.choose(&mut self.random).map(|it| it.branch);
        let request = ResolveRequest {
            transaction_id: transaction.id.clone(),
            branch: branch.filter(|_| one_branch),
            resolution: resolution.into(),
            reason: "it takes too long".into(),
            caller: format!("customer {}", self.number),
            wait: Some(WAIT),
        };
        // It may have ended meanwhile.
        let done = within(self.patience(), self.admin.resolve(request)).await;
        if done.is_ok() && self.catalog.extras.operators && self.random.random_bool(0.5) {
            self.forget(transaction).await;
        }
    }

    async fn retry(&mut self, transaction: &Transaction) {
        let request = RetryRequest {
            transaction_id: transaction.id.clone(),
            reason: "they should be back".into(),
            caller: format!("customer {}", self.number),
        };
        let _ = within(self.patience(), self.admin.retry(request)).await;
    }

    async fn forget(&mut self, transaction: &Transaction) {
        let request = ForgetRequest {
            transaction_id: transaction.id.clone(),
            reason: "looked at".into(),
            caller: format!("customer {}", self.number),
        };
        let _ = within(self.patience(), self.admin.forget(request)).await;
    }
}

/// As what a transaction was decided and is not over yet.
fn decided(transaction: &Transaction) -> Option<Resolution> {
    match transaction.state() {
        // What is not told as committed may yet be compensated.
        TransactionState::Committing if transaction.committed => Some(Resolution::Commit),
        TransactionState::Aborting => Some(Resolution::Rollback),
        _ => None,
    }
}
