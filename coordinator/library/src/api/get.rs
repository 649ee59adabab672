//! One transaction, as it is now.

use dtc_protocol::TransactionId;

use super::{Coordinator, Error, Transaction, limits::SOON, request};
use crate::driver::Call;

impl Coordinator {
    /// A transaction with its trail.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTransaction`].
    pub async fn get(&self, id: TransactionId) -> Result<Transaction, Error> {
        let reply = self.handle.call(id, Call::Get, SOON).await?;
        self.shown(Some(id), reply).await
    }

    /// The transaction that a request key belongs to, with its trail.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`].
    pub async fn get_by_key(&self, request_key: &str) -> Result<Transaction, Error> {
        let key = request::some_request_key(request_key)?;
        if let Some(id) = self.handle.user_of(key.clone()).await? {
            return self.get(id).await;
        }
        match self.handle.journal.find_keys(vec![key.clone()]).await?[..] {
            [Some((id, _))] => self.get(id).await,
            _ => Err(Error::UnknownKey(key.to_string())),
        }
    }
}
