//! Calls of an interactive transaction that carry a key: each is answered once, and
//! its repeats are answered as it was.

use alloc::vec::Vec;

use super::{Context, Transaction};
use crate::{Action, CallKey, Client, EnlistCall, HeldLock, Refused, Reply};

/// A call with a key that changed something.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    key: CallKey,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    Enlisted(u32),
    Locked(Vec<HeldLock>),
    /// To a call that aborted the transaction.
    Refused(Refused),
}

impl Transaction {
    /// Answers a call whose key was used before. False where it is new, or has none.
    pub(crate) fn answer_repeat(
        &mut self,
        call: &Client,
        token: u64,
        context: &mut Context,
    ) -> bool {
        let (Client::Enlist { key: Some(key), .. } | Client::Lock { key: Some(key), .. }) = call
        else {
            return false;
        };
        let known = self.answered.iter().find(|it| it.key.0 == key.0);
        let reply = match known {
            Some(it) if it.key != *key => Reply::Refused(Refused::KeyTaken(key.0.clone())),
            Some(it) => match &it.answer {
                Answer::Enlisted(branch) => Reply::Enlisted(*branch),
                Answer::Refused(refused) => Reply::Refused(refused.clone()),
                Answer::Locked(locks) => {
                    Reply::Locked { owner: self.owner(), locks: locks.clone(), lease: None }
                }
            },
            None => return self.join_locking(key, token, context),
        };
        self.touch(context);
        context.actions.push(Action::Reply { token, reply });
        true
    }

    /// Whether a call with a key finds no room to be remembered.
    pub(crate) fn no_room_for_answer(&self, call: &Client, limit: usize) -> bool {
        let keyed =
            matches!(call, Client::Enlist { key: Some(_), .. } | Client::Lock { key: Some(_), .. });
        keyed && self.answered.len() >= limit
    }

    pub(super) fn remember_enlisted(&mut self, key: Option<CallKey>, branch: u32) {
        let answer = Answer::Enlisted(branch);
        self.answered.extend(key.map(|key| Answered { key, answer }));
    }

    pub(super) fn remember_locked(&mut self, key: Option<CallKey>, locks: &[HeldLock]) {
        if let Some(key) = key {
            self.answered.push(Answered { key, answer: Answer::Locked(locks.to_vec()) });
        }
    }

    pub(super) fn remember_refused(&mut self, key: Option<CallKey>, refused: &Refused) {
        let answer = Answer::Refused(refused.clone());
        self.answered.extend(key.map(|key| Answered { key, answer }));
    }

    /// What is recorded of them: the locks are in the record by themselves.
    pub(super) fn enlist_calls(&self) -> Vec<EnlistCall> {
        let calls = self.answered.iter().filter_map(|it| match it.answer {
            Answer::Enlisted(branch) => Some(EnlistCall { key: it.key.clone(), branch }),
            Answer::Locked(_) | Answer::Refused(_) => None,
        });
        calls.collect()
    }

    /// Those of a record.
    pub(super) fn restore_calls(&mut self, calls: Vec<EnlistCall>) {
        for EnlistCall { key, branch } in calls {
            self.remember_enlisted(Some(key), branch);
        }
    }
}

/// A call and its repeats.
pub(crate) fn refuse(tokens: &[u64], refused: &Refused, context: &mut Context) {
    let reply =
        |token: &u64| Action::Reply { token: *token, reply: Reply::Refused(refused.clone()) };
    context.actions.extend(tokens.iter().map(reply));
}
