//! Locks on names that their users choose, across participants.
//!
//! A request is for all of its keys or none, and stands in the queue of each from
//! the same moment on. It is granted when in every queue nothing that it conflicts
//! with holds the key or stands before it.
//!
//! Invariants:
//! - An exclusive holder is the only holder of its key.
//! - First come, first served. Two go before the queue: an upgrade from shared to
//!   exclusive, which would wait for ever behind it, and, under wait-die, an owner
//!   that holds locks already and is older than all before whom it goes.
//! - A waiting request is stuck at one of its keys: what changes there wakes it.
//! - Under wait-die, one that holds locks waits for younger ones only, and for
//!   none that holds nothing; one that holds nothing waits for whoever came before
//!   it. So no cycle can be: it would lead through holders only, each younger than
//!   the one before.
//! - Under detection every request may wait; a cycle is found when its last edge is
//!   made, and its youngest owner is refused.
//! - Tokens only grow: the epoch of the run is their upper part.

mod blocked;
mod deadlock;
mod key;
mod list;
#[cfg(test)]
mod tests;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::fmt;

use dtc_protocol::{SessionId, TransactionId};

use crate::Time;
pub use blocked::Blocked;
use blocked::timed_out;
use key::{Holder, Key, Place, Rank};
pub use list::{LockHolder, LockView, LockWaiter};

/// What a lock is on: 1 to [`MAX_LOCK_KEY`] bytes.
pub type LockKey = Arc<str>;

/// Bytes of the longest key.
pub const MAX_LOCK_KEY: usize = 256;

/// Bits of a token that count grants; the epoch is above them.
const COUNTER_BITS: u32 = 40;

/// How a key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

impl LockMode {
    fn conflicts(self, other: Self) -> bool {
        self.max(other) == Self::Exclusive
    }
}

/// Who holds locks or waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockOwner {
    /// A transaction, until nothing is owed to its branches.
    Transaction(TransactionId),
    /// A client by itself, for as long as it renews its lease.
    Session(SessionId),
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(id) => write!(f, "transaction {id}"),
            Self::Session(id) => write!(f, "session {id}"),
        }
    }
}

/// What is done about deadlocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Deadlocks {
    /// Who is younger than one that it would wait for is refused at once.
    #[default]
    WaitDie,
    /// Cycles are looked for, and the youngest in one is refused.
    Detect,
}

/// A lock as it is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLock {
    /// On what.
    pub key: LockKey,
    /// How.
    pub mode: LockMode,
    /// The fencing token: greater than that of every grant before. Keys that were
    /// granted together have the same.
    pub token: u64,
}

/// How much there is of locks, and how much there was in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockFigures {
    /// Locks that are held.
    pub held: usize,
    /// Owners that wait.
    pub waiting: usize,
    /// Requests that were granted.
    pub granted: u64,
    /// Requests that were refused because of a deadlock.
    pub deadlocks: u64,
    /// Waits that ended.
    pub timeouts: u64,
}

/// What became of a request at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Granted(Vec<HeldLock>),
    Waiting,
    Deadlock(Blocked),
    /// Too many locks are held or waited for.
    Full,
}

/// What became of one that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Granted(Vec<HeldLock>),
    Deadlock(Blocked),
}

#[derive(Debug, Clone)]
struct Owner {
    age: TransactionId,
    held: BTreeSet<LockKey>,
    waits: Option<Box<Request>>,
}

/// All that an owner waits for.
#[derive(Debug, Clone)]
struct Request {
    since: Time,
    /// What was asked for and is not held.
    wants: Vec<Want>,
    /// What was asked for and is held.
    has: Vec<LockKey>,
    /// Which of `wants` it is stuck at.
    stuck: usize,
}

#[derive(Debug, Clone)]
struct Want {
    key: LockKey,
    mode: LockMode,
    place: Place,
}

