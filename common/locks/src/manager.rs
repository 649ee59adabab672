//! The manager.
//!
//! A request is for all of its keys or none, and stands in the queue of each from
//! the same moment on. It is granted when in every queue nothing that it conflicts
//! with holds the key or stands before it.
//!
//! Invariants:
//! - An exclusive holder is the only holder of its key, its siblings apart. (What is
//!   restored is held whatever it says.)
//! - First come, first served. Three go before the queue: an upgrade from shared to
//!   exclusive, which would wait for ever behind it; one whose sibling holds the key or
//!   is ahead; and, under wait-die, an owner that holds locks already and is older than
//!   all before whom it goes.
//! - A waiting request is stuck at one of its keys: what changes there wakes it.
//! - Under wait-die, one that holds locks waits for younger ones only, and for
//!   none that holds nothing; one that holds nothing waits for whoever came before
//!   it. So no cycle can be: it would lead through holders only, each younger than
//!   the one before. Who is decided may be waited for by all, and waits for nobody.
//! - Under detection every request may wait; a cycle is found when its last edge is
//!   made, and its youngest owner is refused.
//! - Tokens only grow: the epoch of the run is their upper part.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, btree_map::Entry},
    string::String,
    vec::Vec,
};
use core::fmt;

use dtc_protocol::{Time, TransactionId};

use super::{
    Acquired, Blocked, Deadlocks, HeldLock, LockFigures, LockKey, LockMode, Owner, WaitEnd,
    blocked::timed_out,
    key::{Holder, Key, Place, Rank, Turn},
};

/// Bits of a token that count grants; the epoch is above them.
const COUNTER_BITS: u32 = 40;

#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) age: TransactionId,
    /// Sorted; most have few.
    pub(crate) held: Vec<LockKey>,
    pub(crate) waits: Option<Box<Request>>,
    pub(crate) is_decided: bool,
    is_confirmed: bool,
}

/// All that an owner waits for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) since: Time,
    /// What was asked for and is not held.
    pub(crate) wants: Vec<Want>,
    /// What was asked for and is held.
    has: Vec<LockKey>,
    /// Which of `wants` it is stuck at.
    pub(crate) stuck: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) key: LockKey,
    pub(crate) mode: LockMode,
    /// The owner shares the key.
    upgrades: bool,
    pub(crate) place: Place,
}

/// The locks of owners of one kind.
#[derive(Debug, Clone)]
pub struct Locks<O> {
    pub(crate) policy: Deadlocks,
    /// Locks that may be held and waited for, together.
    limit: usize,
    last_token: u64,
    pub(crate) last_number: u64,
    pub(crate) keys: BTreeMap<LockKey, Key<O>>,
    pub(crate) owners: BTreeMap<O, Known>,
    pub(crate) held: usize,
    pub(crate) wanted: usize,
    /// `held` is kept above.
    pub(crate) figures: LockFigures,
    pub(crate) ended: Vec<(O, WaitEnd<O>)>,
}

