//! Locks, as they are shown and as waits for them end.

use alloc::vec::Vec;

use dtc_protocol::SessionId;

use super::{Context, Coordinator};
use crate::{Action, LockFigures, LockOwner, LockView, RequestKey, Time};

impl Coordinator {
    /// Locks after `after`, by key: with this prefix, and held or waited for by this
    /// owner.
    pub fn list_locks(
        &self,
        prefix: &str,
        owner: Option<LockOwner>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<LockView> {
        self.locks.list(prefix, owner, after, limit)
    }

    /// The session that a client's key began: it holds locks, waits for them, or has
    /// ended not long ago.
    pub fn session_of(&self, key: &RequestKey) -> Option<SessionId> {
        self.sessions.user_of(key)
    }

    /// How much there is of locks.
    pub fn lock_figures(&self) -> LockFigures {
        self.locks.figures()
    }

    /// Goes on with those whose wait has ended; what they do next may end that of others.
    pub(super) fn end_lock_waits(&mut self, now: Time, actions: &mut Vec<Action>) {
        loop {
            let ended = self.locks.take_ended();
            if ended.is_empty() {
                return;
            }
            for (owner, end) in ended {
                let mut context = context!(self, now, actions);
                match owner {
                    LockOwner::Session(id) => self.sessions.wait_ended(id, end, &mut context),
                    LockOwner::Transaction(id) => {
                        if let Some(transaction) = self.transactions.get_mut(&id) {
                            transaction.lock_wait_ended(end, &mut context);
                        }
                    }
                }
            }
        }
    }
}
