//! `dtc.v1.TransactionService`.

use dtc_proto::dtc::{
    BeginRequest, BeginResponse, CommitTransactionRequest, CommitTransactionResponse,
    EnlistRequest, EnlistResponse, ExecuteRequest, ExecuteResponse, ExecuteStreamRequest,
    ExecuteStreamResponse, GetTransactionRequest, GetTransactionResponse, ListTransactionsRequest,
    ListTransactionsResponse, PrepareTransactionRequest, PrepareTransactionResponse,
    RollbackTransactionRequest, RollbackTransactionResponse, WatchTransactionRequest,
    WatchTransactionResponse, transaction_service_server::TransactionService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Services, request};

/// Responses of a stream that wait for the network.
const QUEUED: usize = 16;

#[async_trait]
impl TransactionService for Services {
    type ExecuteStreamStream = ReceiverStream<Result<ExecuteStreamResponse, Status>>;
    type WatchStream = ReceiverStream<Result<WatchTransactionResponse, Status>>;

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        Ok(Response::new(Services::execute(self, request.into_inner()).await?))
    }

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteStreamRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let (responses, queued) = mpsc::channel(QUEUED);
        tokio::spawn(self.clone().execute_all(request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(queued)))
    }

    async fn begin(
        &self,
        request: Request<BeginRequest>,
    ) -> Result<Response<BeginResponse>, Status> {
        Ok(Response::new(Services::begin(self, request.into_inner(), None).await?))
    }

    async fn enlist(
        &self,
        request: Request<EnlistRequest>,
    ) -> Result<Response<EnlistResponse>, Status> {
        Ok(Response::new(Services::enlist(self, request.into_inner()).await?))
    }

    async fn prepare(
        &self,
        request: Request<PrepareTransactionRequest>,
    ) -> Result<Response<PrepareTransactionResponse>, Status> {
        Ok(Response::new(Services::prepare(self, request.into_inner()).await?))
    }

    async fn commit(
        &self,
        request: Request<CommitTransactionRequest>,
    ) -> Result<Response<CommitTransactionResponse>, Status> {
        Ok(Response::new(Services::commit(self, request.into_inner()).await?))
    }

    async fn rollback(
        &self,
        request: Request<RollbackTransactionRequest>,
    ) -> Result<Response<RollbackTransactionResponse>, Status> {
        Ok(Response::new(Services::rollback(self, request.into_inner()).await?))
    }

    async fn get(
        &self,
        request: Request<GetTransactionRequest>,
    ) -> Result<Response<GetTransactionResponse>, Status> {
        Ok(Response::new(Services::get(self, request.into_inner()).await?))
    }

    async fn list(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        Ok(Response::new(Services::list(self, request.into_inner()).await?))
    }

    async fn watch(
        &self,
        request: Request<WatchTransactionRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let id = request::transaction_id(&request.into_inner().transaction_id)?;
        // An unknown one is an error of the call, not of the stream.
        self.look(id).await?;
        let (responses, queued) = mpsc::channel(QUEUED);
        tokio::spawn(Services::watch(self.clone(), id, responses));
        Ok(Response::new(ReceiverStream::new(queued)))
    }
}
