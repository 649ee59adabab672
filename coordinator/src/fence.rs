//! Being replaced: a newer run of this coordinator was seen at a participant.

use std::str::FromStr;

use common::fence::Run;
use tonic::Status;

/// Metadata in which a participant says the newest epoch that it knows.
const EPOCH: &str = "dtc-epoch";

/// If a participant refused this run for a newer one: the epoch that it knows.
pub(crate) fn newer_epoch(status: &Status, own: &Run) -> Option<u64> {
    if status.code() != tonic::Code::FailedPrecondition {
        return None;
    }
    let known = u64::from_str(status.metadata().get(EPOCH)?.to_str().ok()?).ok()?;
    (known >= own.epoch).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Incarnation;

    #[test]
    fn only_a_refusal_that_names_an_epoch_not_below_the_own_one_counts() {
        let own = Run { epoch: 3, incarnation: Incarnation::from_bytes([1; 16]) };
        let refusal = |epoch: &str| {
            let mut status = Status::failed_precondition("stale");
            status.metadata_mut().insert(EPOCH, epoch.parse().unwrap());
            status
        };
        assert_eq!(newer_epoch(&refusal("4"), &own), Some(4));
        assert_eq!(newer_epoch(&refusal("3"), &own), Some(3));
        assert_eq!(newer_epoch(&refusal("2"), &own), None);
        assert_eq!(newer_epoch(&refusal("soon"), &own), None);
        assert_eq!(newer_epoch(&Status::failed_precondition("other"), &own), None);
    }
}
