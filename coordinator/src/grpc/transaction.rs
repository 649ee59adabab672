//! `dtc.v1.TransactionService`.

use dtc::api::{Error, NewTransaction, Watch};
use dtc_proto::dtc::{
    BeginRequest, BeginResponse, CommitTransactionRequest, CommitTransactionResponse,
    EnlistRequest, EnlistResponse, ExecuteRequest, ExecuteResponse, ExecuteStreamRequest,
    ExecuteStreamResponse, GetTransactionRequest, GetTransactionResponse, ListTransactionsRequest,
    ListTransactionsResponse, PrepareTransactionRequest, PrepareTransactionResponse,
    RollbackTransactionRequest, RollbackTransactionResponse, WatchTransactionRequest,
    WatchTransactionResponse, get_transaction_request::By,
    transaction_service_server::TransactionService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Grpc, execute::execute, read, show, status::status, stream};

/// Responses of a stream that wait for the network.
const QUEUED: usize = 16;

#[async_trait]
impl TransactionService for Grpc {
    type ExecuteStreamStream = ReceiverStream<Result<ExecuteStreamResponse, Status>>;
    type WatchStream = ReceiverStream<Result<WatchTransactionResponse, Status>>;

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        execute(&self.0, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteStreamRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let (responses, queued) = mpsc::channel(QUEUED);
        tokio::spawn(stream::execute_all(self.0.clone(), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(queued)))
    }

    async fn begin(
        &self,
        request: Request<BeginRequest>,
    ) -> Result<Response<BeginResponse>, Status> {
        let BeginRequest { options, retry_of, request_key } = request.into_inner();
        let new = NewTransaction {
            request_key: Some(request_key).filter(|key| !key.is_empty()),
            options: read::options(options.as_ref()).map_err(status)?,
            retry_of: read::optional_id("retry_of", &retry_of).map_err(status)?,
            ..NewTransaction::default()
        };
        let id = self.0.begin(&new).await.map_err(status)?;
        Ok(Response::new(BeginResponse { transaction_id: id.to_string() }))
    }

    async fn enlist(
        &self,
        request: Request<EnlistRequest>,
    ) -> Result<Response<EnlistResponse>, Status> {
        let EnlistRequest { transaction_id, branch, request_key } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let branch = read::branch(branch.unwrap_or_default());
        let branch = self.0.enlist(id, &branch, read::some(&request_key)).await.map_err(status)?;
        Ok(Response::new(EnlistResponse { branch }))
    }

    async fn prepare(
        &self,
        request: Request<PrepareTransactionRequest>,
    ) -> Result<Response<PrepareTransactionResponse>, Status> {
        let PrepareTransactionRequest { transaction_id, wait } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let wait = read::duration("wait", wait.as_ref()).map_err(status)?;
        let transaction = self.0.prepare(id, wait).await.map_err(status)?;
        let prepared = transaction.is_prepared();
        let transaction = Some(show::transaction(transaction));
        Ok(Response::new(PrepareTransactionResponse { transaction, prepared }))
    }

    async fn commit(
        &self,
        request: Request<CommitTransactionRequest>,
    ) -> Result<Response<CommitTransactionResponse>, Status> {
        let CommitTransactionRequest { transaction_id, answer_at, wait } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let wait = read::duration("wait", wait.as_ref()).map_err(status)?;
        let at = read::answer_at(answer_at).map_err(status)?;
        let transaction = self.0.commit(id, at, wait).await.map_err(status)?;
        let committed = transaction.committed;
        let transaction = Some(show::transaction(transaction));
        Ok(Response::new(CommitTransactionResponse { transaction, committed }))
    }

    async fn rollback(
        &self,
        request: Request<RollbackTransactionRequest>,
    ) -> Result<Response<RollbackTransactionResponse>, Status> {
        let RollbackTransactionRequest { transaction_id, answer_at, wait } = request.into_inner();
        let id = read::transaction_id(&transaction_id).map_err(status)?;
        let wait = read::duration("wait", wait.as_ref()).map_err(status)?;
        let at = read::answer_at(answer_at).map_err(status)?;
        let transaction = self.0.rollback(id, at, wait).await.map_err(status)?;
        let transaction = Some(show::transaction(transaction));
        Ok(Response::new(RollbackTransactionResponse { transaction }))
    }

    async fn get(
        &self,
        request: Request<GetTransactionRequest>,
    ) -> Result<Response<GetTransactionResponse>, Status> {
        let transaction = match request.into_inner().by {
            Some(By::TransactionId(id)) => {
                self.0.get(read::transaction_id(&id).map_err(status)?).await
            }
            Some(By::RequestKey(key)) => self.0.get_by_key(&key).await,
            None => {
                let problem = "is empty; give it, or request_key";
                Err(Error::invalid("transaction_id", problem))
            }
        };
        let transaction = transaction.map_err(status)?;
        let committed = transaction.committed;
        let transaction = Some(show::transaction(transaction));
        Ok(Response::new(GetTransactionResponse { transaction, committed }))
    }

    async fn list(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        let filter = read::filter(request.into_inner()).map_err(status)?;
        let page = self.0.list(&filter).await.map_err(status)?;
        Ok(Response::new(ListTransactionsResponse {
            transactions: page.transactions.into_iter().map(show::transaction).collect(),
            next_page_token: page.next.map_or_else(String::new, |id| id.to_string()),
        }))
    }

    async fn watch(
        &self,
        request: Request<WatchTransactionRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let id = read::transaction_id(&request.into_inner().transaction_id).map_err(status)?;
        // An unknown one is an error of the call, not of the stream.
        let watch = self.0.watch(id).await.map_err(status)?;
        let (responses, queued) = mpsc::channel(QUEUED);
        tokio::spawn(send_updates(watch, responses));
        Ok(Response::new(ReceiverStream::new(queued)))
    }
}

async fn send_updates(
    mut watch: Watch,
    responses: mpsc::Sender<Result<WatchTransactionResponse, Status>>,
) {
    loop {
        let update = tokio::select! {
            biased;
            () = responses.closed() => return,
            update = watch.next() => update,
        };
        let response = match update {
            Ok(None) => return,
            Ok(Some(update)) => Ok(WatchTransactionResponse {
                transaction: Some(show::transaction(update.transaction)),
                event: update.event.map(show::trail_event),
            }),
            Err(error) => Err(status(error)),
        };
        if responses.send(response).await.is_err() {
            return;
        }
    }
}
