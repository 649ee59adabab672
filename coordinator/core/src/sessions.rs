//! Locks that clients hold by themselves, each for as long as it renews its lease.
//!
//! Invariants:
//! - A client is told of a grant when its record is durable, so that it is held
//!   again after a restart, for a whole lease from then.
//! - Renewals are in memory only. A release and the end of a lease are written, and
//!   waited for by nobody: what is granted next is written later.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use common::{SessionId, TransactionId};

use crate::{
    Action, HeldLock, LockKey, LockMode, LockOwner, Refused, Reply, Sequence, SessionCall,
    SessionRecord, Time,
    locks::{Asked, Settled},
    timers::Timers,
    transaction::Context,
};

#[derive(Debug, Clone)]
struct Session {
    age: TransactionId,
    lease: Duration,
    state: State,
    /// The earliest timer that is set.
    timer: Option<Time>,
}

#[derive(Debug, Clone)]
enum State {
    Waiting {
        token: u64,
        until: Time,
    },
    /// Granted; its record is being written. With the answer.
    Writing {
        token: u64,
        locks: Vec<HeldLock>,
    },
    Held {
        until: Time,
    },
}

impl State {
    fn due(&self) -> Option<Time> {
        match self {
            Self::Waiting { until, .. } | Self::Held { until } => Some(*until),
            Self::Writing { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    all: BTreeMap<SessionId, Session>,
    timers: Timers<SessionId>,
    /// Records of grants that are not reported durable.
    pending: VecDeque<(Sequence, SessionId)>,
}

impl Sessions {
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Takes up a session of a run before.
    ///
    /// # Panics
    ///
    /// On a release: what was released is not held.
    pub(crate) fn restore(&mut self, record: SessionRecord, context: &mut Context) {
        let SessionRecord::Held { id, age, lease, locks } = record else {
            panic!("{record:?} is of no session that holds anything");
        };
        context.locks.restore(context.now, LockOwner::Session(id), age, &locks);
        let state = State::Held { until: context.now + lease };
        self.all.insert(id, Session { age, lease, state, timer: None });
        self.set_timer(id);
    }

    pub(crate) fn call(
        &mut self,
        id: SessionId,
        token: u64,
        call: SessionCall,
        context: &mut Context,
    ) {
        match call {
            SessionCall::Acquire { age, locks, lease, until } => {
                let state = State::Waiting { token, until };
                self.all.insert(id, Session { age, lease, state, timer: None });
                self.acquire(id, &locks, context);
            }
            SessionCall::GiveUp => self.end(id, context),
            SessionCall::Renew | SessionCall::Release(_) if !self.is_held(id) => {
                refuse(token, Refused::UnknownSession(id), context);
            }
            SessionCall::Renew => self.renew(id, token, context),
            SessionCall::Release(keys) => {
                let reply = Reply::Released(self.release(id, &keys, context));
                context.actions.push(Action::Reply { token, reply });
            }
        }
    }

    fn is_held(&self, id: SessionId) -> bool {
        self.all.get(&id).is_some_and(|it| matches!(it.state, State::Held { .. }))
    }

    fn acquire(&mut self, id: SessionId, locks: &[(LockKey, LockMode)], context: &mut Context) {
        let Some(&Session { age, state: State::Waiting { token, .. }, .. }) = self.all.get(&id)
        else {
            return;
        };
        match context.locks.acquire(context.now, LockOwner::Session(id), age, locks) {
            Asked::Granted(locks) => self.settled(id, Settled::Granted(locks), context),
            Asked::Deadlock(blocked) => self.settled(id, Settled::Deadlock(blocked), context),
            Asked::Waiting => self.set_timer(id),
            Asked::Full => {
                self.all.remove(&id);
                let limit = context.config.max_locks;
                refuse(token, Refused::TooManyLocks { limit }, context);
            }
        }
    }

    /// The wait for locks has ended.
    pub(crate) fn settled(&mut self, id: SessionId, settled: Settled, context: &mut Context) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        let State::Waiting { token, .. } = session.state else {
            return;
        };
        match settled {
            Settled::Granted(locks) => {
                let (age, lease) = (session.age, session.lease);
                session.state = State::Writing { token, locks: locks.clone() };
                let record = SessionRecord::Held { id, age, lease, locks };
                let sequence = context.append_session(record, true);
                self.pending.push_back((sequence, id));
            }
            Settled::Deadlock(blocked) => {
                let first = session.age;
                self.all.remove(&id);
                refuse(token, Refused::Deadlock { blocked, first }, context);
            }
        }
    }

    /// Grants whose records are durable are told.
    pub(crate) fn durable(&mut self, up_to: Sequence, context: &mut Context) {
        while let Some(&(sequence, id)) = self.pending.front()
            && sequence <= up_to
        {
            self.pending.pop_front();
            let Some(session) = self.all.get_mut(&id) else {
                continue;
            };
            let State::Writing { token, locks } = &mut session.state else {
                continue;
            };
            let (token, locks) = (*token, core::mem::take(locks));
            let lease = session.lease;
            session.state = State::Held { until: context.now + lease };
            let owner = LockOwner::Session(id);
            let reply = Reply::Locked { owner, locks, lease: Some(lease) };
            context.actions.push(Action::Reply { token, reply });
            self.set_timer(id);
        }
    }

    fn renew(&mut self, id: SessionId, token: u64, context: &mut Context) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        session.state = State::Held { until: context.now + session.lease };
        let (owner, lease) = (LockOwner::Session(id), Some(session.lease));
        let reply = Reply::Locked { owner, locks: context.locks.held_by(owner), lease };
        context.actions.push(Action::Reply { token, reply });
    }

    /// Releases these keys, or all. Returns how many of them were held.
    fn release(&mut self, id: SessionId, keys: &[LockKey], context: &mut Context) -> usize {
        let owner = LockOwner::Session(id);
        let held = context.locks.held_by(owner);
        let named: BTreeSet<&LockKey> = keys.iter().collect();
        let stays = |lock: &&HeldLock| !named.is_empty() && !named.contains(&lock.key);
        let left: Vec<HeldLock> = held.iter().filter(stays).cloned().collect();
        let released = held.len() - left.len();
        if left.is_empty() {
            self.end(id, context);
        } else if let (Some(session), true) = (self.all.get(&id), released > 0) {
            let (age, lease) = (session.age, session.lease);
            let record = SessionRecord::Held { id, age, lease, locks: left };
            context.append_session(record, false);
            for key in named {
                context.locks.release(context.now, owner, key);
            }
        }
        released
    }

    /// Whatever state it is in.
    fn end(&mut self, id: SessionId, context: &mut Context) {
        let Some(session) = self.all.remove(&id) else {
            return;
        };
        if !matches!(session.state, State::Waiting { .. }) {
            context.append_session(SessionRecord::Released(id), false);
        }
        context.locks.release_all(context.now, LockOwner::Session(id));
        let all = &self.all;
        let is_live = |at, id: &_| all.get(id).is_some_and(|it| it.timer == Some(at));
        self.timers.prune(all.len(), is_live);
    }

    /// Ends the next wait or lease that is due; false where none is.
    pub(crate) fn tick(&mut self, context: &mut Context) -> bool {
        let Some((at, id)) = self.timers.pop(context.now) else {
            return false;
        };
        let Some(session) = self.all.get_mut(&id).filter(|it| it.timer == Some(at)) else {
            return true;
        };
        session.timer = None;
        match session.state {
            State::Waiting { token, until } if until <= context.now => {
                let message = context.locks.time_out(context.now, LockOwner::Session(id));
                self.all.remove(&id);
                refuse(token, Refused::LockTimeout(message), context);
            }
            State::Held { until } if until <= context.now => self.end(id, context),
            _ => self.set_timer(id),
        }
        true
    }

    /// Sets a timer where none that is early enough is set.
    fn set_timer(&mut self, id: SessionId) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        if let Some(due) = session.state.due()
            && session.timer.is_none_or(|set| due < set)
        {
            session.timer = Some(due);
            self.timers.set(due, id);
        }
    }
}

fn refuse(token: u64, refused: Refused, context: &mut Context) {
    context.actions.push(Action::Reply { token, reply: Reply::Refused(refused) });
}
