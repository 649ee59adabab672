//! Who may wait for whom.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};

use dtc_protocol::TransactionId;

use super::{
    Blocked, Deadlocks, LockMode, LockOwner, Locks, Want,
    key::{Key, Rank},
};
use crate::Time;

impl Locks {
    /// Who is older: the smaller age, and of one age the smaller id.
    fn is_elder(&self, one: LockOwner, age: TransactionId, owner: LockOwner) -> bool {
        self.owners.get(&one).is_some_and(|known| (known.age, one) < (age, owner))
    }

    fn blocked_by(&self, key: &super::LockKey, by: LockOwner, holds: bool) -> Blocked {
        Blocked { key: key.clone(), by, holds, policy: self.policy }
    }

    /// Wait-die: one that holds locks goes before those that hold nothing, and so
    /// has to be older than each that it would keep waiting.
    pub(super) fn overtakes_an_elder(
        &self,
        owner: LockOwner,
        age: TransactionId,
        wants: &[Want],
    ) -> Option<Blocked> {
        if self.policy != Deadlocks::WaitDie {
            return None;
        }
        let mut holders = wants.iter().filter(|want| want.place.rank == Rank::Holder);
        holders.find_map(|want| {
            let waiting = self.keys.get(&want.key)?.waiting().rev();
            let newcomers = waiting.take_while(|(place, ..)| place.rank == Rank::Newcomer);
            let mut elders = newcomers
                .filter(|(.., mode)| mode.conflicts(want.mode))
                .filter(|(_, one, _)| self.is_elder(*one, age, owner));
            elders.next().map(|(_, one, _)| self.blocked_by(&want.key, one, false))
        })
    }

    /// Wait-die: one that holds locks waits for younger ones only.
    pub(super) fn waits_for_an_elder(
        &self,
        owner: LockOwner,
        age: TransactionId,
        wants: &[Want],
    ) -> Option<Blocked> {
        let is_bound = wants.iter().any(|want| want.place.rank != Rank::Newcomer);
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
    pub(super) fn refuse_younger_behind(
        &mut self,
        now: Time,
        owner: LockOwner,
        age: TransactionId,
        upgrades: &[Want],
    ) {
        if self.policy != Deadlocks::WaitDie {
            return;
        }
        let mut refused = Vec::new();
        for want in upgrades {
            let Some(key) = self.keys.get(&want.key) else { continue };
            let bound = key.waiting().take_while(|(place, ..)| place.rank != Rank::Newcomer);
            let behind = bound.filter(|(place, ..)| *place > want.place);
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
    pub(super) fn break_cycles(&mut self, now: Time, owner: LockOwner) -> Option<Blocked> {
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
    fn cycle_through(&self, start: LockOwner) -> Option<Vec<LockOwner>> {
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
    fn waits_for(&self, owner: LockOwner) -> Vec<LockOwner> {
        let mut all = Vec::new();
        let request = self.owners.get(&owner).and_then(|known| known.waits.as_ref());
        for want in request.into_iter().flat_map(|request| &request.wants) {
            let Some(key) = self.keys.get(&want.key) else { continue };
            let nearest = key.exclusive_before(want.place);
            if want.mode == LockMode::Exclusive {
                let sharing = key.waiting_before(want.place);
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

    /// Who is in the way of a request that waits.
    pub(super) fn blocked(&self, owner: LockOwner) -> Option<Blocked> {
        let request = self.owners.get(&owner)?.waits.as_ref()?;
        let want = &request.wants[request.stuck];
        let (by, holds) = blockers(self.keys.get(&want.key)?, owner, want).next()?;
        Some(self.blocked_by(&want.key, by, holds))
    }

    /// Where one is in the way of another.
    fn blocked_by_in(&self, owner: LockOwner, by: LockOwner) -> Option<Blocked> {
        let request = self.owners.get(&owner)?.waits.as_ref()?;
        request.wants.iter().find_map(|want| {
            let key = self.keys.get(&want.key)?;
            let (_, holds) = blockers(key, owner, want).find(|(one, _)| *one == by)?;
            Some(self.blocked_by(&want.key, by, holds))
        })
    }
}

fn holders_in_the_way(
    key: &Key,
    owner: LockOwner,
    mode: LockMode,
) -> impl Iterator<Item = LockOwner> {
    let others = key.holders.iter().filter(move |(holder, _)| *holder != owner);
    others.filter(move |(_, lock)| lock.mode.conflicts(mode)).map(|(holder, _)| holder)
}

/// Everybody that a request waits for at a key, and whether they hold it.
pub(super) fn blockers(
    key: &Key,
    owner: LockOwner,
    want: &Want,
) -> impl Iterator<Item = (LockOwner, bool)> {
    let mode = want.mode;
    let holders = holders_in_the_way(key, owner, mode).map(|holder| (holder, true));
    let before = key.waiting_before(want.place).filter(move |(_, other)| other.conflicts(mode));
    holders.chain(before.map(|(one, _)| (one, false)))
}
