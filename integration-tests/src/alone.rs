//! A coordinator by itself, for participants by script.

use anyhow::ensure;
use dtc_proto::dtc::{
    Branch, ExecuteRequest, ExecuteResponse, GetTransactionRequest, Transaction,
    get_transaction_request::By, lock_service_client::LockServiceClient,
    recovery_service_client::RecoveryServiceClient, registry_service_client::RegistryServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use shop_proto::ReserveStock;
use tempfile::TempDir;
use tonic::{Status, transport::Channel};

use crate::{Addresses, Binaries, Process, Role, Start, channel, eventually, typed};

/// A coordinator that knows no participant by name, and its clients.
#[derive(Debug)]
pub struct Alone {
    /// The coordinator.
    pub process: Process,
    /// To its transactions.
    pub transactions: TransactionServiceClient<Channel>,
    /// To its list of participants.
    pub registry: RegistryServiceClient<Channel>,
    /// To its locks.
    pub locks: LockServiceClient<Channel>,
    /// To its outcomes.
    pub recovery: RecoveryServiceClient<Channel>,
    _folder: TempDir,
}

impl Alone {
    /// Starts one with its defaults.
    ///
    /// # Errors
    ///
    /// When it doesn't come to serve.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Start::new()).await
    }

    /// Starts one; what is added is so at each later start.
    ///
    /// # Errors
    ///
    /// When it doesn't come to serve.
    pub async fn start_with(always: Start) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dtc-").tempdir()?;
        let role = Role::Coordinator;
        let address = Addresses::pick().coordinator;
        let program = Binaries::test()?.path(role);
        let mut process =
            Process::new(role.name(), &program, folder.path(), address).always(always);
        process.start().await?;
        let channel = channel(address);
        Ok(Self {
            process,
            transactions: TransactionServiceClient::new(channel.clone()),
            registry: RegistryServiceClient::new(channel.clone()),
            locks: LockServiceClient::new(channel.clone()),
            recovery: RecoveryServiceClient::new(channel),
            _folder: folder,
        })
    }

    /// One call of `Execute`.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn execute(&self, request: ExecuteRequest) -> Result<ExecuteResponse, Status> {
        Ok(self.transactions.clone().execute(request).await?.into_inner())
    }

    /// A transaction, with its trail.
    ///
    /// # Errors
    ///
    /// What the coordinator says.
    pub async fn transaction(&self, id: &str) -> Result<Transaction, Status> {
        let request = GetTransactionRequest { by: Some(By::TransactionId(id.into())) };
        let answer = self.transactions.clone().get(request).await?.into_inner();
        answer.transaction.ok_or_else(|| Status::internal("Get answered without a transaction"))
    }

    /// A transaction once nothing is owed any more.
    ///
    /// # Errors
    ///
    /// When it doesn't end.
    pub async fn ended(&self, id: &str) -> anyhow::Result<Transaction> {
        eventually("the transaction ends", async || {
            let transaction = self.transaction(id).await?;
            ensure!(transaction.ended_at.is_some(), "{transaction:?}");
            Ok(transaction)
        })
        .await
    }
}

/// Branches at these participants, with a payload that scripts don't read.
pub fn branches_at<'a>(participants: impl IntoIterator<Item = &'a str>) -> Vec<Branch> {
    let branch = |participant: &str| Branch {
        participant: participant.into(),
        // One that speaks HTTP takes JSON, or nothing.
        payload: (!participant.ends_with("/prepare")).then(|| typed(&ReserveStock::default())),
    };
    participants.into_iter().map(branch).collect()
}