/// The machine.
#[derive(Debug, Clone)]
pub(crate) struct Locks {
    policy: Deadlocks,
    /// Locks that may be held and waited for, together.
    limit: usize,
    last_token: u64,
    last_number: u64,
    keys: BTreeMap<LockKey, Key>,
    owners: BTreeMap<LockOwner, Owner>,
    held: usize,
    wanted: usize,
    /// `held` is kept above.
    figures: LockFigures,
    settled: Vec<(LockOwner, Settled)>,
}

impl Locks {
    pub(crate) fn new(policy: Deadlocks, limit: usize, epoch: u64) -> Self {
        Self {
            policy,
            limit,
            last_token: epoch << COUNTER_BITS,
            last_number: 0,
            keys: BTreeMap::new(),
            owners: BTreeMap::new(),
            held: 0,
            wanted: 0,
            figures: LockFigures::default(),
            settled: Vec::new(),
        }
    }

    /// Holds again what was held before a crash.
    pub(crate) fn restore(
        &mut self,
        now: Time,
        owner: LockOwner,
        age: TransactionId,
        locks: &[HeldLock],
    ) {
        for HeldLock { key, mode, token } in locks {
            let holder = Holder { mode: *mode, token: *token, since: now };
            self.hold(owner, age, key.clone(), holder);
        }
    }

    /// Asks for all of these. An owner that waits already has to be told so by the
    /// caller.
    pub(crate) fn acquire(
        &mut self,
        now: Time,
        owner: LockOwner,
        age: TransactionId,
        locks: &[(LockKey, LockMode)],
    ) -> Asked {
        debug_assert!(!self.is_waiting(owner));
        let mut asked = BTreeMap::<&LockKey, LockMode>::new();
        for (key, mode) in locks {
            let strongest = asked.entry(key).or_insert(*mode);
            *strongest = (*mode).max(*strongest);
        }
        let rank = match (self.policy, self.owners.contains_key(&owner)) {
            (Deadlocks::WaitDie, true) => Rank::Holder,
            _ => Rank::Newcomer,
        };
        self.last_number += 1;
        let number = self.last_number;
        let (mut wants, mut has) = (Vec::new(), Vec::new());
        for (key, mode) in asked {
            let held = self.keys.get(key).and_then(|it| it.holders.get(owner));
            let rank = match held {
                Some(held) if held.mode >= mode => {
                    has.push(key.clone());
                    continue;
                }
                Some(_) => Rank::Upgrade,
                None => rank,
            };
            wants.push(Want { key: key.clone(), mode, place: Place { rank, number } });
        }
        if self.no_room_for(wants.len()).is_some() {
            return Asked::Full;
        }
        let asked = self.take_up(now, owner, age, Request { since: now, wants, has, stuck: 0 });
        match &asked {
            Asked::Granted(_) => self.figures.granted += 1,
            Asked::Deadlock(_) => self.figures.deadlocks += 1,
            Asked::Waiting | Asked::Full => {}
        }
        asked
    }

    fn take_up(
        &mut self,
        now: Time,
        owner: LockOwner,
        age: TransactionId,
        mut request: Request,
    ) -> Asked {
        let wants = &request.wants;
        if let Some(blocked) = self.overtakes_an_elder(owner, age, wants) {
            return Asked::Deadlock(blocked);
        }
        let upgrades: Vec<Want> =
            request.wants.iter().filter(|it| it.is_upgrade()).cloned().collect();
        let Some(stuck) = request.wants.iter().position(|want| !self.is_open(owner, want)) else {
            let locks = self.grant(now, owner, age, request);
            self.refuse_younger_behind(now, owner, age, &upgrades);
            return Asked::Granted(locks);
        };
        if let Some(blocked) = self.waits_for_an_elder(owner, age, &request.wants) {
            return Asked::Deadlock(blocked);
        }
        request.stuck = stuck;
        self.enqueue(owner, age, request);
        match self.policy {
            Deadlocks::WaitDie => self.refuse_younger_behind(now, owner, age, &upgrades),
            Deadlocks::Detect => {
                if let Some(blocked) = self.break_cycles(now, owner) {
                    return Asked::Deadlock(blocked);
                }
            }
        }
        // A victim that stood before it may have been all that it waited for.
        let own = self.settled.iter().position(|(settled, _)| *settled == owner);
        match own.map(|index| self.settled.remove(index).1) {
            // Counted when it was settled.
            Some(Settled::Granted(locks)) => {
                self.figures.granted -= 1;
                Asked::Granted(locks)
            }
            Some(Settled::Deadlock(blocked)) => Asked::Deadlock(blocked),
            None => Asked::Waiting,
        }
    }

