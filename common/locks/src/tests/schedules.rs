//! Whatever is asked for in whatever order: what holds always, and that all of it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use proptest::prelude::*;

use super::{
    super::{deadlock::blockers, key::Rank, manager::Want},
    *,
};

#[derive(Debug, Clone)]
enum Op {
    Acquire(usize, Vec<(u8, bool)>),
    Release(usize, usize),
    Cancel(usize),
    End(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let keys = prop::collection::vec((0..4_u8, any::<bool>()), 1..4);
    prop_oneof![
        8 => (0..6_usize, keys).prop_map(|(slot, keys)| Op::Acquire(slot, keys)),
        1 => (0..6_usize, 0..4_usize).prop_map(|(slot, key)| Op::Release(slot, key)),
        1 => (0..6_usize).prop_map(Op::Cancel),
        2 => (0..6_usize).prop_map(Op::End),
    ]
}

/// An owner of the test, and what it waits for.
#[derive(Debug, Clone)]
struct Slot {
    id: u64,
    age: u64,
    waits: Option<Asking>,
}

#[derive(Debug, Clone)]
struct Asking {
    number: u64,
    wants: Vec<(LockKey, LockMode)>,
    before: Vec<HeldLock>,
}

struct Schedule {
    locks: Locks<Client>,
    slots: Vec<Slot>,
    next: u64,
    /// The newest of each key and mode.
    tokens: BTreeMap<(LockKey, LockMode), u64>,
}

impl Schedule {
    fn new(policy: Deadlocks) -> Self {
        let slots = (1..7).map(|id| Slot { id, age: id, waits: None }).collect();
        Self { locks: locks(policy), slots, next: 7, tokens: BTreeMap::new() }
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Acquire(slot, keys) => {
                let Slot { id: number, age, waits } = self.slots[slot].clone();
                if waits.is_some() {
                    return;
                }
                let text: String = keys
                    .iter()
                    .map(|(key, alone)| char::from(if *alone { b'A' } else { b'a' } + key))
                    .collect();
                let wants = wants(&text);
                let asking = Asking {
                    number: self.locks.last_number + 1,
                    before: self.locks.held_by(owner(number)),
                    wants: wants.clone(),
                };
                self.slots[slot].waits = Some(asking);
                let answer = self.locks.acquire(NOW, owner(number), id(age), &wants);
                let ended = self.locks.take_ended();
                // The refused no longer wait when others are granted what they wanted.
                self.note_refused(&ended);
                match answer {
                    Acquired::Granted(locks) => self.granted(slot, &locks),
                    Acquired::Deadlock(_) => self.die(slot),
                    Acquired::Waiting => {}
                    Acquired::Full => panic!("there is room"),
                }
                self.take(ended);
            }
            Op::Release(slot, key) => {
                if self.slots[slot].waits.is_none() {
                    let owner = owner(self.slots[slot].id);
                    let held = self.locks.held_by(owner);
                    if let Some(lock) = held.get(key) {
                        self.locks.release(NOW, owner, &lock.key);
                        assert!(!self.locks.held_by(owner).contains(lock));
                    }
                }
            }
            Op::Cancel(slot) => {
                let waited = self.slots[slot].waits.take().is_some();
                let cancelled = self.locks.cancel(NOW, owner(self.slots[slot].id));
                assert_eq!(cancelled.is_some(), waited);
            }
            Op::End(slot) => self.end(slot),
        }
        self.take_all();
        self.check();
    }

    fn take_all(&mut self) {
        loop {
            let ended = self.locks.take_ended();
            if ended.is_empty() {
                return;
            }
            self.note_refused(&ended);
            self.take(ended);
        }
    }

    fn slot(&self, who: Client) -> usize {
        self.slots.iter().position(|slot| owner(slot.id) == who).expect("it has not ended")
    }

    fn note_refused(&mut self, ended: &[(Client, WaitEnd<Client>)]) {
        for (who, ended) in ended {
            if matches!(ended, WaitEnd::Deadlock(_)) {
                let slot = self.slot(*who);
                self.slots[slot].waits = None;
            }
        }
    }

    fn take(&mut self, ended: Vec<(Client, WaitEnd<Client>)>) {
        for (who, ended) in ended {
            let slot = self.slot(who);
            match ended {
                WaitEnd::Granted(locks) => self.granted(slot, &locks),
                WaitEnd::Deadlock(_) => self.die(slot),
            }
        }
    }

