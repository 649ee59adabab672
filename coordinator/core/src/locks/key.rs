//! One key: who holds it and who waits for it.
//!
//! Invariants:
//! - The waiting requests to which the key is open are the first of its queue.
//! - Who is stuck here waits here.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
};

use super::{LockMode, LockOwner};
use crate::Time;

/// Where a request stands in a queue: by rank, and within a rank by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rank: Rank,
    pub(super) number: u64,
}

/// Who goes before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Shares the key and wants it alone.
    Upgrade,
    /// Wait-die: holds other locks.
    Holder,
    /// All others.
    Newcomer,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) mode: LockMode,
    pub(super) token: u64,
    pub(super) since: Time,
}

/// Most keys have one holder, who needs no tree.
#[derive(Debug, Clone, Default)]
pub(super) enum Holders {
    #[default]
    None,
    One(LockOwner, Holder),
    Many(BTreeMap<LockOwner, Holder>),
}

impl Holders {
    pub(super) fn get(&self, owner: LockOwner) -> Option<Holder> {
        match self {
            Self::One(holder, lock) if *holder == owner => Some(*lock),
            Self::Many(all) => all.get(&owner).copied(),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, owner: LockOwner, lock: Holder) {
        match self {
            Self::None => *self = Self::One(owner, lock),
            Self::One(holder, _) if *holder == owner => *self = Self::One(owner, lock),
            Self::One(holder, first) => {
                *self = Self::Many([(*holder, *first), (owner, lock)].into());
            }
            Self::Many(all) => drop(all.insert(owner, lock)),
        }
    }

    pub(super) fn remove(&mut self, owner: LockOwner) {
        match self {
            Self::One(holder, _) if *holder == owner => *self = Self::None,
            Self::Many(all) => {
                all.remove(&owner);
                if let (1, Some((&last, &lock))) = (all.len(), all.first_key_value()) {
                    *self = Self::One(last, lock);
                }
            }
            _ => {}
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LockOwner, Holder)> {
        let one = match self {
            Self::One(owner, lock) => Some((*owner, *lock)),
            _ => None,
        };
        let many = match self {
            Self::Many(all) => Some(all),
            _ => None,
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(owner, lock)| (*owner, *lock)))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(all) => all.len(),
        }
    }

    /// Whether the owner could hold the key beside all the others.
    fn let_in(&self, owner: LockOwner, mode: LockMode) -> bool {
        match self {
            Self::None => true,
            Self::One(holder, lock) => *holder == owner || !lock.mode.conflicts(mode),
            Self::Many(_) => mode == LockMode::Shared,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Key {
    pub(super) holders: Holders,
    /// Most keys are waited for by nobody.
    queue: Option<Box<Queue>>,
}

#[derive(Debug, Clone, Default)]
struct Queue {
    all: BTreeMap<Place, (LockOwner, LockMode)>,
    exclusive: BTreeSet<Place>,
    stuck: BTreeSet<Place>,
}

impl Key {
    pub(super) fn is_unused(&self) -> bool {
        self.holders.len() == 0 && self.queue.is_none()
    }

    /// Whether nothing that a request at this place conflicts with holds the key or
    /// stands before it.
    pub(super) fn is_open(&self, owner: LockOwner, mode: LockMode, place: Place) -> bool {
        let before = match (&self.queue, mode) {
            (None, _) => None,
            (Some(queue), LockMode::Shared) => queue.exclusive.first(),
            (Some(queue), LockMode::Exclusive) => queue.all.keys().next(),
        };
        before.is_none_or(|before| *before >= place) && self.holders.let_in(owner, mode)
    }

    pub(super) fn enqueue(
        &mut self,
        place: Place,
        owner: LockOwner,
        mode: LockMode,
        is_stuck: bool,
    ) {
        let queue = self.queue.get_or_insert_default();
        queue.all.insert(place, (owner, mode));
        if mode == LockMode::Exclusive {
            queue.exclusive.insert(place);
        }
        if is_stuck {
            queue.stuck.insert(place);
        }
    }

    pub(super) fn dequeue(&mut self, place: Place) {
        if let Some(queue) = &mut self.queue {
            queue.all.remove(&place);
            queue.exclusive.remove(&place);
            queue.stuck.remove(&place);
            if queue.all.is_empty() {
                self.queue = None;
            }
        }
    }

    pub(super) fn set_stuck(&mut self, place: Place, is_stuck: bool) {
        if let Some(queue) = &mut self.queue {
            match is_stuck {
                true => queue.stuck.insert(place),
                false => queue.stuck.remove(&place),
            };
        }
    }

    /// The first of those that are stuck here, if the key is open to it.
    pub(super) fn first_freed(&self) -> Option<LockOwner> {
        let queue = self.queue.as_ref()?;
        let place = *queue.stuck.first()?;
        let (owner, mode) = queue.all[&place];
        self.is_open(owner, mode, place).then_some(owner)
    }

    /// Those that wait, in their order.
    pub(super) fn waiting(&self) -> impl DoubleEndedIterator<Item = (Place, LockOwner, LockMode)> {
        let all = self.queue.iter().flat_map(|queue| &queue.all);
        all.map(|(place, (owner, mode))| (*place, *owner, *mode))
    }

    /// Those that wait before a place, the nearest first.
    pub(super) fn waiting_before(
        &self,
        place: Place,
    ) -> impl Iterator<Item = (LockOwner, LockMode)> {
        let queue = self.queue.as_ref();
        queue.into_iter().flat_map(move |queue| queue.all.range(..place).rev().map(|(_, it)| *it))
    }

    /// The nearest before a place that wants the key alone.
    pub(super) fn exclusive_before(&self, place: Place) -> Option<LockOwner> {
        let queue = self.queue.as_ref()?;
        queue.exclusive.range(..place).next_back().map(|place| queue.all[place].0)
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.all.len())
    }
}
