//! Locks that clients hold by themselves, each for as long as it renews its lease.
//!
//! Invariants:
//! - A grant is reported to its client when its record is durable, so that it is held
//!   again after a restart, for a whole lease from then.
//! - A key begins one session. Its repeats are answered with that session while it
//!   holds locks, and refused after that: it holds none any more.
//! - Renewals are in memory only. A release and the end of a lease are written, and
//!   waited for by nobody: what is granted next is written later.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use dtc_protocol::{SessionId, TransactionId};

use crate::{
    Action, CallKey, HeldLock, LockKey, LockMode, LockOwner, Refused, Reply, RequestKey, Sequence,
    SessionCall, SessionRecord, Time,
    locks::{Acquired, WaitEnd},
    timers::Timers,
    transaction::{Context, refuse},
};

/// Sessions that have ended and are known by what ended them.
const MAX_ENDED: usize = 65_536;
/// Repeats of a call that may wait with it.
const MAX_REPEATS: usize = 256;

#[derive(Debug, Clone)]
struct Session {
    key: Option<CallKey>,
    age: TransactionId,
    lease: Duration,
    state: State,
    /// The earliest timer that is set.
    timer: Option<Time>,
}

#[derive(Debug, Clone)]
enum State {
    Waiting {
        /// The call's number, and those of its repeats.
        tokens: Vec<u64>,
        until: Time,
    },
    /// Granted; its record is being written. With the answer.
    Writing {
        tokens: Vec<u64>,
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

/// A session that has ended.
#[derive(Debug, Clone)]
struct Ended {
    key: Option<CallKey>,
    /// How many locks its release let go; none where its lease has run out.
    released: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    all: BTreeMap<SessionId, Session>,
    /// Of those that are there and those that have ended.
    keys: BTreeMap<RequestKey, SessionId>,
    /// The newest of them.
    ended: BTreeMap<SessionId, Ended>,
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
        let SessionRecord::Held { id, key, age, lease, locks } = record else {
            panic!("{record:?} is of no session that holds anything");
        };
        context.locks.restore(context.now, LockOwner::Session(id), age, &locks);
        let state = State::Held { until: context.now + lease };
        self.insert(id, Session { key, age, lease, state, timer: None });
        self.set_timer(id);
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.keys.extend(session.key.iter().map(|(key, _)| (key.clone(), id)));
        self.all.insert(id, session);
    }

    /// The session that a key began.
    pub(crate) fn user_of(&self, key: &RequestKey) -> Option<SessionId> {
        self.keys.get(key).copied()
    }

    pub(crate) fn call(
        &mut self,
        id: SessionId,
        token: u64,
        call: SessionCall,
        context: &mut Context,
    ) {
        match call {
            SessionCall::Acquire { age, locks, key, lease, until } => {
                if let Some(key) = &key
                    && let Some(user) = self.user_of(&key.0)
                {
                    return self.repeat(user, key, token, context);
                }
                let Some(locks) = locks else {
                    return context.actions.push(Action::Reply { token, reply: Reply::NoRepeat });
                };
                let state = State::Waiting { tokens: Vec::from([token]), until };
                self.insert(id, Session { key, age, lease, state, timer: None });
                self.acquire(id, &locks, context);
            }
            SessionCall::GiveUp => self.give_up(id, token, context),
            SessionCall::Release(_) if self.released(id).is_some() => {
                let reply = Reply::Released(self.released(id).unwrap_or_default());
                context.actions.push(Action::Reply { token, reply });
            }
            SessionCall::Renew | SessionCall::Release(_) if !self.is_held(id) => {
                refuse(&[token], &Refused::UnknownSession(id), context);
            }
            SessionCall::Renew => self.renew(id, token, context),
            SessionCall::Release(keys) => {
                let reply = Reply::Released(self.release(id, &keys, context));
                context.actions.push(Action::Reply { token, reply });
            }
        }
    }

    /// A call whose key began a session before.
    fn repeat(&mut self, id: SessionId, key: &CallKey, token: u64, context: &mut Context) {
        let ended = self.ended.get(&id).and_then(|it| it.key.as_ref());
        let used = self.all.get(&id).and_then(|it| it.key.as_ref());
        if used.or(ended) != Some(key) {
            return refuse(&[token], &Refused::KeyTaken(key.0.clone()), context);
        }
        match self.all.get_mut(&id).map(|session| &mut session.state) {
            None => refuse(&[token], &Refused::UnknownSession(id), context),
            Some(State::Held { .. }) => self.renew(id, token, context),
            Some(State::Waiting { tokens, .. } | State::Writing { tokens, .. }) => {
                match tokens.len() < MAX_REPEATS {
                    true => tokens.push(token),
                    false => refuse(&[token], &Refused::WaitsForLocks, context),
                }
            }
        }
    }

    /// The call is gone. What was granted to one that may be repeated is its session's
    /// until the lease ends.
    fn give_up(&mut self, id: SessionId, token: u64, context: &mut Context) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        let waited_for = match &mut session.state {
            State::Waiting { tokens, .. } => {
                tokens.retain(|waiting| *waiting != token);
                !tokens.is_empty()
            }
            State::Writing { .. } | State::Held { .. } => true,
        };
        if session.key.is_none() || !waited_for {
            self.end(id, context);
        }
    }

    /// How many locks the release that ended a session let go.
    fn released(&self, id: SessionId) -> Option<usize> {
        self.ended.get(&id).and_then(|it| it.released)
    }

    fn is_held(&self, id: SessionId) -> bool {
        self.all.get(&id).is_some_and(|it| matches!(it.state, State::Held { .. }))
    }