    /// Ends an owner's wait; what it holds it keeps. Returns since when it waited,
    /// and for whom at last.
    pub(crate) fn cancel(
        &mut self,
        now: Time,
        owner: LockOwner,
    ) -> Option<(Time, Option<Blocked>)> {
        let blocked = self.blocked(owner);
        let request = self.dequeue(owner)?;
        self.forget_if_idle(owner);
        for want in &request.wants {
            self.wake(now, &want.key);
        }
        Some((request.since, blocked))
    }

    /// Ends an owner's wait because its time is over. Says so, for people.
    pub(crate) fn time_out(&mut self, now: Time, owner: LockOwner) -> String {
        self.figures.timeouts += 1;
        let (since, blocked) = self.cancel(now, owner).unwrap_or((now, None));
        timed_out(now.since(since), blocked.as_ref())
    }

    /// Releases one key, where it is held.
    pub(crate) fn release(&mut self, now: Time, owner: LockOwner, key: &LockKey) {
        let known = self.owners.get_mut(&owner);
        if known.is_some_and(|known| known.held.remove(key)) {
            self.let_go(owner, key);
            self.forget_if_idle(owner);
            self.wake(now, key);
        }
    }

    /// Releases all that an owner holds and ends its wait.
    pub(crate) fn release_all(&mut self, now: Time, owner: LockOwner) {
        let request = self.dequeue(owner);
        let Some(known) = self.owners.remove(&owner) else {
            return;
        };
        for key in &known.held {
            self.let_go(owner, key);
        }
        let waited_for = request.iter().flat_map(|request| &request.wants).map(|want| &want.key);
        for key in waited_for.chain(&known.held) {
            self.wake(now, key);
        }
    }

    /// Those whose wait has ended since this was asked.
    pub(crate) fn take_settled(&mut self) -> Vec<(LockOwner, Settled)> {
        core::mem::take(&mut self.settled)
    }

    pub(crate) fn is_waiting(&self, owner: LockOwner) -> bool {
        self.owners.get(&owner).is_some_and(|known| known.waits.is_some())
    }

    /// What an owner holds, by key.
    pub(crate) fn held_by(&self, owner: LockOwner) -> Vec<HeldLock> {
        let known = self.owners.get(&owner);
        known.into_iter().flat_map(|known| &known.held).map(|key| self.held(owner, key)).collect()
    }

    pub(crate) fn holds_any(&self, owner: LockOwner) -> bool {
        self.owners.get(&owner).is_some_and(|known| !known.held.is_empty())
    }

    pub(crate) fn count_of(&self, owner: LockOwner) -> usize {
        self.owners.get(&owner).map_or(0, |known| known.held.len())
    }

    pub(crate) fn figures(&self) -> LockFigures {
        LockFigures { held: self.held, ..self.figures }
    }

    /// The bound, where so many more would exceed it.
    pub(crate) fn no_room_for(&self, more: usize) -> Option<usize> {
        (self.held + self.wanted + more > self.limit).then_some(self.limit)
    }

    fn held(&self, owner: LockOwner, key: &LockKey) -> HeldLock {
        let holder = self.keys[key].holders.get(owner).expect("what an owner has it holds");
        HeldLock { key: key.clone(), mode: holder.mode, token: holder.token }
    }

    fn is_open(&self, owner: LockOwner, want: &Want) -> bool {
        self.keys.get(&want.key).is_none_or(|key| key.is_open(owner, want.mode, want.place))
    }

