//! What was promised lately, as it is in the journal: most of it is decided soon,
//! and need not be read then.
//!
//! What a batch promised that was rolled back is forgotten with all the others.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use common::BranchId;

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
pub(crate) struct Promises(Mutex<HashMap<BranchId, Promise>>);

impl Promises {
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
