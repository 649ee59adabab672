//! Calls with keys as the journal keeps them.

use dtc_core::{CallKey, EnlistCall};
use dtc_proto::journal;
use dtc_protocol::TransactionId;

use super::{Damaged, Stored, decode_key, wire_key};

pub(super) fn encode(call: &EnlistCall) -> journal::EnlistCall {
    let (request_key, fingerprint) = wire_key(Some(&call.key));
    journal::EnlistCall { request_key, fingerprint, branch: call.branch }
}

pub(super) fn decode_all(
    id: TransactionId,
    calls: &[journal::EnlistCall],
) -> Result<Vec<EnlistCall>, Damaged> {
    let decode = |call: &journal::EnlistCall| {
        let key = decode_key(id, &call.request_key, &call.fingerprint)?;
        let key = key.ok_or_else(|| Damaged { id, what: "a call without its key".into() })?;
        Ok(EnlistCall { key, branch: call.branch })
    };
    calls.iter().map(decode).collect()
}

/// The branch that a call with this key enlisted, and whether that call had the same
/// body.
pub(crate) fn enlisted(stored: &Stored, (key, fingerprint): &CallKey) -> Option<(u32, bool)> {
    let calls = match (&stored.decision, &stored.begin) {
        (Some(decision), _) => &decision.calls,
        (None, Some(begin)) => &begin.calls,
        (None, None) => return None,
    };
    let call = calls.iter().find(|call| *call.request_key == **key)?;
    Some((call.branch, call.fingerprint[..] == fingerprint[..]))
}