    fn granted(&mut self, slot: usize, locks: &[HeldLock]) {
        let asked = self.slots[slot].waits.take().expect("it asked");
        let keys: BTreeSet<_> = asked.wants.iter().map(|(key, _)| key).collect();
        assert!(locks.iter().map(|lock| &lock.key).eq(keys), "all of it, and nothing else");
        for (key, mode) in &asked.wants {
            let got = locks.iter().find(|lock| lock.key == *key).unwrap();
            assert!(got.mode >= *mode);
        }
        let fresh = locks.iter().filter(|lock| {
            let before = asked.before.iter().find(|it| it.key == lock.key);
            before != Some(lock)
        });
        let fresh: Vec<_> = fresh.collect();
        for lock in &fresh {
            let newest = self.tokens.entry((lock.key.clone(), lock.mode)).or_default();
            *newest = lock.token.max(*newest);
            let other = match lock.mode {
                LockMode::Shared => LockMode::Exclusive,
                LockMode::Exclusive => LockMode::Shared,
            };
            let before = self.tokens.get(&(lock.key.clone(), other));
            assert!(before.is_none_or(|before| *before < lock.token), "tokens grow: {lock:?}");
        }

        // Nobody was overtaken, but by an upgrade or, under wait-die, an elder.
        let me = self.slots[slot].clone();
        for other in &self.slots {
            let Some(waiting) = other.waits.as_ref().filter(|it| it.number < asked.number) else {
                continue;
            };
            for lock in &fresh {
                let wanted = waiting.wants.iter().filter(|(key, _)| *key == lock.key);
                let conflict = wanted.clone().any(|(_, mode)| mode.conflicts(lock.mode));
                let by_age = self.locks.policy == Deadlocks::WaitDie
                    && !asked.before.is_empty()
                    && (me.age, me.id) < (other.age, other.id)
                    && waiting.before.is_empty();
                let upgrade = asked.before.iter().any(|it| it.key == lock.key);
                assert!(!conflict || upgrade || by_age, "{me:?} overtook {other:?} at {lock:?}");
            }
        }
    }

    fn end(&mut self, slot: usize) {
        let next = self.next;
        self.next += 1;
        let ended =
            std::mem::replace(&mut self.slots[slot], Slot { id: next, age: next, waits: None });
        self.locks.release_all(NOW, owner(ended.id));
    }

    /// Gives up, and is there again with the same age.
    fn die(&mut self, slot: usize) {
        let age = self.slots[slot].age;
        self.end(slot);
        self.slots[slot].age = age;
    }

    fn check(&self) {
        let locks = &self.locks;
        let (mut held, mut wanted) = (0, 0);
        let mut edges = BTreeMap::<Client, Vec<Client>>::new();
        for (name, key) in &locks.keys {
            let holders: Vec<_> = key.holders.iter().collect();
            held += holders.len();
            wanted += key.waiting_count();
            assert!(!key.is_unused(), "'{name}' is left over");
            let alone = holders.iter().any(|(_, lock)| lock.mode == LockMode::Exclusive);
            assert!(!alone || holders.len() == 1, "'{name}': {holders:?}");
        }
        assert_eq!((held, wanted), (locks.held, locks.wanted));
        let waiting: Vec<_> = locks.owners.iter().filter(|(_, it)| it.waits.is_some()).collect();
        assert_eq!(waiting.len(), locks.figures.waiting);
        let waiting_slots = self.slots.iter().filter(|slot| slot.waits.is_some()).count();
        assert_eq!(waiting.len(), waiting_slots);
        for (owner, known) in waiting {
            let request = known.waits.as_ref().unwrap();
            let stuck = &request.wants[request.stuck];
            assert!(!locks.is_open(*owner, stuck), "{owner} waits for nothing");
            let bound = request.wants.iter().any(|want| want.rank() != Rank::Newcomer);
            for want in &request.wants {
                for (by, _) in blockers(&locks.keys[&want.key], *owner, want) {
                    edges.entry(*owner).or_default().push(by);
                    if locks.policy == Deadlocks::WaitDie && bound {
                        let other = &locks.owners[&by];
                        assert!((other.age, by) > (known.age, *owner), "{owner} waits for {by}");
                        let is_bound = |want: &Want| want.rank() != Rank::Newcomer;
                        let waits = other.waits.as_ref();
                        assert!(waits.is_none_or(|it| it.wants.iter().any(is_bound)));
                    }
                }
            }
        }
        // Takes away those that wait for nobody who waits, until none is left.
        while !edges.is_empty() {
            let free = |owner: &Client| edges[owner].iter().all(|by| !edges.contains_key(by));
            let Some(free) = edges.keys().copied().find(free) else { panic!("a cycle: {edges:?}") };
            edges.remove(&free);
        }
    }

    fn finish(mut self) {
        while let Some(slot) = (0..self.slots.len()).find(|slot| {
            let slot = &self.slots[*slot];
            slot.waits.is_none() && self.locks.owners.contains_key(&owner(slot.id))
        }) {
            self.end(slot);
            self.take_all();
            self.check();
        }
        assert!(self.locks.is_empty(), "{:?}", self.locks);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn no_cycle_persists_nobody_is_overtaken_and_nothing_is_left(
        detect in any::<bool>(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let policy = if detect { Deadlocks::Detect } else { Deadlocks::WaitDie };
        let mut schedule = Schedule::new(policy);
        ops.into_iter().for_each(|op| schedule.perform(op));
        schedule.finish();
    }
}
