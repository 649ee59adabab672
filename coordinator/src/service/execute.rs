//! A whole transaction in one request.

use proto::dtc::{ExecuteRequest, ExecuteResponse};

use super::{Services, request};
use crate::{driver::NewTransaction, error::Error};

impl Services {
    pub(super) async fn execute(&self, request: ExecuteRequest) -> Result<ExecuteResponse, Error> {
        let key = match &*request.request_key {
            "" => None,
            key => Some(request::request_key(key)?),
        };
        let wait = request::wait(request.wait.as_ref())?;
        let answer_at = request::answer_at(request.answer_at)?;
        let options = self.rules.options(request.options.as_ref())?;
        let branches = self.rules.branches(&request.branches, &self.links).await?;
        let key = key.map(|key| (key, request::fingerprint(&request, &branches)));
        self.check_room()?;
        let new = NewTransaction { key, options, branches, interactive: false, answer_at };
        let reply = self.handle.begin(new, wait).await?;
        let mut transaction = self.transaction(None, reply).await?;
        transaction.trail.clear();
        let committed = transaction.committed;
        Ok(ExecuteResponse { transaction: Some(transaction), committed })
    }

    /// New work is refused while the disk still has room for what was promised.
    pub(super) fn check_room(&self) -> Result<(), Error> {
        if self.shutdown.is_begun() {
            return Err(Error::Stopping);
        }
        if self.handle.journal.has_room() {
            return Ok(());
        }
        Err(Error::Exhausted(
            "the disk of the coordinator's journal is nearly full; what was begun goes on, new \
             transactions are refused until there is room (--min-free)"
                .into(),
        ))
    }
}
