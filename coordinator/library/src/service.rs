//! gRPC at the edge: requests are checked here, answered from the machine or
//! the journal, and every error becomes a status in one place.

mod admin;
mod execute;
mod interactive;
mod list;
mod lock;
mod recovery;
mod registry;
mod repeat;
mod request;
mod stream;
mod transaction;
mod watch;

use dtc_core::Reply;
use dtc_proto::dtc;
use dtc_protocol::TransactionId;

use crate::{
    convert,
    driver::{Call, Handle},
    error::Error,
    links::Links,
};
use dtc_runtime::Shutdown;
pub use request::{Rules, transaction_id};
use std::{sync::Arc, time::Duration};

/// What all services work with.
#[derive(Clone)]
pub struct Services {
    pub handle: Handle,
    pub links: Links,
    pub rules: Rules,
    pub shutdown: Shutdown,
    /// One registration changes at a time: journal and directory agree.
    pub registering: Arc<tokio::sync::Mutex<()>>,
}

impl Services {
    /// The transaction that a reply shows, from memory or the journal.
    pub async fn transaction(
        &self,
        id: Option<TransactionId>,
        reply: Reply,
    ) -> Result<dtc::Transaction, Error> {
        let directory = &self.handle.directory;
        let id = match (reply, id) {
            (Reply::Transaction(view), _) => return Ok(convert::transaction(&view, directory)),
            (Reply::Refused(refused), _) => return Err(Error::refused(&refused, directory)),
            (Reply::See(id), _) | (Reply::Begun(id), _) => id,
            (Reply::NotHere | Reply::Enlisted(_), Some(id)) => id,
            (Reply::NotHere | Reply::Enlisted(_), None)
            | (Reply::NoRepeat | Reply::Locked { .. } | Reply::Released(_), _) => {
                return Err(Error::Stopping);
            }
        };
        let stored = self.handle.journal.find(id).await?;
        let stored = stored.ok_or(Error::UnknownTransaction(id))?;
        if stored.end.is_some() {
            return Ok(convert::stored(&stored, true));
        }
        // It became unfinished work again between the two looks: in memory then.
        match self.handle.call(id, Call::Get, Duration::ZERO).await? {
            Reply::Transaction(view) => Ok(convert::transaction(&view, directory)),
            _ => {
                let stored = self.handle.journal.find(id).await?;
                let stored = stored.ok_or(Error::UnknownTransaction(id))?;
                Ok(convert::stored(&stored, true))
            }
        }
    }
}
