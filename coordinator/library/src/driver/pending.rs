//! Calls that wait for the machine's answer.

use std::collections::{BTreeMap, HashMap};

use dtc_core::{BranchOutcome, Found, LockOwner, Reply};
use tokio::sync::oneshot;

use crate::journal::{Recalled, codec};

pub(super) type Answer<T> = oneshot::Sender<T>;

/// All that wait, by kind.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) calls: Calls<Reply>,
    pub(super) inquiries: Calls<BranchOutcome>,
    /// Of the calls, those that wait for locks, and for whom.
    pub(super) locking: BTreeMap<u64, LockOwner>,
}

impl Pending {
    /// Calls for locks that were given up by their clients, and whose they were.
    pub(super) fn take_gone(&mut self) -> Vec<(u64, LockOwner)> {
        let calls = &mut self.calls;
        let mut gone = Vec::new();
        self.locking.retain(|token, owner| {
            let is_gone = calls.forget_if_gone(*token);
            gone.extend(is_gone.then_some((*token, *owner)));
            !is_gone
        });
        gone
    }
}

impl Pending {
    /// All calls that wait for locks, which are answered no more.
    pub(super) fn give_up_locking(&mut self) -> Vec<(u64, LockOwner)> {
        let all: Vec<_> = std::mem::take(&mut self.locking).into_iter().collect();
        all.iter().for_each(|(token, _)| self.calls.forget(*token));
        all
    }
}

/// Calls by their numbers.
#[derive(Debug)]
pub(super) struct Calls<T> {
    next: u64,
    waiting: HashMap<u64, Answer<T>>,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self { next: 0, waiting: HashMap::new() }
    }
}

impl<T> Calls<T> {
    pub(super) fn add(&mut self, answer: Answer<T>) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, answer);
        self.next
    }

    /// Answers a call; false when its caller is gone.
    pub(super) fn answer(&mut self, token: u64, value: T) -> bool {
        self.waiting.remove(&token).is_some_and(|answer| answer.send(value).is_ok())
    }

    fn forget(&mut self, token: u64) {
        self.waiting.remove(&token);
    }

    fn forget_if_gone(&mut self, token: u64) -> bool {
        let gone = self.waiting.get(&token).is_some_and(|answer| answer.is_closed());
        if gone {
            self.waiting.remove(&token);
        }
        gone
    }
}

/// What the journal knows of a branch that a participant asks about, and whether that
/// participant was never notified of the outcome until it asked now.
pub(super) fn found(recalled: &Recalled, number: u32) -> Result<(Found, bool), codec::Damaged> {
    match recalled {
        Recalled::Stored(stored) => {
            Ok((codec::found(stored, number)?, codec::owes_notification(stored, number)?))
        }
        Recalled::Never => Ok((Found::Nothing, false)),
        Recalled::Forgotten => Ok((Found::Forgotten, false)),
    }
}
