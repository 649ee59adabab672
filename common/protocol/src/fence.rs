//! The fence: a coordinator that was replaced is refused.
//!
//! Invariants:
//! - The highest epoch seen of a coordinator never falls.
//! - Of one epoch, only the incarnation that was seen first is admitted. (A
//!   copied data folder starts with an epoch that the original reached too.)

use crate::Incarnation;

/// The run of a coordinator that a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Raised durably at every start.
    pub epoch: u64,
    /// Drawn at every start.
    pub incarnation: Incarnation,
}

/// What a participant does with a message, by the run that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The run that is known: go on.
    Current,
    /// A newer run: keep it durably before anything is answered, then go on.
    Newer,
    /// An older run, or another incarnation of the same epoch: refuse.
    Stale,
}

/// Whether a message of the run `presented` may pass, where `highest` is the
/// newest run seen of its coordinator.
pub fn admit(highest: Option<&Run>, presented: &Run) -> Admission {
    #[cfg(feature = "mutants")]
    if let Some(admission) = crate::planted::admit(highest, presented) {
        return admission;
    }
    match highest {
        None => Admission::Newer,
        Some(highest) if presented == highest => Admission::Current,
        Some(highest) if presented.epoch > highest.epoch => Admission::Newer,
        Some(_) => Admission::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(epoch: u64, incarnation: u8) -> Run {
        Run { epoch, incarnation: Incarnation::from_bytes([incarnation; 16]) }
    }

    #[test]
    fn the_newest_run_is_admitted_and_older_ones_are_not() {
        assert_eq!(admit(None, &run(1, 1)), Admission::Newer);
        assert_eq!(admit(Some(&run(1, 1)), &run(1, 1)), Admission::Current);
        assert_eq!(admit(Some(&run(1, 1)), &run(2, 2)), Admission::Newer);
        assert_eq!(admit(Some(&run(2, 2)), &run(1, 1)), Admission::Stale);
    }

    #[test]
    fn another_incarnation_of_the_same_epoch_is_stale() {
        assert_eq!(admit(Some(&run(2, 2)), &run(2, 3)), Admission::Stale);
    }
}
