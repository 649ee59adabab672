//! Locks as they may be shown.

use alloc::{collections::BTreeSet, vec::Vec};
use core::ops::Bound;

use dtc_protocol::Time;

use super::{LockKey, LockMode, Locks, Owner, deadlock::blockers};

/// Holders, and waiting owners, that one key is shown with.
const SHOWN: usize = 100;
/// Owners that one is shown to wait for.
const SHOWN_BLOCKERS: usize = 8;

/// A key that is held or waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockView<O> {
    /// The key.
    pub key: LockKey,
    /// Who holds it; the first of them, where there are very many.
    pub holders: Vec<LockHolder<O>>,
    /// How many do.
    pub holder_count: usize,
    /// Who waits for it, in their order; the first of them.
    pub waiters: Vec<LockWaiter<O>>,
    /// How many do.
    pub waiter_count: usize,
}

/// One that holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockHolder<O> {
    /// The owner.
    pub owner: O,
    /// Shared or exclusive.
    pub mode: LockMode,
    /// Its fencing token.
    pub token: u64,
    /// Since when; since the start of this run, where it was held before.
    pub since: Time,
}

/// One that waits for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWaiter<O> {
    /// The owner.
    pub owner: O,
    /// How it wants it.
    pub mode: LockMode,
    /// Since when.
    pub since: Time,
    /// For whom, at this key; the first of them. None where it waits for another
    /// key of its request only.
    pub waits_for: Vec<O>,
}

impl<O: Owner> Locks<O> {
    /// Keys after `after` with this prefix, that this owner holds or waits for.
    pub fn list(
        &self,
        prefix: &str,
        owner: Option<O>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<LockView<O>> {
        if let Some(owner) = owner {
            let keys: BTreeSet<_> = self.keys_of(owner).into_iter().flatten().collect();
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

    fn view(&self, name: &LockKey) -> LockView<O> {
        let key = &self.keys[name];
        let holders = key.holders.iter().take(SHOWN).map(|(owner, lock)| LockHolder {
            owner,
            mode: lock.mode,
            token: lock.token,
            since: lock.since,
        });
        let waiters = key.waiting().take(SHOWN).filter_map(|(place, owner, mode)| {
            let request = self.owners.get(&owner)?.waits.as_ref()?;
            let want = request.want_at(name).filter(|want| want.place == place)?;
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
