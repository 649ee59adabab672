//! A participant's own calls: reads and set-up, on the same storage.

use dtc_store::{ReadError, Store, WriteError, in_savepoint};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tonic::Status;

use crate::{Error, Refusal, domain::guarded};

const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Reads and writes a participant's tables beside its branches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) store: Store,
}

/// How rows are listed by their key.
pub struct Listing<T> {
    /// Rows whose key is greater than `?1`, in the key's order, `?2` at most.
    pub sql: &'static str,
    /// Makes an item of a row.
    pub item: fn(&Row<'_>) -> rusqlite::Result<T>,
    /// An item's key.
    pub key: fn(&T) -> &str,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::invalid_argument(refusal.message)
    }
}

impl Handle {
    /// Reads in a transaction. Keep it short.
    ///
    /// # Errors
    ///
    /// INTERNAL with SQLite's reason, DATA_LOSS where the file is damaged,
    /// UNAVAILABLE while stopping.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let read = move |connection: &Connection| match guarded(|| Ok(work(connection))) {
            Ok(read) => read.map(Ok),
            Err(panic) => Ok(Err(panic)),
        };
        let read = self.store.read(read).await.map_err(|error| match error {
            ReadError::Work(error) => Status::internal(error.to_string()),
            error @ ReadError::Damaged { .. } => Status::data_loss(error.to_string()),
            ReadError::Closed => Status::unavailable(error.to_string()),
        })?;
        read.map_err(|panic| Status::internal(panic.to_string()))
    }

    /// Writes durably, with whatever else is in the batch.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION for a refusal, RESOURCE_EXHAUSTED for a full disk,
    /// INTERNAL for what SQLite says. Nothing is written then.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        if !self.store.has_room() {
            return Err(Status::resource_exhausted("too little disk space is free (--min-free)"));
        }
        let written = self
            .store
            .write(move |transaction| {
                Ok(in_savepoint(transaction, |_| guarded(|| work(transaction))))
            })
            .await
            .map_err(|error| match error {
                WriteError::RolledBack { .. } => Status::resource_exhausted(error.to_string()),
                WriteError::Work(_) => Status::internal(error.to_string()),
                WriteError::Closed => Status::unavailable(error.to_string()),
            })?;
        written.map_err(|error| match error {
            Error::Refused(refusal) => Status::failed_precondition(refusal.message),
            Error::Sqlite(_) | Error::Inconsistent(_) | Error::Panicked(_) => {
                Status::internal(error.to_string())
            }
        })
    }

    /// The row with a key; `what` is its noun in messages, such as `SKU`.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, and those of [`Self::read`].
    pub async fn get<T: Send + 'static>(
        &self,
        what: &str,
        key: String,
        sql: &'static str,
        item: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Status> {
        let missing = format!("{what} '{key}' is unknown");
        let read = move |connection: &Connection| {
            connection.prepare_cached(sql)?.query_row([key], item).optional()
        };
        self.read(read).await?.ok_or_else(|| Status::not_found(missing))
    }

    /// A page of rows, and the token of the next page, empty after the last.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for the page's size, and those of [`Self::read`].
    pub async fn list<T: Send + 'static>(
        &self,
        page_size: u32,
        page_token: String,
        listing: Listing<T>,
    ) -> Result<(Vec<T>, String), Status> {
        let size = match page_size {
            0 => PAGE,
            1..=LARGEST_PAGE => page_size,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "page_size is {page_size}; it is from 1 to {LARGEST_PAGE}, or 0 for {PAGE}"
                )));
            }
        };
        let Listing { sql, item, key } = listing;
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![page_token, size + 1], item)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut items = self.read(read).await?;
        let size = size as usize;
        let next = match items.len() > size {
            true => key(&items[size - 1]).to_owned(),
            false => String::new(),
        };
        items.truncate(size);
        Ok((items, next))
    }
}
