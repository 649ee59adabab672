//! What makes two requests the same.

use std::time::Duration;

use dtc_core::{CommitPolicy, Fingerprint, LockMode};
use dtc_protocol::TransactionId;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{NewBranch, NewLock, NewSession, NewTransaction, Options};

/// A hash of a transaction's branches, locks and options, as they were sent, whatever they
/// lead to. No name is resolved and no configured default filled in: those may be others
/// when the request is repeated. (Protobuf may encode one payload in several ways; what is
/// hashed is our own encoding of it, with maps in order.)
pub(super) fn of_transaction(new: &NewTransaction) -> Fingerprint {
    let mut hash = Hash::of("execute");
    for branch in &new.branches {
        hash.branch(branch);
    }
    hash.options(&new.options);
    hash.id(new.retry_of);
    hash.locks(&new.locks);
    hash.finish()
}

/// The same of one that is begun only.
pub(super) fn of_begin(new: &NewTransaction) -> Fingerprint {
    let mut hash = Hash::of("begin");
    hash.options(&new.options);
    hash.id(new.retry_of);
    hash.finish()
}

/// The same of a branch that is enlisted.
pub(super) fn of_enlist(branch: &NewBranch) -> Fingerprint {
    let mut hash = Hash::of("enlist");
    hash.branch(branch);
    hash.finish()
}

/// The same of a transaction's locks.
pub(super) fn of_lock(id: TransactionId, locks: &[NewLock]) -> Fingerprint {
    let mut hash = Hash::of("lock");
    hash.id(Some(id));
    hash.locks(locks);
    hash.finish()
}

/// The same of a session's locks.
pub(super) fn of_session(new: &NewSession) -> Fingerprint {
    let mut hash = Hash::of("acquire");
    hash.duration(new.lease);
    hash.id(new.retry_of);
    hash.locks(&new.locks);
    hash.finish()
}

/// Of parts, none of which runs into the next.
struct Hash(Sha256);

impl Hash {
    fn of(call: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.add(call.as_bytes());
        hash
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn branch(&mut self, branch: &NewBranch) {
        self.add(branch.participant.as_bytes());
        // None is as good as an empty one.
        self.add(&branch.payload.as_ref().map(Message::encode_to_vec).unwrap_or_default());
    }

    fn options(&mut self, options: &Options) {
        if *options == Options::default() {
            return self.add(b"");
        }
        let Options {
            prepare_timeout,
            prepare_attempts,
            prepare_attempt_timeout,
            commit_attempt_timeout,
            idle_timeout,
            lock_wait,
            link_grace,
            commit_policy,
        } = options;
        for duration in [
            prepare_timeout,
            prepare_attempt_timeout,
            commit_attempt_timeout,
            idle_timeout,
            lock_wait,
            link_grace,
        ] {
            self.duration(*duration);
        }
        self.add(&prepare_attempts.to_le_bytes());
        match commit_policy {
            None => self.add(b""),
            Some(CommitPolicy::Retry) => self.add(b"retry"),
            Some(CommitPolicy::Compensate { after }) => self.add(&after.to_le_bytes()),
        }
    }

    fn duration(&mut self, duration: Option<Duration>) {
        match duration {
            None => self.add(b""),
            Some(duration) => self.add(&duration.as_nanos().to_le_bytes()),
        }
    }

    fn id(&mut self, id: Option<TransactionId>) {
        self.add(id.as_ref().map_or(&[], |id| &id.as_bytes()[..]));
    }

    fn locks(&mut self, locks: &[NewLock]) {
        for lock in locks {
            self.add(lock.key.as_bytes());
            self.add(match lock.mode {
                LockMode::Shared => b"shared",
                LockMode::Exclusive => b"exclusive",
            });
        }
    }

    fn finish(self) -> Fingerprint {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_proto::dtc::{Payload, payload::Kind};

    fn branch(participant: &str, payload: &str) -> NewBranch {
        let kind = Some(Kind::Typed(payload.to_owned().into()));
        NewBranch { participant: participant.into(), payload: Some(Payload { kind }) }
    }

    #[test]
    fn the_fingerprint_is_of_the_body_alone() {
        let request = |branches: &[NewBranch]| NewTransaction {
            branches: branches.into(),
            ..Default::default()
        };
        let first = request(&[branch("inventory", "a"), branch("payment", "b")]);
        let keyed = NewTransaction {
            request_key: Some("key".into()),
            trace: Some(b"trace"[..].into()),
            ..first.clone()
        };
        assert_eq!(of_transaction(&first), of_transaction(&keyed));
        let options = |options| NewTransaction { options, ..first.clone() };
        let second = Some(Duration::from_secs(1));
        let others = [
            request(&[branch("payment", "b"), branch("inventory", "a")]),
            request(&[branch("inventory", "a"), branch("payment", "c")]),
            request(&[branch("inventory", "a"), branch("order", "b")]),
            request(&[branch("inventory", "a")]),
            options(Options { prepare_attempts: 3, ..Default::default() }),
            options(Options { idle_timeout: second, ..Default::default() }),
            options(Options { lock_wait: second, ..Default::default() }),
            options(Options { commit_policy: Some(CommitPolicy::Retry), ..Default::default() }),
            NewTransaction { retry_of: Some(TransactionId::from_bytes([1; 16])), ..first.clone() },
            NewTransaction {
                locks: vec![NewLock { key: "a".into(), mode: LockMode::Shared }],
                ..first.clone()
            },
        ];
        let mut all: Vec<_> = others.iter().chain([&first]).map(of_transaction).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }
}
