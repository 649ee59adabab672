//! Of which transactions a coordinator has said that they have ended.
//!
//! Invariants:
//! - Exceptions are in order, apart from each other, and begin before the end of what
//!   has ended.

use std::{cmp::Ordering, ops::RangeInclusive};

use dtc_protocol::TransactionId;

/// All transactions before `before` have ended, except some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    before: TransactionId,
    except: Vec<RangeInclusive<TransactionId>>,
}

impl Ended {
    /// Exceptions may be in any order, and have transactions in common.
    pub(crate) fn new(
        before: TransactionId,
        mut except: Vec<RangeInclusive<TransactionId>>,
    ) -> Self {
        except.retain(|range| !range.is_empty() && *range.start() < before);
        except.sort_unstable_by_key(|range| *range.start());
        except.dedup_by(|next, range| {
            let meets = next.start() <= range.end();
            if meets && next.end() > range.end() {
                *range = *range.start()..=*next.end();
            }
            meets
        });
        Self { before, except }
    }

    pub(crate) fn before(&self) -> TransactionId {
        self.before
    }

    /// Whether a transaction is among them.
    pub(crate) fn has(&self, id: &TransactionId) -> bool {
        let excepted = || {
            let found = self.except.binary_search_by(|range| match range.contains(id) {
                true => Ordering::Equal,
                false => range.start().cmp(id),
            });
            found.is_ok()
        };
        *id < self.before && !excepted()
    }

    /// What has ended by both words.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let except = self.except.iter().chain(&other.except).cloned().collect();
        Self::new(self.before.min(other.before), except)
    }

    /// What has ended by one word or the other.
    pub(crate) fn or(&self, other: &Self) -> Self {
        const LAST: TransactionId = TransactionId::from_bytes([u8::MAX; 16]);
        let all = |it: &Self| {
            let mut all = it.except.clone();
            all.push(it.before..=LAST);
            all
        };
        let before = self.before.max(other.before);
        let mut except = Vec::new();
        for mine in all(self) {
            for its in all(other) {
                let first = *mine.start().max(its.start());
                except.push(first..=*mine.end().min(its.end()));
            }
        }
        Self::new(before, except)
    }

    /// The exceptions as bytes, 32 for each.
    pub(crate) fn except_bytes(&self) -> Vec<u8> {
        let ends = self.except.iter().flat_map(|it| [it.start(), it.end()]);
        ends.flat_map(TransactionId::as_bytes).copied().collect()
    }

    /// From [`Self::except_bytes`].
    pub(crate) fn from_bytes(before: TransactionId, except: &[u8]) -> Self {
        Self::new(before, except.chunks_exact(32).filter_map(range).collect())
    }
}

/// An exception as it travels: 16 bytes for one transaction, 32 for a range.
pub(crate) fn range(bytes: &[u8]) -> Option<RangeInclusive<TransactionId>> {
    let (first, last) = match bytes.len() {
        16 => (bytes, bytes),
        _ => bytes.split_at_checked(16)?,
    };
    Some(TransactionId::from_slice(first)?..=TransactionId::from_slice(last)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> TransactionId {
        let mut bytes = [0; 16];
        bytes[0] = number;
        TransactionId::from_bytes(bytes)
    }

    fn any_ended() -> impl Strategy<Value = Ended> {
        let range = (0..20_u8, 0..20_u8).prop_map(|(first, last)| id(first)..=id(last));
        (0..20_u8, proptest::collection::vec(range, 0..5))
            .prop_map(|(before, except)| Ended::new(id(before), except))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_words_and_either(one in any_ended(), other in any_ended()) {
            let (and, or) = (one.and(&other), one.or(&other));
            for number in 0..25 {
                let id = id(number);
                prop_assert_eq!(and.has(&id), one.has(&id) && other.has(&id), "{}", number);
                prop_assert_eq!(or.has(&id), one.has(&id) || other.has(&id), "{}", number);
            }
            prop_assert_eq!(Ended::from_bytes(or.before, &or.except_bytes()), or);
        }
    }

    #[test]
    fn an_exception_is_one_transaction_or_a_range() {
        let (one, two) = (id(1), id(2));
        assert_eq!(range(one.as_bytes()), Some(one..=one));
        assert_eq!(range(&[*one.as_bytes(), *two.as_bytes()].concat()), Some(one..=two));
        for length in [0, 15, 17, 31, 33] {
            assert_eq!(range(&vec![1; length]), None);
        }
    }
}
