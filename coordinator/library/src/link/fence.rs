//! Being replaced: a participant says that it knows a newer run of this coordinator.
//!
//! Invariants:
//! - That word alone ends nobody: this run ends only where its own journal says so too
//!   (rule 24). Otherwise the participant's link is quarantined, and what is owed to it
//!   stays owed.
//! - An echo of what this run itself sent is no newer run.

use std::str::FromStr;

use dtc_core::ParticipantId;
use dtc_proto::marker::{EPOCH, FENCED, INCARNATION, marker};
use dtc_protocol::{Incarnation, fence::Run};
use tonic::Status;

use crate::{directory::LinkState, driver::Handle};

/// If a participant refused this run for a newer one: the epoch that it knows.
pub(super) fn newer_epoch(status: &Status, own: &Run) -> Option<u64> {
    if status.code() != tonic::Code::FailedPrecondition || marker(status) != Some(FENCED) {
        return None;
    }
    let text = |name| status.metadata().get(name).and_then(|it| it.to_str().ok());
    newer_run(text(EPOCH), text(INCARNATION), own)
}

/// The epoch of a run that a participant names, where that is not before this one.
pub(super) fn newer_run(epoch: Option<&str>, incarnation: Option<&str>, own: &Run) -> Option<u64> {
    let epoch = u64::from_str(epoch?).ok()?;
    let other = || incarnation.and_then(|it| it.parse::<Incarnation>().ok());
    let replaced = epoch == own.epoch && other().is_some_and(|it| it != own.incarnation);
    (epoch > own.epoch || replaced).then_some(epoch)
}

/// What a participant's word about a newer run leads to. `seen` is the epoch that it knows.
/// True where its link is quarantined; otherwise this process is ending.
pub(super) async fn accused(
    handle: &Handle,
    participant: ParticipantId,
    name: &str,
    seen: u64,
) -> bool {
    let own = handle.journal.run();
    match handle.journal.is_replaced().await {
        Ok(true) => {
            tracing::error!(
                participant = name,
                own_epoch = own.epoch,
                known_epoch = seen,
                "another run of this coordinator has taken over its journal; stopping"
            );
            handle.environment.halt(dtc_runtime::Exit::Fenced).await;
            return false;
        }
        Ok(false) => {}
        // The journal itself ends the process where it cannot be read.
        Err(error) => tracing::error!(%error, "the journal's epoch could not be read"),
    }
    tracing::error!(
        participant = name,
        own_epoch = own.epoch,
        known_epoch = seen,
        "quarantined: the participant says that it knows a newer run of this coordinator, which \
         its own journal does not. Its branches wait, and new work that names it is refused. If \
         the data folder was copied, stop one of the two coordinators for good; if it was \
         restored from a backup, start it as restored; otherwise look at what was sent to the \
         participant in this coordinator's name"
    );
    handle.directory.update(participant, |it| {
        it.newer_epoch = Some(seen);
        it.link = LinkState::Quarantined;
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_proto::marker::mark;

    fn own() -> Run {
        Run { epoch: 3, incarnation: Incarnation::from_bytes([1; 16]) }
    }

    #[test]
    fn only_a_marked_refusal_that_names_another_and_no_older_run_counts() {
        let refusal = |epoch: &str, incarnation: u8| {
            let mut status = mark(Status::failed_precondition("stale"), FENCED);
            let incarnation = Incarnation::from_bytes([incarnation; 16]).to_string();
            status.metadata_mut().insert(EPOCH, epoch.parse().unwrap());
            status.metadata_mut().insert(INCARNATION, incarnation.parse().unwrap());
            status
        };
        assert_eq!(newer_epoch(&refusal("4", 1), &own()), Some(4));
        assert_eq!(newer_epoch(&refusal("3", 2), &own()), Some(3), "another run of this epoch");
        assert_eq!(newer_epoch(&refusal("3", 1), &own()), None, "an echo of the request");
        assert_eq!(newer_epoch(&refusal("2", 2), &own()), None);
        assert_eq!(newer_epoch(&refusal("soon", 2), &own()), None);
        let mut unmarked = Status::failed_precondition("a framework's own");
        unmarked.metadata_mut().insert(EPOCH, "99".parse().unwrap());
        assert_eq!(newer_epoch(&unmarked, &own()), None);
        let late = mark(refusal("99", 2), dtc_proto::marker::LATE_DECISION);
        assert_eq!(newer_epoch(&late, &own()), None, "another meaning of the same code");
    }

    #[test]
    fn an_epoch_without_an_incarnation_is_newer_only_if_it_is_higher() {
        assert_eq!(newer_run(Some("3"), None, &own()), None);
        assert_eq!(newer_run(Some("4"), None, &own()), Some(4));
        assert_eq!(newer_run(None, None, &own()), None);
    }
}
