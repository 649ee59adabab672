//! Who holds locks or waits for them.

use core::{fmt, ops::RangeInclusive};

use dtc_protocol::BranchId;

/// Who holds locks or waits for them. Of two of one age, the smaller counts as older.
pub trait Owner: Copy + Ord + fmt::Debug {
    /// Whether an owner, or a sibling of it, may hold locks that this manager does not see.
    /// Wait-die then binds its first request too.
    const HOLDS_ELSEWHERE: bool = false;

    /// The owners that share their locks with this one: none of them is in the way of another.
    fn siblings(self) -> RangeInclusive<Self> {
        self..=self
    }
}

/// The branches of a transaction share their locks, and it may have others at other
/// participants.
impl Owner for BranchId {
    const HOLDS_ELSEWHERE: bool = true;

    fn siblings(self) -> RangeInclusive<Self> {
        Self { number: 0, ..self }..=Self { number: u32::MAX, ..self }
    }
}
