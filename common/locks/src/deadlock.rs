//! Who may wait for whom.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};

use dtc_protocol::{Time, TransactionId};

use super::{
    Blocked, Deadlocks, LockKey, LockMode, Locks, Owner,
    key::{Key, Rank},
    manager::Want,
};

impl<O: Owner> Locks<O> {
    /// Who is older: the smaller age, and of one age the smaller owner. Who is decided
    /// waits for nobody, and so is younger than all.
    fn is_elder(&self, one: O, age: TransactionId, owner: O) -> bool {
        let known = self.owners.get(&one).filter(|known| !known.is_decided);
        known.is_some_and(|known| (known.age, one) < (age, owner))
    }

    fn blocked_by(&self, key: &LockKey, by: O, holds: bool) -> Blocked<O> {
        Blocked { key: key.clone(), by, holds, policy: self.policy }
    }

    /// Wait-die: one that holds locks goes before those that hold nothing, and so
    /// has to be older than each that it would keep waiting.
    pub(crate) fn overtakes_an_elder(
        &self,
        owner: O,
        age: TransactionId,
        wants: &[Want],
    ) -> Option<Blocked<O>> {
        if self.policy != Deadlocks::WaitDie {
            return None;
        }
        let mut holders = wants.iter().filter(|want| want.rank() == Rank::Holder);
        holders.find_map(|want| {
            let waiting = self.keys.get(&want.key)?.waiting().rev();
            let newcomers = waiting.take_while(|(place, ..)| place.turn.rank == Rank::Newcomer);
            let mut elders = newcomers
                .filter(|(.., mode)| mode.conflicts(want.mode))
                .filter(|(_, one, _)| self.is_elder(*one, age, owner));
            elders.next().map(|(_, one, _)| self.blocked_by(&want.key, one, false))
        })
    }

    /// Wait-die: one that holds locks waits for younger ones only.
    pub(crate) fn waits_for_an_elder(
        &self,
        owner: O,
        age: TransactionId,
        wants: &[Want],
    ) -> Option<Blocked<O>> {
        let is_bound = wants.iter().any(|want| want.rank() != Rank::Newcomer);
        if self.policy != Deadlocks::WaitDie || !is_bound {
            return None;
        }
        wants.iter().find_map(|want| {
            let key = self.keys.get(&want.key)?;
            let mut elders =
                blockers(key, owner, want).filter(|(one, _)| self.is_elder(*one, age, owner));
            elders.next().map(|(one, holds)| self.blocked_by(&want.key, one, holds))
        })
    }

    /// Wait-die: upgrades went before others. Who holds locks and is younger may not
    /// wait for one.
    pub(crate) fn refuse_younger_behind(
        &mut self,
        now: Time,
        owner: O,
        age: TransactionId,
        upgrades: &[Want],
    ) {
        if self.policy != Deadlocks::WaitDie {
            return;
        }
        let mut refused = Vec::new();
        for want in upgrades {
            let Some(key) = self.keys.get(&want.key) else { continue };
            let bound = key.waiting().take_while(|(place, ..)| place.turn.rank != Rank::Newcomer);
            let behind = bound.filter(|(place, ..)| place.turn > want.place.turn);
            let younger = behind.filter(|(_, one, _)| !self.is_elder(*one, age, owner));
            refused
                .extend(younger.map(|(_, one, _)| (one, self.blocked_by(&want.key, owner, true))));
        }
        for (one, blocked) in refused {
            if self.is_waiting(one) {
                self.refuse(now, one, blocked);
            }
        }
    }

    /// Detection: refuses the youngest of each cycle that a new wait has closed.
    /// Returns why, when that is the new one itself.
    pub(crate) fn break_cycles(&mut self, now: Time, owner: O) -> Option<Blocked<O>> {
        // Nobody waits for one that holds nothing and came last.
        if self.owners.get(&owner).is_none_or(|known| known.held.is_empty()) {
            return None;
        }
        while let Some(cycle) = self.cycle_through(owner) {
            let youngest = cycle.iter().copied().max_by_key(|one| (self.owners[one].age, *one))?;
            let blocked = self.blocked(youngest)?;
            // The one in the cycle before it is whom it waits for in it.
            let next = cycle.iter().position(|one| *one == youngest)? + 1;
            let by = cycle[next % cycle.len()];
            let blocked = self.blocked_by_in(youngest, by).unwrap_or(blocked);
            if youngest == owner {
                self.cancel(now, owner);
                return Some(blocked);
            }
            self.refuse(now, youngest, blocked);
            if !self.is_waiting(owner) {
                return None;
            }
        }
        None
    }

    /// Owners of which each waits for the next and the last for the first.
    fn cycle_through(&self, start: O) -> Option<Vec<O>> {
        let mut came_from = BTreeMap::new();
        let mut seen = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(one) = open.pop() {
            for next in self.waits_for(one) {
                if next == start {
                    let mut cycle = vec![one];
                    while let Some(before) = cycle.last().and_then(|last| came_from.get(last)) {
                        cycle.push(*before);
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                if seen.insert(next) {
                    came_from.insert(next, one);
                    open.push(next);
                }
            }
        }
        None
    }

    /// Enough of whom an owner waits for to reach all the others from them: one that
    /// wants the key alone waits for everybody before it.
    fn waits_for(&self, owner: O) -> Vec<O> {
        let mut all = Vec::new();
        for want in self.wanted_by(owner) {
            let Some(key) = self.keys.get(&want.key) else { continue };
            let nearest = key.exclusive_before(want.place.turn);
            if want.mode == LockMode::Exclusive {
                let sharing = key.waiting_before(want.place.turn);
                let sharing = sharing.take_while(|(_, mode)| *mode == LockMode::Shared);
                all.extend(sharing.map(|(one, _)| one));
            }
            match nearest {
                Some(nearest) => all.push(nearest),
                None => all.extend(holders_in_the_way(key, owner, want.mode)),
            }
        }
        all
    }

    /// Where one is in the way of another.
    fn blocked_by_in(&self, owner: O, by: O) -> Option<Blocked<O>> {
        self.wanted_by(owner).iter().find_map(|want| {
            let key = self.keys.get(&want.key)?;
            let (_, holds) = blockers(key, owner, want).find(|(one, _)| *one == by)?;
            Some(self.blocked_by(&want.key, by, holds))
        })
    }

    /// Who is in the way of a request that waits.
    pub fn blocked(&self, owner: O) -> Option<Blocked<O>> {
        let request = self.owners.get(&owner)?.waits.as_ref()?;
        let want = &request.wants[request.stuck];
        let (by, holds) = blockers(self.keys.get(&want.key)?, owner, want).next()?;
        Some(self.blocked_by(&want.key, by, holds))
    }
}

fn holders_in_the_way<O: Owner>(key: &Key<O>, owner: O, mode: LockMode) -> impl Iterator<Item = O> {
    let others = key.holders.iter().filter(move |(one, _)| !owner.siblings().contains(one));
    others.filter(move |(_, lock)| lock.mode.conflicts(mode)).map(|(holder, _)| holder)
}

/// Everybody that a request waits for at a key, and whether they hold it.
pub(crate) fn blockers<O: Owner>(
    key: &Key<O>,
    owner: O,
    want: &Want,
) -> impl Iterator<Item = (O, bool)> {
    let mode = want.mode;
    let holders = holders_in_the_way(key, owner, mode).map(|holder| (holder, true));
    let before = key.waiting_before(want.place.turn);
    let before = before.filter(move |(_, other)| other.conflicts(mode));
    holders.chain(before.map(|(one, _)| (one, false)))
}
