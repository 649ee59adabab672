//! A transaction as it goes on.

use dtc_proto::dtc::{Transaction, TransactionState, WatchTransactionResponse};
use dtc_protocol::TransactionId;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tonic::Status;

use super::Services;
use crate::convert;

type Responses = mpsc::Sender<Result<WatchTransactionResponse, Status>>;

impl Services {
    /// Sends the transaction now and after each of its events, until it has
    /// finished or the client is gone.
    pub(super) async fn watch(self, id: TransactionId, responses: Responses) {
        // Before the first look, so that nothing is missed between the two.
        let mut events = self.handle.watch();
        let mut event = None;
        loop {
            let transaction = match self.look(id).await {
                Ok(transaction) => transaction,
                Err(error) => {
                    let _ = responses.send(Err(error.into())).await;
                    return;
                }
            };
            let finished = is_finished(&transaction);
            let response = WatchTransactionResponse { transaction: Some(transaction), event };
            if responses.send(Ok(response)).await.is_err() || finished {
                return;
            }
            let stopping = self.shutdown.begun();
            let happened = async {
                loop {
                    match events.recv().await {
                        Ok(happened) if happened.id == id => return Some(happened.event),
                        Ok(_) => {}
                        // Some were missed: a look shows where it is now.
                        Err(RecvError::Lagged(_)) => return None,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let happened = tokio::select! {
                biased;
                () = stopping => return,
                () = responses.closed() => return,
                happened = happened => happened,
            };
            event = happened.map(|event| convert::trail_event(&event, &[], None));
        }
    }
}

fn is_finished(transaction: &Transaction) -> bool {
    matches!(transaction.state(), TransactionState::Committed | TransactionState::Aborted)
}
