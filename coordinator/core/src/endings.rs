//! What participants may forget.
//!
//! Invariants:
//! - A participant is its journal, under whatever names: a transaction counts for every
//!   journal that has, or may have, a branch of it.
//! - What may yet get a branch anywhere, or has one at a journal that is not known,
//!   counts for all.
//! - What is reported is bounded, and no old transaction, however long it stays
//!   unfinished, holds back more than its neighbours.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::RangeInclusive;

use dtc_protocol::{JournalId, TransactionId};

use crate::ParticipantId;

/// How many ranges of transactions may be named as exceptions.
const MAX_EXCEPTIONS: usize = 64;
/// How many journals are distinguished beside the present ones; work at any others counts
/// for all.
const MAX_JOURNALS: usize = 256;

/// Up to where a participant may forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// All transactions before this one have ended,
    pub before: TransactionId,
    /// except these, in order.
    pub except: Vec<RangeInclusive<TransactionId>>,
}

/// What is unfinished at one moment, by the journals that may have it.
#[derive(Debug)]
pub struct Endings {
    old: TransactionId,
    next: TransactionId,
    anywhere: Unfinished,
    at: BTreeMap<JournalId, Unfinished>,
    journals: BTreeMap<ParticipantId, JournalId>,
}

/// Old ones, and the first of the younger ones.
#[derive(Debug, Default)]
struct Unfinished {
    old: Vec<TransactionId>,
    first_young: Option<TransactionId>,
}

impl Unfinished {
    fn add(&mut self, id: TransactionId, old: TransactionId) {
        if id < old {
            self.old.push(id);
        } else {
            self.first_young = Some(self.first_young.map_or(id, |first| first.min(id)));
        }
    }

    fn add_all(&mut self, ids: &BTreeSet<TransactionId>, old: TransactionId) {
        self.old.extend(ids.range(..old));
        if let Some(first) = ids.range(old..).next() {
            self.add(*first, old);
        }
    }
}

impl Endings {
    /// With nothing unfinished. Transactions from `old` on are never named as
    /// exceptions; `next` is greater than all ids given out.
    pub(crate) fn new(old: TransactionId, next: TransactionId) -> Self {
        let (at, journals) = (BTreeMap::new(), BTreeMap::new());
        Self { old, next, anywhere: Unfinished::default(), at, journals }
    }

    /// A participant that is linked, and the journal that it reported.
    pub(crate) fn linked(&mut self, participant: ParticipantId, journal: JournalId) {
        self.journals.insert(participant, journal);
    }

    pub(crate) fn add_anywhere(&mut self, id: TransactionId) {
        self.anywhere.add(id, self.old);
    }

    pub(crate) fn add_at(&mut self, journal: JournalId, id: TransactionId) {
        self.at.entry(journal).or_default().add(id, self.old);
    }

    pub(crate) fn add_all_at(&mut self, journal: JournalId, ids: &BTreeSet<TransactionId>) {
        self.at.entry(journal).or_default().add_all(ids, self.old);
    }

    /// What may be reported to a participant; nothing where its journal isn't known.
    pub fn of(&self, participant: ParticipantId) -> Option<Ended> {
        let here = self.at.get(self.journals.get(&participant)?);
        let young = here.and_then(|here| here.first_young).into_iter();
        let before = young.chain(self.anywhere.first_young).min().unwrap_or(self.next);
        let mut old = self.anywhere.old.clone();
        old.extend(here.into_iter().flat_map(|here| &here.old));
        old.sort_unstable();
        old.dedup();
        Some(Ended { before, except: ranges(&old) })
    }
}

/// As many ranges as may be named, with the smallest possible gaps filled.
fn ranges(ids: &[TransactionId]) -> Vec<RangeInclusive<TransactionId>> {
    let number = |id: &TransactionId| u128::from_be_bytes(*id.as_bytes());
    let mut cuts: Vec<usize> = (1..ids.len()).collect();
    if cuts.len() >= MAX_EXCEPTIONS {
        let gap = |cut: &usize| number(&ids[cut - 1]).abs_diff(number(&ids[*cut]));
        cuts.sort_unstable_by_key(|cut| core::cmp::Reverse(gap(cut)));
        cuts.truncate(MAX_EXCEPTIONS - 1);
        cuts.sort_unstable();
    }
    let ends = cuts.iter().copied().chain([ids.len()]);
    let mut from = 0;
    let mut ranges = Vec::new();
    for end in ends.filter(|end| *end > 0) {
        ranges.push(ids[from]..=ids[end - 1]);
        from = end;
    }
    ranges
}

/// Unfinished work that is, or may be, at a journal which is not the present one of its
/// participant's name: the name has moved, or its run is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Elsewhere {
    at: BTreeMap<JournalId, BTreeSet<TransactionId>>,
    anywhere: BTreeSet<TransactionId>,
}

