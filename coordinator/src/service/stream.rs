//! Many transactions over one stream.

use futures::{StreamExt, stream::FuturesUnordered};
use proto::{
    dtc::{
        ExecuteStreamItem, ExecuteStreamRequest, ExecuteStreamResponse, ExecuteStreamResult,
        execute_stream_result::Result as Outcome,
    },
    rpc,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Services;

/// Transactions of one stream in flight; beyond, the stream is not read.
const IN_FLIGHT: usize = 16_384;
/// Results in one response.
const RESULTS: usize = 1024;

impl Services {
    /// Runs what comes in, until the client has sent all and has all results.
    pub(super) async fn execute_all(
        self,
        mut requests: Streaming<ExecuteStreamRequest>,
        responses: mpsc::Sender<Result<ExecuteStreamResponse, Status>>,
    ) {
        let mut running = FuturesUnordered::new();
        let mut open = true;
        let mut stopping = std::pin::pin!(self.shutdown.begun());
        while open || !running.is_empty() {
            tokio::select! {
                biased;
                Some(result) = running.next(), if !running.is_empty() => {
                    let mut results = vec![result];
                    while results.len() < RESULTS
                        && let Some(Some(more)) = futures::FutureExt::now_or_never(running.next())
                    {
                        results.push(more);
                    }
                    if responses.send(Ok(ExecuteStreamResponse { results })).await.is_err() {
                        return;
                    }
                }
                () = &mut stopping, if open => open = false,
                request = requests.message(), if open && running.len() < IN_FLIGHT => match request {
                    Ok(Some(request)) => {
                        for item in request.items {
                            running.push(self.execute_item(item));
                        }
                    }
                    // The client has sent all, or is gone.
                    Ok(None) | Err(_) => open = false,
                },
            }
        }
    }

    async fn execute_item(&self, item: ExecuteStreamItem) -> ExecuteStreamResult {
        let request = item.request.unwrap_or_default();
        let result = match self.execute(request).await {
            Ok(response) => Outcome::Response(response),
            Err(error) => {
                let status = Status::from(error);
                let code = status.code().into();
                Outcome::Error(rpc::Status {
                    code,
                    message: status.message().into(),
                    details: vec![],
                })
            }
        };
        ExecuteStreamResult { tag: item.tag, result: Some(result) }
    }
}
