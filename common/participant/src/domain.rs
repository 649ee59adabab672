//! The only way from the kit into a participant's own code: what panics there is an error
//! of its branch, and the storage's thread goes on.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use dtc_protocol::BranchId;
use prost::Message;
use rusqlite::Transaction;

use crate::{Error, ResourceManager, Vote};

/// The code of a prepare in which the participant's own code panicked.
pub(crate) const PANICKED: &str = "PARTICIPANT_PANICKED";

/// A participant's domain.
pub(crate) struct Domain<R>(R);

impl<R: ResourceManager> Domain<R> {
    pub(crate) fn new(resource: R) -> Self {
        Self(resource)
    }

    pub(crate) fn prepare(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        payload: &R::Payload,
    ) -> Result<Vote<R::Output>, Error> {
        guarded(|| self.0.prepare(transaction, branch, payload))
    }

    pub(crate) fn locks(&self, payload: &R::Payload) -> Result<Vec<String>, Error> {
        guarded(|| Ok(self.0.locks(payload)))
    }

    /// Commits or rolls back, with what the journal has of the branch.
    pub(crate) fn apply_decision(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        (payload, output): (&[u8], &[u8]),
        commit: bool,
    ) -> Result<(), Error> {
        #[cfg(feature = "mutants")]
        if crate::mutants::keeps_reservation(commit) {
            return Ok(());
        }
        guarded(|| {
            let (payload, output) = decode::<R>(payload, output)?;
            match commit {
                true => self.0.commit(transaction, branch, &payload, &output),
                false => self.0.rollback(transaction, branch, &payload, &output),
            }
        })
    }

    /// Commits what was prepared in the same call.
    pub(crate) fn commit_at_once(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        payload: &R::Payload,
        output: &R::Output,
    ) -> Result<(), Error> {
        guarded(|| self.0.commit(transaction, branch, payload, output))
    }

    pub(crate) fn compensate(
        &self,
        transaction: &Transaction<'_>,
        branch: &BranchId,
        (payload, output): (&[u8], &[u8]),
    ) -> Result<(), Error> {
        guarded(|| {
            let (payload, output) = decode::<R>(payload, output)?;
            self.0.compensate(transaction, branch, &payload, &output)
        })
    }
}

fn decode<R: ResourceManager>(
    payload: &[u8],
    output: &[u8],
) -> Result<(R::Payload, R::Output), Error> {
    let payload = R::Payload::decode(payload)
        .map_err(|_| Error::Inconsistent("a branch's payload cannot be decoded"))?;
    let output = R::Output::decode(output)
        .map_err(|_| Error::Inconsistent("a branch's output cannot be decoded"))?;
    Ok((payload, output))
}

/// Runs code that is not the kit's; its panic is an error.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Error::Panicked(message_of(&*panic))))
}

/// What a panic says of itself.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").into()
}
