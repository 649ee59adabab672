//! Locks: all of them before the first message, none released before the end.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

#[cfg(feature = "mutants")]
use super::mutants;
use super::{Context, Phase, RecordPurpose, Transaction, repeat::refuse};
use crate::{
    Action, Blocked, CallKey, HeldLock, LockKey, LockMode, LockOwner, Reason, Refused, Reply, Time,
    TrailKind, TransactionState,
    locks::{Acquired, WaitEnd},
};

/// Repeats of a call that may wait with it.
const MAX_REPEATS: usize = 256;

/// A call that waits for locks.
#[derive(Debug, Clone)]
pub(super) struct Locking {
    /// The call's number, and those of its repeats.
    tokens: Vec<u64>,
    key: Option<CallKey>,
    pub(super) until: Time,
}

impl Transaction {
    pub(super) fn owner(&self) -> LockOwner {
        LockOwner::Transaction(self.id)
    }

    /// Whether its end is what somebody may wait for.
    pub(super) fn holds_locks(&self, context: &Context) -> bool {
        context.locks.count_of(self.owner()) > 0
    }

    /// Asks for its locks; prepare comes when it has them.
    pub(super) fn become_locking(&mut self, context: &mut Context) {
        #[cfg(feature = "mutants")]
        if mutants::locks_are_not_awaited() {
            return mutants::prepare_unlocked(self, context);
        }
        debug_assert!(matches!(self.state, Phase::Opening | Phase::Linking));
        self.state = Phase::Locking;
        if self.id_may_be_known && !self.logged {
            self.append(self.begin_record(context), true, RecordPurpose::Opened, context);
        }
        let locks = core::mem::take(&mut self.locks);
        match context.locks.acquire(context.now, self.owner(), self.age, &locks) {
            Acquired::Granted(_) => self.locked(context),
            Acquired::Waiting => {
                self.deadline = Some(context.now + self.options.lock_wait);
                self.note(context, TrailKind::LocksAwaited, None);
                self.set_timer(context);
            }
            Acquired::Deadlock(blocked) => self.abort_deadlocked(&blocked, context),
            Acquired::Full => {
                let message = String::from("the limit of locks is reached (--max-locks)");
                self.abort_for("LOCK_LIMIT", message, context);
            }
        }
    }

    fn locked(&mut self, context: &mut Context) {
        self.note(context, TrailKind::Locked, None);
        self.start_prepare(context);
    }

    /// Interactive: the client wants these as well.
    pub(crate) fn lock(
        &mut self,
        locks: &[(LockKey, LockMode)],
        key: Option<CallKey>,
        token: u64,
        until: Time,
        context: &mut Context,
    ) {
        debug_assert!(self.state == Phase::Active && self.locking.is_none());
        // They are in its records.
        let limit = context.config.max_locks_per_owner;
        if context.locks.count_of(self.owner()) + locks.len() > limit {
            let reply = Reply::Refused(Refused::TooManyLocksOfOne { limit });
            return context.actions.push(Action::Reply { token, reply });
        }
        match context.locks.acquire(context.now, self.owner(), self.age, locks) {
            Acquired::Granted(locks) => self.report_locked(key, &[token], locks, context),
            Acquired::Waiting => {
                // It is not the client that is silent.
                self.deadline = None;
                let tokens = Vec::from([token]);
                self.locking = Some(Box::new(Locking { tokens, key, until }));
                self.note(context, TrailKind::LocksAwaited, None);
                self.set_timer(context);
            }
            Acquired::Deadlock(blocked) => {
                self.report_deadlock(key, &[token], &blocked, context);
                self.abort_deadlocked(&blocked, context);
            }
            Acquired::Full => {
                let limit = context.config.max_locks;
                let reply = Reply::Refused(Refused::TooManyLocks { limit });
                context.actions.push(Action::Reply { token, reply });
            }
        }
    }

