//! What a store changes in the body of an end record; all else of a body is not its own.

use dtc_core::Intervention;
use prost::Message;

use super::{JournalError, codec, disk};

/// The body of an end record with what an operator did since added to it.
///
/// # Errors
///
/// [`JournalError::Damaged`] where it is no body of an end record.
pub fn with_intervention(end: &[u8], done: &Intervention) -> Result<Vec<u8>, JournalError> {
    let mut end = decode(end)?;
    end.interventions.push(codec::encode_intervention(done));
    Ok(end.encode_to_vec())
}

/// The body of an end record in which the participant of a branch has been notified, and
/// whether all have been then.
///
/// # Errors
///
/// As [`with_intervention`].
pub fn with_notified(end: &[u8], branch: u32) -> Result<(Vec<u8>, bool), JournalError> {
    let mut end = decode(end)?;
    end.unnotified.retain(|number| *number != branch);
    Ok((end.encode_to_vec(), end.unnotified.is_empty()))
}

fn decode(end: &[u8]) -> Result<disk::End, JournalError> {
    disk::End::decode(end).map_err(|cause| JournalError::Damaged(format!("an end: {cause}")))
}
