//! Set-up and reading.

use dtc_participant::{Handle, Listing, Refusal, fields};
use shop_proto::{
    GetAccountRequest, GetAccountResponse, ListAccountsRequest, ListAccountsResponse,
    OpenAccountRequest, OpenAccountResponse, payment_service_server::PaymentService,
};
use tonic::{Request, Response, Status};

use crate::account;

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) handle: Handle,
}

#[tonic::async_trait]
impl PaymentService for Service {
    async fn open_account(
        &self,
        request: Request<OpenAccountRequest>,
    ) -> Result<Response<OpenAccountResponse>, Status> {
        let OpenAccountRequest { account: name, currency, balance_minor } = request.into_inner();
        fields::name("account", &name)?;
        shop_proto::check_currency("currency", &currency)
            .map_err(|problem| Refusal::new("INVALID_CURRENCY", problem))?;
        // Half, so that what is undone later has room to come back to.
        fields::number("INVALID_AMOUNT", "balance_minor", balance_minor, 0..=i64::MAX / 2)?;
        let write = move |transaction: &rusqlite::Transaction<'_>| {
            account::open(transaction, &name, &currency, balance_minor)
        };
        let account = self.handle.write(write).await?;
        Ok(Response::new(OpenAccountResponse { account: Some(account) }))
    }

    async fn get_account(
        &self,
        request: Request<GetAccountRequest>,
    ) -> Result<Response<GetAccountResponse>, Status> {
        let name = request.into_inner().account;
        let sql = "SELECT account, currency, balance, held, version FROM accounts
                   WHERE account = ?1";
        let account = self.handle.get("account", name, sql, account::from_row).await?;
        Ok(Response::new(GetAccountResponse { account: Some(account) }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let ListAccountsRequest { page_size, page_token } = request.into_inner();
        let listing = Listing {
            sql: "SELECT account, currency, balance, held, version FROM accounts
                  WHERE account > ?1 ORDER BY account LIMIT ?2",
            item: account::from_row,
            key: |account| &account.account,
        };
        let (accounts, next_page_token) = self.handle.list(page_size, page_token, listing).await?;
        Ok(Response::new(ListAccountsResponse { accounts, next_page_token }))
    }
}
