//! Calls about locks, and clients that no longer wait for them.

use std::time::Duration;

use dtc_core::{Client, Event, LockOwner, LockView, Reply, SessionCall, Time};
use dtc_protocol::SessionId;

use super::{Driver, NewLocks, NewSession, pending};

/// Which locks to list.
#[derive(Debug)]
pub(super) struct WhichLocks {
    pub(super) prefix: String,
    pub(super) owner: Option<LockOwner>,
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Driver {
    pub(super) fn acquire(
        &mut self,
        new: NewSession,
        wait: Duration,
        reply: pending::Answer<Reply>,
    ) {
        let NewSession { key, work } = new;
        let now = self.clock.now();
        let first = self.ids.next(now);
        // By its own id, so that it is known whose wait ends with the call.
        let user = key.as_ref().and_then(|(key, _)| self.machine.session_of(key));
        let id = user.unwrap_or_else(|| SessionId::from_bytes(*first.as_bytes()));
        let admitted = work.is_some();
        let NewLocks { retry_of, locks, lease } = work.unwrap_or_default();
        let token = self.pending.calls.add(reply);
        self.pending.locking.insert(token, LockOwner::Session(id));
        let age = retry_of.unwrap_or(first);
        let call = SessionCall::Acquire {
            age,
            locks: admitted.then_some(locks),
            key,
            lease,
            until: self.until(wait),
        };
        self.handle(Event::Session { id, token, call });
    }

    pub(super) fn list_locks(
        &mut self,
        which: &WhichLocks,
        reply: pending::Answer<(Time, Vec<LockView>)>,
    ) {
        let WhichLocks { prefix, owner, after, limit } = which;
        let all = self.machine.list_locks(prefix, *owner, after.as_deref(), *limit);
        let _ = reply.send((self.clock.now(), all));
    }

    /// Some calls that waited were given up by their clients.
    pub(super) fn give_up_gone(&mut self) {
        if std::mem::take(&mut self.calls_gone) {
            for (token, owner) in self.pending.take_gone() {
                self.handle(given_up(token, owner));
            }
        }
    }

    pub(super) fn reply(&mut self, token: u64, reply: Reply) {
        let owner = self.pending.locking.remove(&token);
        let granted = matches!(reply, Reply::Locked { .. });
        // Who was to have them is gone: nobody would ever release them.
        if !self.pending.calls.answer(token, reply)
            && granted
            && let Some(owner @ LockOwner::Session(_)) = owner
        {
            self.refused.push(given_up(token, owner));
        }
    }
}

pub(super) fn given_up(token: u64, owner: LockOwner) -> Event {
    match owner {
        LockOwner::Transaction(id) => Event::Client { id, token, call: Client::GiveUpLocking },
        LockOwner::Session(id) => Event::Session { id, token, call: SessionCall::GiveUp },
    }
}