    fn acquire(&mut self, id: SessionId, locks: &[(LockKey, LockMode)], context: &mut Context) {
        let Some(age) = self.all.get(&id).map(|it| it.age) else {
            return;
        };
        match context.locks.acquire(context.now, LockOwner::Session(id), age, locks) {
            Acquired::Granted(locks) => self.wait_ended(id, WaitEnd::Granted(locks), context),
            Acquired::Deadlock(blocked) => {
                self.wait_ended(id, WaitEnd::Deadlock(blocked), context);
            }
            Acquired::Waiting => self.set_timer(id),
            Acquired::Full => {
                let limit = context.config.max_locks;
                self.refuse_waiting(id, &Refused::TooManyLocks { limit }, context);
            }
        }
    }

    /// The wait for locks has ended.
    pub(crate) fn wait_ended(&mut self, id: SessionId, end: WaitEnd, context: &mut Context) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        let State::Waiting { tokens, .. } = &mut session.state else {
            return;
        };
        match end {
            WaitEnd::Granted(locks) => {
                let (key, age, lease) = (session.key.clone(), session.age, session.lease);
                let tokens = core::mem::take(tokens);
                session.state = State::Writing { tokens, locks: locks.clone() };
                let record = SessionRecord::Held { id, key, age, lease, locks };
                let sequence = context.append_session(record, true);
                self.pending.push_back((sequence, id));
            }
            WaitEnd::Deadlock(blocked) => {
                let first = session.age;
                self.refuse_waiting(id, &Refused::Deadlock { blocked, first }, context);
            }
        }
    }

    /// Nothing was granted: the key is free.
    fn refuse_waiting(&mut self, id: SessionId, refused: &Refused, context: &mut Context) {
        let Some(Session { key, state: State::Waiting { tokens, .. }, .. }) = self.all.remove(&id)
        else {
            return;
        };
        if let Some((key, _)) = key {
            self.keys.remove(&key);
        }
        refuse(&tokens, refused, context);
    }

    /// Reports the grants whose records are durable.
    pub(crate) fn durable(&mut self, up_to: Sequence, context: &mut Context) {
        while let Some(&(sequence, id)) = self.pending.front()
            && sequence <= up_to
        {
            self.pending.pop_front();
            let Some(session) = self.all.get_mut(&id) else {
                continue;
            };
            let State::Writing { tokens, locks } = &mut session.state else {
                continue;
            };
            let (tokens, locks) = (core::mem::take(tokens), core::mem::take(locks));
            let lease = session.lease;
            session.state = State::Held { until: context.now + lease };
            let owner = LockOwner::Session(id);
            let reply = Reply::Locked { owner, locks, lease: Some(lease) };
            let answer = |token| Action::Reply { token, reply: reply.clone() };
            context.actions.extend(tokens.into_iter().map(answer));
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
            self.end_with(id, Some(released), context);
        } else if let (Some(session), true) = (self.all.get(&id), released > 0) {
            let (key, age, lease) = (session.key.clone(), session.age, session.lease);
            let record = SessionRecord::Held { id, key, age, lease, locks: left };
            context.append_session(record, false);
            for key in named {
                context.locks.release(context.now, owner, key);
            }
        }
        released
    }

    fn end(&mut self, id: SessionId, context: &mut Context) {
        self.end_with(id, None, context);
    }

    /// Whatever state it is in; `released` by its client, if it was.
    fn end_with(&mut self, id: SessionId, released: Option<usize>, context: &mut Context) {
        let Some(session) = self.all.remove(&id) else {
            return;
        };
        if matches!(session.state, State::Waiting { .. }) {
            if let Some((key, _)) = session.key {
                self.keys.remove(&key);
            }
        } else {
            context.append_session(SessionRecord::Released(id), false);
            self.remember(id, Ended { key: session.key, released });
        }
        context.locks.release_all(context.now, LockOwner::Session(id));
        let all = &self.all;
        let is_live = |at, id: &_| all.get(id).is_some_and(|it| it.timer == Some(at));
        self.timers.prune(all.len(), is_live);
    }

    /// So that repeats of what it was asked are answered as the first were.
    fn remember(&mut self, id: SessionId, ended: Ended) {
        if ended.key.is_none() && ended.released.is_none() {
            return;
        }
        self.ended.insert(id, ended);
        if self.ended.len() > MAX_ENDED
            && let Some((_, Ended { key: Some((key, _)), .. })) = self.ended.pop_first()
        {
            self.keys.remove(&key);
        }
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
        match &session.state {
            // Waiting comes first: the timer that is due is that of the wait.
            State::Waiting { .. } => {
                let message = context.locks.time_out(context.now, LockOwner::Session(id));
                self.refuse_waiting(id, &Refused::LockTimeout(message), context);
            }
            State::Held { until } if *until <= context.now => self.end(id, context),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_have_ended_the_newest_are_known() {
        let id = |number: usize| SessionId::from_bytes((number as u128).to_be_bytes());
        let mut sessions = Sessions::default();
        for number in 0..MAX_ENDED {
            sessions.remember(id(number), Ended { key: None, released: Some(1) });
        }
        assert_eq!(sessions.released(id(0)), Some(1));
        sessions.remember(id(MAX_ENDED), Ended { key: None, released: Some(2) });
        assert_eq!(sessions.released(id(0)), None);
        assert_eq!(sessions.released(id(1)), Some(1));
        assert_eq!(sessions.released(id(MAX_ENDED)), Some(2));
    }
}