    /// All of a request at once. Its keys are open, and it stands in no queue.
    fn grant(
        &mut self,
        now: Time,
        owner: LockOwner,
        age: TransactionId,
        request: Request,
    ) -> Vec<HeldLock> {
        if !request.wants.is_empty() {
            self.last_token += 1;
        }
        let token = self.last_token;
        let mut keys = request.has;
        for Want { key, mode, .. } in request.wants {
            self.hold(owner, age, key.clone(), Holder { mode, token, since: now });
            keys.push(key);
        }
        keys.sort_unstable();
        keys.iter().map(|key| self.held(owner, key)).collect()
    }

    fn hold(&mut self, owner: LockOwner, age: TransactionId, key: LockKey, holder: Holder) {
        let known = self.owners.entry(owner).or_insert_with(|| Owner::new(age));
        if known.held.insert(key.clone()) {
            self.held += 1;
        }
        self.keys.entry(key).or_default().holders.insert(owner, holder);
    }

    fn let_go(&mut self, owner: LockOwner, key: &LockKey) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.holders.remove(owner);
        }
        self.held -= 1;
    }

    fn enqueue(&mut self, owner: LockOwner, age: TransactionId, request: Request) {
        for (index, want) in request.wants.iter().enumerate() {
            let key = self.keys.entry(want.key.clone()).or_default();
            key.enqueue(want.place, owner, want.mode, index == request.stuck);
        }
        self.wanted += request.wants.len();
        self.figures.waiting += 1;
        let known = self.owners.entry(owner).or_insert_with(|| Owner::new(age));
        known.waits = Some(Box::new(request));
    }

    /// Takes a request out of all queues. Wakes nobody.
    fn dequeue(&mut self, owner: LockOwner) -> Option<Box<Request>> {
        let request = self.owners.get_mut(&owner)?.waits.take()?;
        for want in &request.wants {
            if let Some(key) = self.keys.get_mut(&want.key) {
                key.dequeue(want.place);
            }
        }
        self.wanted -= request.wants.len();
        self.figures.waiting -= 1;
        Some(request)
    }

    fn forget_if_idle(&mut self, owner: LockOwner) {
        let idle = |known: &Owner| known.held.is_empty() && known.waits.is_none();
        if self.owners.get(&owner).is_some_and(idle) {
            self.owners.remove(&owner);
        }
    }

    /// Something was released or left the queue: looks at those that are stuck
    /// here, in their order, for as long as the key is open to them.
    fn wake(&mut self, now: Time, key: &LockKey) {
        while let Some(owner) = self.keys.get(key).and_then(Key::first_freed) {
            let known = &self.owners[&owner];
            let age = known.age;
            let request = known.waits.as_ref().expect("who is stuck waits");
            match request.wants.iter().position(|want| !self.is_open(owner, want)) {
                Some(stuck) => self.move_stuck(owner, stuck),
                None => {
                    if let Some(request) = self.dequeue(owner) {
                        let locks = self.grant(now, owner, age, *request);
                        self.figures.granted += 1;
                        self.settled.push((owner, Settled::Granted(locks)));
                    }
                }
            }
        }
        if self.keys.get(key).is_some_and(Key::is_unused) {
            self.keys.remove(key);
        }
    }

    fn move_stuck(&mut self, owner: LockOwner, to: usize) {
        let Some(request) = self.owners.get_mut(&owner).and_then(|known| known.waits.as_mut())
        else {
            return;
        };
        let (old, new) = (&request.wants[request.stuck], &request.wants[to]);
        for (want, stuck) in [(old, false), (new, true)] {
            if let Some(key) = self.keys.get_mut(&want.key) {
                key.set_stuck(want.place, stuck);
            }
        }
        request.stuck = to;
    }

    /// Refuses a request that waits.
    fn refuse(&mut self, now: Time, owner: LockOwner, blocked: Blocked) {
        self.cancel(now, owner);
        self.figures.deadlocks += 1;
        self.settled.push((owner, Settled::Deadlock(blocked)));
    }
}

impl Want {
    fn is_upgrade(&self) -> bool {
        self.place.rank == Rank::Upgrade
    }
}

impl Owner {
    fn new(age: TransactionId) -> Self {
        Self { age, held: BTreeSet::new(), waits: None }
    }
}
