//! Counts of what the store did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of [`Statistics::batches`]: of 1 job, 2, up to 4, 8, ..., and more.
pub const BATCH_BUCKETS: usize = 14;

/// A snapshot. Counters start at 0 at each open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Batches that were committed and synced.
    pub syncs: u64,
    /// Works in them.
    pub jobs: u64,
    /// Weight of these works.
    pub weight: u64,
    /// The heaviest batch.
    pub largest_batch: u64,
    /// Batches by weight: index `i` counts those up to 2^i (and above the
    /// bound before); the last one has no upper bound.
    pub batches: [u64; BATCH_BUCKETS],
    /// Batches that SQLite rolled back before anything was promised.
    pub rolled_back: u64,
    /// Checkpoints that ran.
    pub checkpoints: u64,
    /// How often the wall clock was seen to jump, the start included.
    pub wall_clock_jumps: u64,
    /// Bytes in the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes in the file itself.
    pub file_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    jobs: AtomicU64,
    weight: AtomicU64,
    largest_batch: AtomicU64,
    batches: [AtomicU64; BATCH_BUCKETS],
    pub(crate) rolled_back: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    pub(crate) file_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn committed(&self, jobs: u64, weight: u64) {
        self.syncs.fetch_add(1, Relaxed);
        self.jobs.fetch_add(jobs, Relaxed);
        self.weight.fetch_add(weight, Relaxed);
        self.largest_batch.fetch_max(weight, Relaxed);
        self.batches[bucket(weight)].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Statistics {
        Statistics {
            syncs: self.syncs.load(Relaxed),
            jobs: self.jobs.load(Relaxed),
            weight: self.weight.load(Relaxed),
            largest_batch: self.largest_batch.load(Relaxed),
            batches: std::array::from_fn(|index| self.batches[index].load(Relaxed)),
            rolled_back: self.rolled_back.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            wall_clock_jumps: 0,
            wal_bytes: self.wal_bytes.load(Relaxed),
            file_bytes: self.file_bytes.load(Relaxed),
        }
    }
}

fn bucket(weight: u64) -> usize {
    let bits = u64::BITS - weight.saturating_sub(1).leading_zeros();
    (bits as usize).min(BATCH_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_are_bounded_by_powers_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 5, 4096].map(bucket), [0, 0, 1, 2, 2, 3, 12]);
        assert_eq!(bucket(u64::MAX), 13);
    }
}
