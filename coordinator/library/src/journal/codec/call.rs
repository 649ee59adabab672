//! Calls with keys as the journal keeps them.

use dtc_core::{CallKey, EnlistCall};
use dtc_protocol::TransactionId;

use super::{Damaged, Newest, Stored, decode_key, disk, newest, wire_key};

pub(super) fn encode(call: &EnlistCall) -> disk::EnlistCall {
    let (request_key, fingerprint) = wire_key(Some(&call.key));
    disk::EnlistCall { request_key, fingerprint, branch: call.branch }
}

pub(super) fn decode_all(
    id: TransactionId,
    calls: &[disk::EnlistCall],
) -> Result<Vec<EnlistCall>, Damaged> {
    let decode = |call: &disk::EnlistCall| {
        let key = decode_key(id, &call.request_key, &call.fingerprint)?;
        let key = key.ok_or_else(|| Damaged { id, what: "a call without its key".into() })?;
        Ok(EnlistCall { key, branch: call.branch })
    };
    calls.iter().map(decode).collect()
}

/// The branch that a call with this key enlisted, and whether that call had the same
/// body.
pub(crate) fn enlisted(
    stored: &Stored,
    (key, fingerprint): &CallKey,
) -> Result<Option<(u32, bool)>, Damaged> {
    let calls = match newest(stored)? {
        Newest::Decision(decision) => decision.calls,
        Newest::Begin(begin) => begin.calls,
    };
    let call = calls.iter().find(|call| *call.request_key == **key);
    Ok(call.map(|call| (call.branch, call.fingerprint[..] == fingerprint[..])))
}
