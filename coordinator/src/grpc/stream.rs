//! Many transactions over one stream.

use dtc_proto::{
    dtc::{
        ExecuteStreamItem, ExecuteStreamRequest, ExecuteStreamResponse, ExecuteStreamResult,
        execute_stream_result::Result as Outcome,
    },
    rpc,
};
use futures::{StreamExt, stream::FuturesUnordered};
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use dtc::api::Coordinator;

use super::{execute::execute, status::status};

/// Transactions of one stream in flight; beyond, the stream is not read.
const IN_FLIGHT: usize = 16_384;
/// Results in one response.
const RESULTS: usize = 1024;
/// Their bytes, but for the last one's; gRPC's own limit is 4 MiB.
const RESULT_BYTES: usize = 2 << 20;

/// Runs what comes in, until the client has sent all and has all results.
pub(super) async fn execute_all(
    coordinator: Coordinator,
    mut requests: Streaming<ExecuteStreamRequest>,
    responses: mpsc::Sender<Result<ExecuteStreamResponse, Status>>,
) {
    let mut running = FuturesUnordered::new();
    // Of the newest message, where there is no room to run them yet.
    let mut waiting = Vec::new().into_iter();
    let mut open = true;
    let mut stopping = std::pin::pin!(coordinator.shutdown().begun());
    loop {
        while running.len() < IN_FLIGHT
            && let Some(item) = waiting.next()
        {
            running.push(execute_item(&coordinator, item));
        }
        if !open && running.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            Some(result) = running.next(), if !running.is_empty() => {
                let mut size = result.encoded_len();
                let mut results = vec![result];
                while results.len() < RESULTS
                    && size < RESULT_BYTES
                    && let Some(Some(more)) = futures::FutureExt::now_or_never(running.next())
                {
                    size += more.encoded_len();
                    results.push(more);
                }
                if responses.send(Ok(ExecuteStreamResponse { results })).await.is_err() {
                    return;
                }
            }
            () = &mut stopping, if open => open = false,
            request = requests.message(), if open && running.len() < IN_FLIGHT => match request {
                Ok(Some(request)) => waiting = request.items.into_iter(),
                // The client has sent all, or is gone.
                Ok(None) | Err(_) => open = false,
            },
        }
    }
}

async fn execute_item(coordinator: &Coordinator, item: ExecuteStreamItem) -> ExecuteStreamResult {
    let request = item.request.unwrap_or_default();
    let result = match execute(coordinator, request).await {
        Ok(response) => Outcome::Response(response),
        Err(error) => {
            let status = status(error);
            let code = status.code().into();
            Outcome::Error(rpc::Status { code, message: status.message().into(), details: vec![] })
        }
    };
    ExecuteStreamResult { tag: item.tag, result: Some(result) }
}
