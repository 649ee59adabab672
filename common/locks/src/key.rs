//! One key: who holds it and who waits for it.
//!
//! Invariants:
//! - The waiting requests to which the key is open are the first of its queue.
//! - Who is stuck here waits here.
//! - Siblings that wait here have one turn.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
};

use dtc_protocol::Time;

use super::{LockMode, Owner};

/// Where a request stands in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) turn: Turn,
    /// Of siblings, which came first.
    pub(crate) sibling: u32,
}

/// By rank, and within a rank by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) rank: Rank,
    pub(crate) number: u64,
}

/// Who goes before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Holds the key and wants it alone, or has a sibling that holds it.
    Upgrade,
    /// Wait-die: holds other locks.
    Holder,
    /// All others.
    Newcomer,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) mode: LockMode,
    pub(crate) token: u64,
    pub(crate) since: Time,
}

/// Most keys have one holder, who needs no tree.
#[derive(Debug, Clone, Default)]
pub(crate) enum Holders<O> {
    #[default]
    None,
    One(O, Holder),
    Many {
        all: BTreeMap<O, Holder>,
        /// How many of them hold it alone, beside their siblings.
        exclusive: usize,
    },
}

impl<O: Owner> Holders<O> {
    pub(crate) fn get(&self, owner: O) -> Option<Holder> {
        match self {
            Self::One(holder, lock) if *holder == owner => Some(*lock),
            Self::Many { all, .. } => all.get(&owner).copied(),
            _ => None,
        }
    }

    /// Whether the owner or a sibling of it is among them.
    pub(crate) fn has_sibling(&self, owner: O) -> bool {
        match self {
            Self::None => false,
            Self::One(holder, _) => owner.siblings().contains(holder),
            Self::Many { all, .. } => all.range(owner.siblings()).next().is_some(),
        }
    }

    pub(crate) fn insert(&mut self, owner: O, lock: Holder) {
        match self {
            Self::None => *self = Self::One(owner, lock),
            Self::One(holder, _) if *holder == owner => *self = Self::One(owner, lock),
            Self::One(holder, first) => {
                let exclusive = first.alone() + lock.alone();
                *self = Self::Many { all: [(*holder, *first), (owner, lock)].into(), exclusive };
            }
            Self::Many { all, exclusive } => {
                *exclusive += lock.alone();
                *exclusive -= all.insert(owner, lock).map_or(0, Holder::alone);
            }
        }
    }

    pub(crate) fn remove(&mut self, owner: O) {
        match self {
            Self::One(holder, _) if *holder == owner => *self = Self::None,
            Self::Many { all, exclusive } => {
                *exclusive -= all.remove(&owner).map_or(0, Holder::alone);
                if let (1, Some((&last, &lock))) = (all.len(), all.first_key_value()) {
                    *self = Self::One(last, lock);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (O, Holder)> {
        let one = match self {
            Self::One(owner, lock) => Some((*owner, *lock)),
            _ => None,
        };
        let many = match self {
            Self::Many { all, .. } => Some(all),
            _ => None,
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(owner, lock)| (*owner, *lock)))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many { all, .. } => all.len(),
        }
    }

    /// Whether the owner could hold the key beside all the others.
    fn let_in(&self, owner: O, mode: LockMode) -> bool {
        let siblings = owner.siblings();
        match self {
            Self::None => true,
            Self::One(holder, lock) => siblings.contains(holder) || !lock.mode.conflicts(mode),
            Self::Many { exclusive: 0, .. } if mode == LockMode::Shared => true,
            // Siblings are neighbours.
            Self::Many { all, .. } => [all.first_key_value(), all.last_key_value()]
                .iter()
                .flatten()
                .all(|(holder, _)| siblings.contains(holder)),
        }
    }
}

impl Holder {
    fn alone(self) -> usize {
        usize::from(self.mode == LockMode::Exclusive)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Key<O> {
    pub(crate) holders: Holders<O>,
    /// Most keys are waited for by nobody.
    queue: Option<Box<Queue<O>>>,
}

#[derive(Debug, Clone)]
struct Queue<O> {
    all: BTreeMap<Place, (O, LockMode)>,
    exclusive: BTreeSet<Place>,
    stuck: BTreeSet<Place>,
}

impl<O> Default for Key<O> {
    fn default() -> Self {
        Self { holders: Holders::None, queue: None }
    }
}

impl<O> Default for Queue<O> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), exclusive: BTreeSet::new(), stuck: BTreeSet::new() }
    }
}

impl<O: Owner> Key<O> {
    pub(crate) fn is_unused(&self) -> bool {
        self.holders.len() == 0 && self.queue.is_none()
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether nothing that a request at this place conflicts with holds the key or
    /// stands before it.
    pub(crate) fn is_open(&self, owner: O, mode: LockMode, place: Place) -> bool {
        let first = match (&self.queue, mode) {
            (None, _) => None,
            (Some(queue), LockMode::Shared) => queue.exclusive.first(),
            (Some(queue), LockMode::Exclusive) => queue.all.keys().next(),
        };
        first.is_none_or(|first| first.turn >= place.turn) && self.holders.let_in(owner, mode)
    }

    pub(crate) fn enqueue(&mut self, place: Place, owner: O, mode: LockMode, is_stuck: bool) {
        let queue = self.queue.get_or_insert_default();
        queue.all.insert(place, (owner, mode));
        if mode == LockMode::Exclusive {
            queue.exclusive.insert(place);
        }
        if is_stuck {
            queue.stuck.insert(place);
        }
    }

    pub(crate) fn dequeue(&mut self, place: Place) {
        if let Some(queue) = &mut self.queue {
            queue.all.remove(&place);
            queue.exclusive.remove(&place);
            queue.stuck.remove(&place);
            if queue.all.is_empty() {
                self.queue = None;
            }
        }
    }

    pub(crate) fn set_stuck(&mut self, place: Place, is_stuck: bool) {
        if let Some(queue) = &mut self.queue {
            match is_stuck {
                true => queue.stuck.insert(place),
                false => queue.stuck.remove(&place),
            };
        }
    }

    /// The first of those whose turn it is among the stuck, if the key is open to it.
    pub(crate) fn first_freed(&self) -> Option<O> {
        let queue = self.queue.as_ref()?;
        let turn = queue.stuck.first()?.turn;
        let mut next = queue.stuck.iter().take_while(|place| place.turn == turn);
        next.find_map(|place| {
            let (owner, mode) = queue.all[place];
            self.is_open(owner, mode, *place).then_some(owner)
        })
    }

    /// Those that wait, in their order.
    pub(crate) fn waiting(&self) -> impl DoubleEndedIterator<Item = (Place, O, LockMode)> {
        let all = self.queue.iter().flat_map(|queue| &queue.all);
        all.map(|(place, (owner, mode))| (*place, *owner, *mode))
    }

    /// Those that wait before a turn, the nearest first.
    pub(crate) fn waiting_before(&self, turn: Turn) -> impl Iterator<Item = (O, LockMode)> {
        let before = ..Place { turn, sibling: 0 };
        let queue = self.queue.as_ref();
        queue.into_iter().flat_map(move |queue| queue.all.range(before).rev().map(|(_, it)| *it))
    }

    /// The nearest before a turn that wants the key alone.
    pub(crate) fn exclusive_before(&self, turn: Turn) -> Option<O> {
        let queue = self.queue.as_ref()?;
        let mut before = queue.exclusive.range(..Place { turn, sibling: 0 });
        before.next_back().map(|place| queue.all[place].0)
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.all.len())
    }
}
