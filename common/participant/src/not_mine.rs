//! Branches in doubt whose coordinator does not know the run that prepared them: reported
//! until somebody decides them.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dtc_protocol::BranchId;

use crate::metrics::Metrics;

#[derive(Default)]
pub(crate) struct NotMine(Mutex<HashSet<BranchId>>);

impl NotMine {
    fn lock(&self) -> MutexGuard<'_, HashSet<BranchId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes branches that nobody decides, until somebody does.
    pub(crate) fn note(&self, branches: &[BranchId], metrics: &Metrics) {
        for branch in branches {
            tracing::warn!(
                transaction = %branch.transaction, branch = branch.number,
                coordinator = %branch.coordinator,
                "not mine: the coordinator does not know the run that prepared the branch, which stays in doubt"
            );
        }
        let mut noted = self.lock();
        noted.extend(branches);
        metrics.not_mine.set(noted.len().cast_signed() as i64);
    }

    /// Forgets what was noted of branches that are not among the undecided ones.
    pub(crate) fn keep(&self, undecided: &HashSet<BranchId>, metrics: &Metrics) {
        let mut noted = self.lock();
        noted.retain(|branch| undecided.contains(branch));
        metrics.not_mine.set(noted.len().cast_signed() as i64);
    }

    /// Whether nobody who was asked knows the run that prepared a branch.
    pub(crate) fn has(&self, branch: &BranchId) -> bool {
        self.lock().contains(branch)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
