//! Locks of interactive transactions, and of clients by themselves.

use std::time::Duration;

use dtc_core::{HeldLock, LockKey, LockMode, LockOwner, LockView, Reply, SessionCall, Time};
use dtc_protocol::{SessionId, TransactionId};

use super::{
    Coordinator, Error, NewLock, fingerprint,
    limits::{self, LEASE},
    repeat::unless_repeated,
    request,
};
use crate::driver;

/// Locks that a client wants for itself, without a transaction.
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    /// All of these or none; one at least.
    pub locks: Vec<NewLock>,
    /// How long they are held unless they are renewed, 1 s to 24 h; 30 s where not set.
    pub lease: Option<Duration>,
    /// The first try of which this is a retry; it keeps that one's age.
    pub retry_of: Option<TransactionId>,
    /// 1 to 128 characters: makes the call safe to repeat.
    pub request_key: Option<String>,
}

/// A session that holds locks.
#[derive(Debug, Clone)]
pub struct Session {
    /// What it is renewed and released by.
    pub id: SessionId,
    /// What it holds.
    pub locks: Vec<HeldLock>,
    /// How long, from now, unless it is renewed.
    pub lease: Duration,
}

/// Which locks to list.
#[derive(Debug, Clone, Default)]
pub struct LockFilter {
    /// Only keys that begin so.
    pub prefix: String,
    /// Only those that this one holds or waits for.
    pub owner: Option<LockOwner>,
    /// 1 to [`MAX_PAGE`](super::MAX_PAGE); 0 for the default.
    pub page_size: u32,
    /// The last key of the page before.
    pub after: Option<String>,
}

/// A page of locks, by key.
#[derive(Debug, Clone)]
pub struct LockPage {
    /// When they were so.
    pub now: Time,
    /// Who holds them, and who waits.
    pub locks: Vec<LockView>,
    /// The last key, where there are more.
    pub next: Option<String>,
}

impl Coordinator {
    /// Takes locks for an interactive transaction, all or none, until its end.
    ///
    /// # Errors
    ///
    /// [`Error::Deadlock`], [`Error::LockTimeout`] and others: nothing was locked.
    pub async fn lock(
        &self,
        id: TransactionId,
        locks: &[NewLock],
        request_key: Option<&str>,
        wait: Option<Duration>,
    ) -> Result<Vec<HeldLock>, Error> {
        let wait = self.lock_wait(wait)?;
        let key = request::request_key(request_key)?;
        let key = key.map(|key| (key, fingerprint::of_lock(id, locks)));
        let judged = self.some_locks(locks);
        let ask = |locks| self.handle.lock(id, locks, key.clone(), wait);
        match unless_repeated(key.is_some(), judged, ask).await? {
            Reply::NotHere => {
                let state = self.shown(Some(id), Reply::NotHere).await?.state;
                Err(Error::WrongState { call: "acquire", state, instead: "begin a new one" })
            }
            Reply::Locked { locks, .. } => Ok(locks),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Begins a session with locks, all or none.
    ///
    /// # Errors
    ///
    /// [`Error::Deadlock`], [`Error::LockTimeout`] and others: nothing was locked.
    pub async fn acquire(
        &self,
        new: &NewSession,
        wait: Option<Duration>,
    ) -> Result<Session, Error> {
        let wait = self.lock_wait(wait)?;
        let key = request::request_key(new.request_key.as_deref())?;
        let key = key.map(|key| (key, fingerprint::of_session(new)));
        let judged = self.judge_session(new);
        let ask = |work| self.handle.acquire(driver::NewSession { key: key.clone(), work }, wait);
        let reply = unless_repeated(key.is_some(), judged, ask).await?;
        self.session(reply)
    }

    /// What a session is to hold, or what stands against it as a new one.
    fn judge_session(&self, new: &NewSession) -> Result<driver::NewLocks, Error> {
        let locks = self.some_locks(&new.locks)?;
        let lease = limits::lease(new.lease)?.unwrap_or(LEASE);
        let retry_of = request::retry_of(new.retry_of)?;
        self.check_room()?;
        Ok(driver::NewLocks { retry_of, locks, lease })
    }

    fn lock_wait(&self, wait: Option<Duration>) -> Result<Duration, Error> {
        let wait = limits::within("wait", wait, Duration::ZERO)?;
        Ok(wait.unwrap_or(self.limits.options.lock_wait))
    }

    fn some_locks(&self, locks: &[NewLock]) -> Result<Vec<(LockKey, LockMode)>, Error> {
        let locks = self.limits.locks(locks)?;
        match locks.is_empty() {
            true => Err(Error::invalid("locks", "is empty; name at least one key")),
            false => Ok(locks),
        }
    }

    /// Begins a session's lease anew, and shows all that it holds.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`].
    pub async fn renew_session(&self, id: SessionId) -> Result<Session, Error> {
        let reply = self.handle.session(id, SessionCall::Renew).await?;
        self.session(reply)
    }

    /// Releases these keys of a session, all of them where none is named, and returns how
    /// many that were.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`].
    pub async fn release(&self, id: SessionId, keys: &[String]) -> Result<usize, Error> {
        let keys = self.limits.lock_keys("keys", keys)?;
        match self.handle.session(id, SessionCall::Release(keys)).await? {
            Reply::Released(count) => Ok(count),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// A page of locks, by key.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn list_locks(&self, filter: LockFilter) -> Result<LockPage, Error> {
        let size = limits::page_size(filter.page_size)?;
        let LockFilter { prefix, owner, after, .. } = filter;
        let (now, mut locks) = self.handle.list_locks(prefix, owner, after, size + 1).await?;
        let more = locks.len() > size;
        locks.truncate(size);
        let next = locks.last().filter(|_| more).map(|view| view.key.to_string());
        Ok(LockPage { now, locks, next })
    }

    fn session(&self, reply: Reply) -> Result<Session, Error> {
        match reply {
            Reply::Locked { owner: LockOwner::Session(id), locks, lease: Some(lease) } => {
                Ok(Session { id, locks, lease })
            }
            reply => Err(self.unexpected(&reply)),
        }
    }

    fn unexpected(&self, reply: &Reply) -> Error {
        match reply {
            Reply::Refused(refused) => Error::refused(refused, &self.handle.directory),
            _ => Error::Stopping,
        }
    }
}