    /// A repeat of the call that waits for locks waits with it. False where none with
    /// this key does.
    pub(super) fn join_locking(
        &mut self,
        key: &CallKey,
        token: u64,
        context: &mut Context,
    ) -> bool {
        let Some(call) = &mut self.locking else {
            return false;
        };
        match &call.key {
            Some(waiting) if waiting == key && call.tokens.len() < MAX_REPEATS => {
                call.tokens.push(token);
            }
            Some((waiting, fingerprint)) if *waiting == key.0 && *fingerprint != key.1 => {
                let reply = Reply::Refused(Refused::KeyTaken(key.0.clone()));
                context.actions.push(Action::Reply { token, reply });
            }
            _ => return false,
        }
        true
    }

    /// Whether a call waits for locks.
    pub(crate) fn is_locking(&self) -> bool {
        self.locking.is_some()
    }

    /// Its wait for locks has ended.
    pub(crate) fn lock_wait_ended(&mut self, end: WaitEnd, context: &mut Context) {
        let call = self.locking.take();
        match (self.state, end, call) {
            (Phase::Locking, WaitEnd::Granted(_), _) => self.locked(context),
            (Phase::Locking, WaitEnd::Deadlock(blocked), _) => {
                self.abort_deadlocked(&blocked, context);
            }
            (Phase::Active, WaitEnd::Granted(locks), Some(call)) => {
                self.report_locked(call.key, &call.tokens, locks, context);
            }
            (Phase::Active, WaitEnd::Deadlock(blocked), Some(call)) => {
                self.report_deadlock(call.key, &call.tokens, &blocked, context);
                self.abort_deadlocked(&blocked, context);
            }
            _ => {}
        }
    }

    /// The time of a call that waits for locks is over.
    pub(super) fn stop_waiting_for_locks(&mut self, context: &mut Context) {
        if let Some(call) = self.locking.take_if(|call| call.until <= context.now) {
            let message = context.locks.time_out(context.now, self.owner());
            refuse(&call.tokens, &Refused::LockTimeout(message), context);
            self.touch(context);
        }
    }

    /// Nobody waits for the answer to this call any more.
    pub(crate) fn give_up_call(&mut self, token: u64, context: &mut Context) {
        let is_last = |call: &mut Box<Locking>| {
            call.tokens.retain(|waiting| *waiting != token);
            call.tokens.is_empty()
        };
        if self.locking.take_if(is_last).is_some() {
            context.locks.cancel(context.now, self.owner());
            self.touch(context);
        }
    }

    /// It was not granted its locks in time.
    pub(super) fn give_up_locking(&mut self, context: &mut Context) {
        let message = context.locks.time_out(context.now, self.owner());
        self.abort_for("LOCK_TIMEOUT", message, context);
    }

    /// On the way to an abort: no wait goes on.
    pub(super) fn stop_locking(&mut self, context: &mut Context) {
        context.locks.cancel(context.now, self.owner());
        if let Some(call) = self.locking.take() {
            let (state, name) = (TransactionState::Aborting, "acquire");
            refuse(&call.tokens, &Refused::WrongState { state, call: name }, context);
        }
    }

    fn report_locked(
        &mut self,
        key: Option<CallKey>,
        tokens: &[u64],
        locks: Vec<HeldLock>,
        context: &mut Context,
    ) {
        self.note(context, TrailKind::Locked, None);
        self.touch(context);
        self.remember_locked(key, &locks);
        let reply = Reply::Locked { owner: self.owner(), locks, lease: None };
        let answer = |token: &u64| Action::Reply { token: *token, reply: reply.clone() };
        context.actions.extend(tokens.iter().map(answer));
    }

    fn report_deadlock(
        &mut self,
        key: Option<CallKey>,
        tokens: &[u64],
        blocked: &Blocked,
        context: &mut Context,
    ) {
        let refused = Refused::Deadlock { blocked: blocked.clone(), first: self.age };
        refuse(tokens, &refused, context);
        self.remember_refused(key, &refused);
    }

    fn abort_deadlocked(&mut self, blocked: &Blocked, context: &mut Context) {
        self.abort_for("DEADLOCK", blocked.deadlock(self.age), context);
    }

    fn abort_for(&mut self, code: &str, message: String, context: &mut Context) {
        let reason = Reason { code: code.into(), message, participant: None };
        self.abort(Arc::new(reason), context);
    }
}
