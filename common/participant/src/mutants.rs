//! Bugs that a test plants (see `dtc_protocol::planted`).

use std::sync::Arc;

use dtc_protocol::{
    branch::Request,
    planted::{Bug, is_planted},
};

use crate::{ResourceManager, engine::Engine, journal::InDoubtBranch, wire::Decision};

/// Of `Engine::completion`: whether a batch is answered before it is durable.
pub(crate) fn answers_early() -> bool {
    is_planted(Bug::VoteBeforeDurable)
}

/// Of `Domain::apply_decision`: whether a rollback is kept from the domain.
pub(crate) fn keeps_reservation(commit: bool) -> bool {
    !commit && is_planted(Bug::ReservationKept)
}

/// Of `in_doubt::ask` and `link::ask_all`: whether nobody is asked.
pub(crate) fn asks_nobody() -> bool {
    is_planted(Bug::DoubtsUnasked)
}

/// Of `in_doubt::run`: rolls back what was found to be in doubt.
pub(crate) async fn time_out<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    doubts: &[InDoubtBranch],
) {
    if is_planted(Bug::PreparedTimesOut) {
        let request = Request::Rollback {
            decision_number: 1,
            compensate: false,
            can_compensate: R::COMPENSATES,
        };
        let rollback = |doubt: &InDoubtBranch| Decision::new(doubt.branch, request);
        let _ = engine.retry(doubts.iter().map(rollback).collect()).await;
    }
}
