//! What was promised lately, as it is in the journal: most of it is decided soon,
//! and need not be read then.
//!
//! What a batch promised that was rolled back is forgotten with all the others.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use dtc_protocol::BranchId;

/// Promises that are kept here.
const COUNT: usize = 16_384;
/// Bytes of payload and output of one of them.
const BYTES: usize = 1024;

/// What was promised of a branch.
pub(crate) struct Promise {
    pub(crate) payload: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) may_compensate: bool,
}

#[derive(Default)]
pub(crate) struct PreparedCache(Mutex<HashMap<BranchId, Promise>>);

impl PreparedCache {
    /// Keeps a promise, if there is room for it.
    pub(crate) fn keep(
        &self,
        branch: BranchId,
        (payload, output): (&[u8], &[u8]),
        may_compensate: bool,
    ) {
        let mut promises = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        promises.remove(&branch);
        if promises.len() < COUNT && payload.len() + output.len() <= BYTES {
            let (payload, output) = (payload.into(), output.into());
            promises.insert(branch, Promise { payload, output, may_compensate });
        }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A promise, which is forgotten here.
    pub(crate) fn take(&self, branch: &BranchId) -> Option<Promise> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(branch)
    }
}

#[cfg(test)]
mod tests {
    use dtc_protocol::{CoordinatorId, TransactionId};

    use super::*;

    fn branch(number: usize) -> BranchId {
        BranchId {
            coordinator: CoordinatorId::from_bytes([1; 16]),
            transaction: TransactionId::from_bytes([2; 16]),
            number: u32::try_from(number).unwrap(),
        }
    }

    fn kept(
        promises: &PreparedCache,
        payload: usize,
        output: usize,
    ) -> Option<(usize, usize, bool)> {
        promises.keep(branch(0), (&vec![1; payload], &vec![2; output]), true);
        let promise = promises.take(&branch(0))?;
        Some((promise.payload.len(), promise.output.len(), promise.may_compensate))
    }

    #[test]
    fn what_is_kept_is_there_once_and_is_small() {
        let promises = PreparedCache::default();
        assert_eq!(kept(&promises, BYTES - 24, 24), Some((BYTES - 24, 24, true)));
        assert!(promises.take(&branch(0)).is_none());
        assert_eq!(kept(&promises, BYTES - 24, 25), None);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let promises = PreparedCache::default();
        for number in 1..COUNT {
            promises.keep(branch(number), (b"p", b"o"), false);
        }
        assert_eq!(kept(&promises, 1, 1), Some((1, 1, true)));
        promises.keep(branch(COUNT), (b"p", b"o"), false);
        assert_eq!(kept(&promises, 1, 1), None);
        promises.clear();
        assert_eq!(kept(&promises, 1, 1), Some((1, 1, true)));
    }
}