impl<O: Owner> Locks<O> {
    /// Locks of a run. `limit` bounds those that are held and waited for, together; tokens
    /// begin above those of lower epochs.
    pub fn new(policy: Deadlocks, limit: usize, epoch: u64) -> Self {
        debug_assert!(!O::HOLDS_ELSEWHERE || policy == Deadlocks::WaitDie, "cycles are seen here");
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
            ended: Vec::new(),
        }
    }

    /// Holds again what was held before a crash.
    pub fn restore(&mut self, now: Time, owner: O, age: TransactionId, locks: &[HeldLock]) {
        for HeldLock { key, mode, token } in locks {
            let holder = Holder { mode: *mode, token: *token, since: now };
            self.hold(owner, age, key.clone(), holder);
        }
        self.confirm(owner);
    }

    /// Asks for all of these.
    ///
    /// # Panics
    ///
    /// With debug assertions, where the owner waits already.
    pub fn acquire(
        &mut self,
        now: Time,
        owner: O,
        age: TransactionId,
        locks: &[(LockKey, LockMode)],
    ) -> Acquired<O> {
        debug_assert!(!self.is_waiting(owner));
        if !locks.is_sorted_by(|one, other| one.0 < other.0) {
            let mut sorted = locks.to_vec();
            // Of one key, the strongest mode.
            sorted.sort_unstable_by(|one, other| other.cmp(one));
            sorted.dedup_by(|one, other| one.0 == other.0);
            sorted.reverse();
            return self.acquire(now, owner, age, &sorted);
        }
        if locks.iter().all(|(key, _)| !self.keys.contains_key(key)) {
            if self.no_room_for(locks.len()).is_some() {
                return Acquired::Full;
            }
            return Acquired::Granted(self.grant(now, owner, age, &[], locks.iter().cloned()));
        }
        let request = self.request(now, owner, locks);
        if self.no_room_for(request.wants.len()).is_some() {
            return Acquired::Full;
        }
        let acquired = self.take_up(now, owner, age, request);
        self.figures.deadlocks += u64::from(matches!(acquired, Acquired::Deadlock(_)));
        acquired
    }

    fn request(&mut self, now: Time, owner: O, locks: &[(LockKey, LockMode)]) -> Request {
        let is_bound = O::HOLDS_ELSEWHERE || self.owners.contains_key(&owner);
        let rank = match (self.policy, is_bound) {
            (Deadlocks::WaitDie, true) => Rank::Holder,
            _ => Rank::Newcomer,
        };
        self.last_number += 1;
        let place = Place { turn: Turn { rank, number: self.last_number }, sibling: 0 };
        let (mut wants, mut has) = (Vec::with_capacity(locks.len()), Vec::new());
        for (key, mode) in locks {
            let known = self.keys.get(key);
            let held = known.and_then(|known| known.holders.get(owner));
            if held.is_some_and(|held| held.mode >= *mode) {
                has.push(key.clone());
                continue;
            }
            let place = known.map_or(place, |known| self.place_at(key, known, owner, place));
            wants.push(Want { key: key.clone(), mode: *mode, upgrades: held.is_some(), place });
        }
        Request { since: now, wants, has, stuck: 0 }
    }

    /// Where a request stands at a key: with its siblings, if any of them is there.
    fn place_at(&self, name: &LockKey, key: &Key<O>, owner: O, own: Place) -> Place {
        let siblings = self.owners.range(owner.siblings()).filter(|_| key.is_waited_for());
        let waiting = siblings.filter_map(|(_, known)| known.waits.as_ref()?.want_at(name));
        match waiting.map(|want| want.place).max() {
            Some(last) => Place { sibling: last.sibling + 1, ..last },
            None if key.holders.has_sibling(owner) => {
                Place { turn: Turn { rank: Rank::Upgrade, ..own.turn }, ..own }
            }
            None => own,
        }
    }

    fn take_up(
        &mut self,
        now: Time,
        owner: O,
        age: TransactionId,
        mut request: Request,
    ) -> Acquired<O> {
        let wants = &request.wants;
        if let Some(blocked) = self.overtakes_an_elder(owner, age, wants) {
            return Acquired::Deadlock(blocked);
        }
        let upgrades: Vec<Want> = request.wants.iter().filter(|it| it.upgrades).cloned().collect();
        let Some(stuck) = request.wants.iter().position(|want| !self.is_open(owner, want)) else {
            let locks = self.grant_request(now, owner, age, request);
            self.refuse_younger_behind(now, owner, age, &upgrades);
            return Acquired::Granted(locks);
        };
        if let Some(blocked) = self.waits_for_an_elder(owner, age, &request.wants) {
            return Acquired::Deadlock(blocked);
        }
        request.stuck = stuck;
        self.enqueue(owner, age, request);
        match self.policy {
            Deadlocks::WaitDie => self.refuse_younger_behind(now, owner, age, &upgrades),
            Deadlocks::Detect => {
                if let Some(blocked) = self.break_cycles(now, owner) {
                    return Acquired::Deadlock(blocked);
                }
            }
        }
        // A victim that stood before it may have been all that it waited for.
        let own = self.ended.iter().position(|(ended, _)| *ended == owner);
        match own.map(|index| self.ended.remove(index).1) {
            Some(WaitEnd::Granted(locks)) => Acquired::Granted(locks),
            Some(WaitEnd::Deadlock(blocked)) => Acquired::Deadlock(blocked),
            None => Acquired::Waiting,
        }
    }

    /// Ends an owner's wait; what it holds it keeps. Returns since when it waited,
    /// and for whom at last.
    pub fn cancel(&mut self, now: Time, owner: O) -> Option<(Time, Option<Blocked<O>>)> {
        let blocked = self.blocked(owner);
        let request = self.owners.get_mut(&owner)?.waits.take()?;
        self.dequeue(&request);
        self.forget_if_idle(owner);
        for want in &request.wants {
            self.wake(now, &want.key);
        }
        Some((request.since, blocked))
    }

    /// Ends an owner's wait because its time is over. Returns the message that says so.
    pub fn time_out(&mut self, now: Time, owner: O) -> String
    where
        O: fmt::Display,
    {
        self.figures.timeouts += 1;
        let (since, blocked) = self.cancel(now, owner).unwrap_or((now, None));
        timed_out(now.since(since), blocked.as_ref())
    }

    /// Releases one key, where it is held.
    pub fn release(&mut self, now: Time, owner: O, key: &LockKey) {
        let known = self.owners.get_mut(&owner);
        let held = known.and_then(|known| {
            let found = known.held.binary_search(key).ok()?;
            Some(known.held.remove(found))
        });
        if held.is_some() {
            self.forget_if_idle(owner);
            if self.let_go(owner, key) {
                self.wake(now, key);
            }
        }
    }

    /// Releases all that an owner holds and ends its wait.
    pub fn release_all(&mut self, now: Time, owner: O) {
        let Some(known) = self.owners.remove(&owner) else {
            return;
        };
        let wanted = known.waits.as_ref().map_or(&[][..], |request| &request.wants);
        if let Some(request) = &known.waits {
            self.dequeue(request);
        }
        let mut to_wake: Vec<_> = wanted.iter().map(|want| &want.key).collect();
        to_wake.extend(known.held.iter().filter(|key| self.let_go(owner, key)));
        for key in to_wake {
            self.wake(now, key);
        }
    }

    /// A decision about the owner has come: it is not applied yet, but who waits for it waits
    /// for something that waits for nobody.
    pub fn decide(&mut self, owner: O) {
        if let Some(known) = self.owners.get_mut(&owner) {
            known.is_decided = true;
        }
    }

    /// The owner keeps what it holds. False where that is nothing, or was confirmed before.
    /// For those who take locks before it is certain that they need them: the manager does no
    /// more than know which they are.
    pub fn confirm(&mut self, owner: O) -> bool {
        let known = self.owners.get_mut(&owner);
        let holder = known.filter(|known| !known.held.is_empty() && !known.is_confirmed);
        holder.map(|known| known.is_confirmed = true).is_some()
    }

    /// Whether an owner holds something that is not confirmed.
    pub fn is_unconfirmed(&self, owner: O) -> bool {
        let known = self.owners.get(&owner);
        known.is_some_and(|known| !known.held.is_empty() && !known.is_confirmed)
    }

    /// The waits that have ended since this was called.
    pub fn take_ended(&mut self) -> Vec<(O, WaitEnd<O>)> {
        core::mem::take(&mut self.ended)
    }

    /// Whether an owner waits.
    pub fn is_waiting(&self, owner: O) -> bool {
        self.owners.get(&owner).is_some_and(|known| known.waits.is_some())
    }

    /// What an owner holds, by key.
    pub fn held_by(&self, owner: O) -> Vec<HeldLock> {
        let known = self.owners.get(&owner);
        known.into_iter().flat_map(|known| &known.held).map(|key| self.held(owner, key)).collect()
    }

    /// How many keys an owner holds.
    pub fn count_of(&self, owner: O) -> usize {
        self.owners.get(&owner).map_or(0, |known| known.held.len())
    }

    /// How much there is of locks.
    pub fn figures(&self) -> LockFigures {
        LockFigures { held: self.held, ..self.figures }
    }

    /// The bound, where so many more would exceed it.
    pub fn no_room_for(&self, more: usize) -> Option<usize> {
        (self.held + self.wanted + more > self.limit).then_some(self.limit)
    }

    /// What an owner holds, and then what it waits for; none where it does neither.
    pub fn keys_of(&self, owner: O) -> Option<impl Iterator<Item = &LockKey>> {
        let known = self.owners.get(&owner)?;
        let wanted = known.waits.iter().flat_map(|request| &request.wants);
        Some(known.held.iter().chain(wanted.map(|want| &want.key)))
    }

    pub(crate) fn wanted_by(&self, owner: O) -> &[Want] {
        let request = self.owners.get(&owner).and_then(|known| known.waits.as_ref());
        request.map_or(&[], |request| &request.wants)
    }

    fn held(&self, owner: O, key: &LockKey) -> HeldLock {
        let holder = self.keys[key].holders.get(owner).expect("what an owner has it holds");
        HeldLock { key: key.clone(), mode: holder.mode, token: holder.token }
    }

    pub(crate) fn is_open(&self, owner: O, want: &Want) -> bool {
        self.keys.get(&want.key).is_none_or(|key| key.is_open(owner, want.mode, want.place))
    }

    /// All of a request at once: `has` is held, and `wants` are open.
    fn grant(
        &mut self,
        now: Time,
        owner: O,
        age: TransactionId,
        has: &[LockKey],
        wants: impl ExactSizeIterator<Item = (LockKey, LockMode)>,
    ) -> Vec<HeldLock> {
        self.figures.granted += 1;
        if wants.len() > 0 {
            self.last_token += 1;
        }
        let token = self.last_token;
        let mut locks = Vec::with_capacity(wants.len() + has.len());
        locks.extend(has.iter().map(|key| self.held(owner, key)));
        for (key, mode) in wants {
            self.hold(owner, age, key.clone(), Holder { mode, token, since: now });
            locks.push(HeldLock { key, mode, token });
        }
        locks.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        locks
    }

    /// All of a request that stands in no queue.
    fn grant_request(
        &mut self,
        now: Time,
        owner: O,
        age: TransactionId,
        request: Request,
    ) -> Vec<HeldLock> {
        let wants = request.wants.into_iter().map(|want| (want.key, want.mode));
        self.grant(now, owner, age, &request.has, wants)
    }

    fn hold(&mut self, owner: O, age: TransactionId, key: LockKey, holder: Holder) {
        let known = self.owners.entry(owner).or_insert_with(|| Known::new(age));
        if let Err(place) = known.held.binary_search(&key) {
            known.held.insert(place, key.clone());
            self.held += 1;
        }
        self.keys.entry(key).or_default().holders.insert(owner, holder);
    }

    /// Whether somebody waits for the key.
    fn let_go(&mut self, owner: O, key: &LockKey) -> bool {
        self.held -= 1;
        let Entry::Occupied(mut entry) = self.keys.entry(key.clone()) else { return false };
        entry.get_mut().holders.remove(owner);
        if entry.get().is_unused() {
            entry.remove();
            return false;
        }
        entry.get().is_waited_for()
    }

    fn enqueue(&mut self, owner: O, age: TransactionId, request: Request) {
        for (index, want) in request.wants.iter().enumerate() {
            let key = self.keys.entry(want.key.clone()).or_default();
            key.enqueue(want.place, owner, want.mode, index == request.stuck);
        }
        self.wanted += request.wants.len();
        self.figures.waiting += 1;
        let known = self.owners.entry(owner).or_insert_with(|| Known::new(age));
        known.waits = Some(Box::new(request));
    }

    /// Takes a request out of all queues. Wakes nobody.
    fn dequeue(&mut self, request: &Request) {
        for want in &request.wants {
            if let Some(key) = self.keys.get_mut(&want.key) {
                key.dequeue(want.place);
            }
        }
        self.wanted -= request.wants.len();
        self.figures.waiting -= 1;
    }

    fn forget_if_idle(&mut self, owner: O) {
        let idle = |known: &Known| known.held.is_empty() && known.waits.is_none();
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
                    let known = self.owners.get_mut(&owner).and_then(|known| known.waits.take());
                    let request = known.expect("who is stuck waits");
                    self.dequeue(&request);
                    let locks = self.grant_request(now, owner, age, *request);
                    self.ended.push((owner, WaitEnd::Granted(locks)));
                }
            }
        }
        if self.keys.get(key).is_some_and(Key::is_unused) {
            self.keys.remove(key);
        }
    }

    fn move_stuck(&mut self, owner: O, to: usize) {
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
    pub(crate) fn refuse(&mut self, now: Time, owner: O, blocked: Blocked<O>) {
        self.cancel(now, owner);
        self.figures.deadlocks += 1;
        self.ended.push((owner, WaitEnd::Deadlock(blocked)));
    }
}

impl Request {
    pub(crate) fn want_at(&self, key: &LockKey) -> Option<&Want> {
        let found = self.wants.binary_search_by(|want| want.key.cmp(key)).ok()?;
        self.wants.get(found)
    }
}

impl Want {
    pub(crate) fn rank(&self) -> Rank {
        self.place.turn.rank
    }
}

impl Known {
    fn new(age: TransactionId) -> Self {
        Self { age, held: Vec::new(), waits: None, is_decided: false, is_confirmed: false }
    }
}
