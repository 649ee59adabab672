//! Locks as the journal keeps them.

use std::time::Duration;

use bytes::Bytes;
use dtc_core::{HeldLock, MAX_LOCK_KEY, SessionRecord};
use dtc_protocol::{SessionId, TransactionId};
use prost::Message;

use super::{Entry, disk, read_key, wire_key};

/// Why a session of the journal cannot be taken up.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal is damaged: session {id}: {what}; restore it from a backup, or remove the session knowing that its locks are released"
)]
pub struct DamagedSession {
    id: SessionId,
    what: String,
}

/// A session's record as it is written.
pub(crate) fn encode_session(record: &SessionRecord) -> Entry {
    match record {
        SessionRecord::Held { id, key, age, lease, locks } => {
            let (request_key, fingerprint) = wire_key(key.as_ref());
            let own = age.as_bytes() == id.as_bytes();
            let session = disk::Session {
                retry_of: if own { Bytes::new() } else { Bytes::copy_from_slice(age.as_bytes()) },
                lease_us: u64::try_from(lease.as_micros()).unwrap_or(u64::MAX),
                locks: encode_locks(locks),
                request_key,
                fingerprint,
            };
            Entry::Session { id: *id, body: session.encode_to_vec() }
        }
        SessionRecord::Released(id) => Entry::SessionEnd { id: *id },
    }
}

/// A session for the machine to take up.
pub(crate) fn decode_session(id: SessionId, body: &[u8]) -> Result<SessionRecord, DamagedSession> {
    let damaged = |what: String| DamagedSession { id, what };
    let session = disk::Session::decode(body).map_err(|cause| damaged(cause.to_string()))?;
    let age = match &session.retry_of[..] {
        [] => Some(TransactionId::from_bytes(*id.as_bytes())),
        bytes => TransactionId::from_slice(bytes),
    };
    let length = session.retry_of.len();
    let age = age.ok_or_else(|| damaged(format!("a retry of an id of {length} bytes, not 16")))?;
    let locks = decode_locks(&session.locks).map_err(damaged)?;
    let lease = Duration::from_micros(session.lease_us);
    let key = read_key(&session.request_key, &session.fingerprint);
    let key = key.map_err(damaged)?;
    Ok(SessionRecord::Held { id, key, age, lease, locks })
}

pub(super) fn encode_locks(locks: &[HeldLock]) -> Vec<disk::HeldLock> {
    let lock = |lock: &HeldLock| disk::HeldLock {
        key: lock.key.to_string(),
        mode: disk::LockMode::from(lock.mode).into(),
        token: lock.token,
    };
    locks.iter().map(lock).collect()
}

pub(super) fn decode_locks(locks: &[disk::HeldLock]) -> Result<Vec<HeldLock>, String> {
    let lock = |lock: &disk::HeldLock| {
        let length = lock.key.chars().count();
        if !(1..=MAX_LOCK_KEY).contains(&length) {
            return Err(format!("a lock's key of {length} characters, not 1 to {MAX_LOCK_KEY}"));
        }
        let mode = disk::LockMode::read(lock.mode);
        let mode = mode.ok_or_else(|| format!("lock mode {}", lock.mode))?;
        Ok(HeldLock { key: lock.key.as_str().into(), mode, token: lock.token })
    };
    locks.iter().map(lock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_core::LockMode;

    #[test]
    fn a_session_reads_as_it_was_written_and_a_damaged_one_is_named() {
        let id = SessionId::from_bytes([7; 16]);
        let lock = HeldLock { key: "a".into(), mode: LockMode::Shared, token: 1 << 40 };
        for age in [[7; 16], [6; 16]].map(TransactionId::from_bytes) {
            let (lease, locks) = (Duration::from_secs(30), vec![lock.clone()]);
            let key = Some(("k".into(), [5; 32]));
            let record = SessionRecord::Held { id, key, age, lease, locks };
            let Entry::Session { body, .. } = encode_session(&record) else { panic!("no session") };
            let mut session = disk::Session::decode(&body[..]).unwrap();
            assert_eq!(decode_session(id, &body).unwrap(), record);
            session.locks[0].mode = 0;
            let error = decode_session(id, &session.encode_to_vec()).unwrap_err().to_string();
            assert!(error.contains(&id.to_string()) && error.contains("lock mode 0"), "{error}");
        }
    }
}