impl Elsewhere {
    /// Work at a journal; none where it is not known.
    pub(crate) fn add(&mut self, journal: Option<JournalId>, id: TransactionId) {
        let known = journal.filter(|it| self.at.len() < MAX_JOURNALS || self.at.contains_key(it));
        match known {
            Some(journal) => self.at.entry(journal).or_default().insert(id),
            None => self.anywhere.insert(id),
        };
    }

    pub(crate) fn forget(&mut self, id: TransactionId) {
        self.anywhere.remove(&id);
        self.at.retain(|_, ids| {
            ids.remove(&id);
            !ids.is_empty()
        });
    }

    pub(crate) fn add_to(&self, endings: &mut Endings) {
        for (journal, ids) in &self.at {
            endings.add_all_at(*journal, ids);
        }
        let old = endings.old;
        endings.anywhere.add_all(&self.anywhere, old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ParticipantId = ParticipantId(1);
    const THERE: ParticipantId = ParticipantId(2);

    fn id(number: u16) -> TransactionId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        TransactionId::from_bytes(bytes)
    }

    fn journal(number: u8) -> JournalId {
        JournalId::from_bytes([number; 16])
    }

    fn endings(old: u16) -> Endings {
        let mut endings = Endings::new(id(old), id(u16::MAX));
        endings.linked(HERE, journal(1));
        endings.linked(THERE, journal(2));
        endings
    }

    fn only(number: u16) -> RangeInclusive<TransactionId> {
        id(number)..=id(number)
    }

    #[test]
    fn a_stalled_transaction_does_not_hold_back_the_forgetting_of_younger_ones() {
        let here = BTreeSet::from([id(1), id(5), id(6)]);
        let of = |old| {
            let mut endings = endings(old);
            endings.add_all_at(journal(1), &here);
            (endings.of(HERE).unwrap(), endings.of(THERE).unwrap())
        };
        let none = Ended { before: id(u16::MAX), except: Vec::new() };
        assert_eq!(of(4), (Ended { before: id(5), except: Vec::from([only(1)]) }, none.clone()));
        assert_eq!(of(0), (Ended { before: id(1), except: Vec::new() }, none));
    }

    #[test]
    fn what_may_be_anywhere_counts_for_all() {
        let mut endings = endings(4);
        endings.add_at(journal(1), id(1));
        endings.add_anywhere(id(3));
        endings.add_anywhere(id(9));
        endings.add_at(journal(1), id(7));
        let here = Ended { before: id(7), except: Vec::from([only(1), only(3)]) };
        assert_eq!(endings.of(HERE), Some(here));
        let there = Ended { before: id(9), except: Vec::from([only(3)]) };
        assert_eq!(endings.of(THERE), Some(there));
        assert_eq!(endings.of(ParticipantId(3)), None, "its journal is not known");
    }

    #[test]
    fn what_is_not_old_is_no_exception() {
        let mut endings = endings(4);
        endings.add_at(journal(1), id(4));
        endings.add_at(journal(1), id(3));
        let here = Ended { before: id(4), except: Vec::from([only(3)]) };
        assert_eq!(endings.of(HERE), Some(here));
    }

    #[test]
    fn of_many_old_ones_the_nearest_share_a_range() {
        let mut endings = endings(60_000);
        for number in 0..1000_u16 {
            endings.add_at(journal(1), id(number));
        }
        let far: Vec<u16> = (0..63).map(|number| 2000 + 100 * number).collect();
        far.iter().for_each(|number| endings.add_at(journal(1), id(*number)));
        let Ended { before, except } = endings.of(HERE).unwrap();
        assert_eq!((before, except.len()), (id(u16::MAX), MAX_EXCEPTIONS));
        assert_eq!(except[0], id(0)..=id(999));
        assert!(except[1..].iter().zip(far).all(|(range, number)| *range == only(number)));
    }

    #[test]
    fn what_is_elsewhere_counts_until_it_is_forgotten() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.add(Some(journal(1)), id(1));
        elsewhere.add(Some(journal(1)), id(3));
        elsewhere.add(None, id(2));
        let of = |elsewhere: &Elsewhere| {
            let mut endings = endings(9);
            elsewhere.add_to(&mut endings);
            (endings.of(HERE).unwrap().except, endings.of(THERE).unwrap().except)
        };
        let here = Vec::from([only(1), only(2), only(3)]);
        assert_eq!(of(&elsewhere), (here, Vec::from([only(2)])));
        elsewhere.forget(id(1));
        elsewhere.forget(id(2));
        assert_eq!(of(&elsewhere), (Vec::from([only(3)]), Vec::new()));
        elsewhere.forget(id(3));
        assert_eq!(of(&elsewhere), (Vec::new(), Vec::new()));
    }

    #[test]
    fn too_many_journals_are_not_told_apart() {
        let mut elsewhere = Elsewhere::default();
        for number in 0..=MAX_JOURNALS {
            let mut bytes = [9; 16];
            bytes[..2].copy_from_slice(&(number as u16).to_be_bytes());
            elsewhere.add(Some(JournalId::from_bytes(bytes)), id(1));
        }
        assert_eq!(elsewhere.anywhere.len(), 1);
    }
}
