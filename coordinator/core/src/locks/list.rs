//! Locks as they may be shown.

use alloc::{collections::BTreeSet, vec::Vec};
use core::ops::Bound;

use super::{LockKey, LockMode, LockOwner, Locks, deadlock::blockers};
use crate::Time;

/// Holders, and waiting owners, that one key is shown with.
const SHOWN: usize = 100;
/// Owners that one is shown to wait for.
const SHOWN_BLOCKERS: usize = 8;

/// A key that is held or waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockView {
    /// The key.
    pub key: LockKey,
    /// Who holds it; the first of them, where there are very many.
    pub holders: Vec<LockHolder>,
    /// How many do.
    pub holder_count: usize,
    /// Who waits for it, in their order; the first of them.
    pub waiters: Vec<LockWaiter>,
    /// How many do.
    pub waiter_count: usize,
}

/// One that holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockHolder {
    /// Who.
    pub owner: LockOwner,
    /// How.
    pub mode: LockMode,
    /// Its fencing token.
    pub token: u64,
    /// Since when; since the start of this run, where it was held before.
    pub since: Time,
}

/// One that waits for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWaiter {
    /// Who.
    pub owner: LockOwner,
    /// How it wants it.
    pub mode: LockMode,
    /// Since when.
    pub since: Time,
    /// For whom, at this key; the first of them. None where it waits for another
    /// key of its request only.
    pub waits_for: Vec<LockOwner>,
}

impl Locks {
    /// Keys after `after` with this prefix, that this owner holds or waits for.
    pub(crate) fn list(
        &self,
        prefix: &str,
        owner: Option<LockOwner>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<LockView> {
        if let Some(owner) = owner {
            let keys = self.keys_of(owner);
            let wanted = |key: &&LockKey| {
                key.starts_with(prefix) && after.is_none_or(|after| &***key > after)
            };
            return keys.into_iter().filter(wanted).take(limit).map(|key| self.view(key)).collect();
        }
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let keys = self.keys.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| key);
        let keys = keys.take_while(|key| key.starts_with(prefix)).take(limit);
        keys.map(|key| self.view(key)).collect()
    }

    fn keys_of(&self, owner: LockOwner) -> BTreeSet<&LockKey> {
        let known = self.owners.get(&owner);
        let request = known.and_then(|known| known.waits.as_ref());
        let wanted = request.into_iter().flat_map(|request| &request.wants);
        let held = known.into_iter().flat_map(|known| &known.held);
        held.chain(wanted.map(|want| &want.key)).collect()
    }

    fn view(&self, name: &LockKey) -> LockView {
        let key = &self.keys[name];
        let holders = key.holders.iter().take(SHOWN).map(|(owner, lock)| LockHolder {
            owner,
            mode: lock.mode,
            token: lock.token,
            since: lock.since,
        });
        let waiters = key.waiting().take(SHOWN).filter_map(|(place, owner, mode)| {
            let request = self.owners.get(&owner)?.waits.as_ref()?;
            let found = request.wants.binary_search_by(|want| want.key.cmp(name)).ok()?;
            let want = request.wants.get(found).filter(|want| want.place == place)?;
            let waits_for = blockers(key, owner, want).map(|(one, _)| one);
            let waits_for = waits_for.take(SHOWN_BLOCKERS).collect();
            Some(LockWaiter { owner, mode, since: request.since, waits_for })
        });
        LockView {
            key: name.clone(),
            holders: holders.collect(),
            holder_count: key.holders.len(),
            waiters: waiters.collect(),
            waiter_count: key.waiting_count(),
        }
    }
}
