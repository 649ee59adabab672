//! That branches agree and do what was decided; and what holds instead where an
//! operator's word or a lost disk makes that impossible.
//!
//! Weaker, and why:
//! - *A branch that an operator resolved* does what was decided or what was resolved:
//!   the operator's word is obeyed, and may be the opposite.
//! - *A branch whose promise was lost with its disk* can neither be committed nor
//!   compensated any more, so that a heuristic outcome is the truth. In one phase it is
//!   where anything was lost: whether it had committed, only that disk knew.
//! - *A branch that was undone, or refused by a tombstone, and lost with its disk* may be
//!   done again by messages from before: the new disk knows neither the tombstone nor the
//!   newer decision. That takes a commit without a decision (one phase) or an older one
//!   (compensation); in two phases without these all branches agree, lost or not.
//!
//! - *A client without a key* that was told 'aborted' of a one-phase branch refused there:
//!   where its abort record goes with a crash as well, the branch that is done again is
//!   asked anew, and is committed. (With a key the record is durable before it is told.)
//! - *A promise that a new disk gives to a prepare from before*, at a participant that
//!   cannot ask, nobody may know of: it is left to an operator there.
//!
//! For every other branch, in the same state, the strong ones hold.

use dtc_core::{BranchState, DecisionRecord, Phase, TransactionProjection};
use dtc_protocol::branch::Branch;
use stateright::Property;

use super::{ended, histories, is_committed, is_rolled_back, rows, says_unknown};
use crate::{
    network::Id,
    participant::{History, Participant},
    setup::{Asking, Setup, Use},
    state::State,
    system::System,
};

/// The properties of a setup.
pub(super) fn all(setup: &Setup) -> Vec<Property<System>> {
    let (resolves, loses) = (setup.resolutions > 0, setup.lost_disks > 0);
    let compensates = setup.compensate_after > 0;
    let mut all = Vec::new();
    if !resolves && (!loses || !setup.is_one_phase() && !compensates) {
        all.push(Property::always("decided branches agree", branches_agree));
        all.push(Property::always("a participant does what was decided", as_decided));
    }
    if resolves || loses {
        let name = "decided branches agree, but for those resolved or lost";
        all.push(Property::always(name, others_agree));
        let name = "a participant does what was decided, but of a branch resolved or lost";
        all.push(Property::always(name, others_as_decided));
        let name = "an outcome is heuristic only by a branch resolved or lost";
        all.push(Property::always(name, heuristic_with_cause));
        all.push(Property::always("a broken promise is told", is_told_of));
    } else {
        all.push(Property::always("outcomes are not heuristic", not_heuristic));
    }
    if resolves {
        all.extend(resolved(compensates));
    }
    if loses {
        all.extend(lost(setup));
    }
    if compensates {
        all.push(Property::sometimes("a commit is undone", |_: &System, it: &State| {
            histories(it).any(|(.., history)| history.undone != 0)
        }));
        let name = "a compensated decision is applied";
        all.push(Property::sometimes(name, super::applies_second));
    }
    all
}

/// Whether a crash and a lost disk may have a participant asked anew, of whose refusal a
/// client was told.
pub(super) fn may_ask_anew(setup: &Setup) -> bool {
    let begun_before = setup.asking != Asking::All || setup.usage == Use::Interactive;
    let begun_before = begun_before && !setup.is_keyed();
    setup.lost_disks > 0 && setup.crashes > 0 && setup.is_one_phase() && begun_before
}

fn was_asked_anew(state: &State) -> bool {
    let refused = |participant, history: History| history.rolled_back & before(participant) != 0;
    let committed = |id| state.journal.commits(id) == Some(true);
    let mut all = histories(state);
    state.epoch > 1 && all.any(|(_, it, id, history)| refused(it, history) && committed(id))
}

pub(super) fn clients_hear_truth(system: &System, state: &State) -> bool {
    was_asked_anew(state) || super::clients_hear_truth(system, state)
}

pub(super) fn one_outcome(system: &System, state: &State) -> bool {
    was_asked_anew(state) || super::one_outcome(system, state)
}

fn resolved(compensates: bool) -> Vec<Property<System>> {
    let mut all = vec![
        Property::always("a branch does what was decided or forced", as_resolved),
        Property::always(
            "what was resolved is shown as acknowledged only when it is",
            is_shown_as_asserted,
        ),
        Property::always("what is asserted is not known to be otherwise", is_not_contradicted),
        Property::sometimes("it is asserted", |_: &System, it: &State| {
            branches(it).any(|(_, state, notify)| state == BranchState::Asserted && notify)
        }),
        Property::sometimes("a restart goes on notifying", |system: &System, it: &State| {
            let notifies =
                |it: &TransactionProjection| it.phase == Phase::Notifying && it.recovered;
            system.0.crashes == 0 || it.machine.transactions.iter().any(notifies)
        }),
        Property::sometimes("a promise is broken by an operator", |_: &System, it: &State| {
            rows(it).any(|(.., id, branch)| {
                let mut ended = ended(it).filter(|(of, _, end)| *of == id && end.heuristic);
                ended.any(|(_, decision, _)| is_opposite(decision, branch))
            })
        }),
        Property::sometimes("it is forced as it was decided", |_: &System, it: &State| {
            ended(it).any(|(_, decision, end)| {
                let by_operator = decision.branches.iter().any(|it| it.resolved.is_some());
                by_operator && !end.heuristic && end.kept
            })
        }),
    ];
    if compensates {
        let name = "what is compensated is resolved, and ends so";
        all.push(Property::sometimes(name, |_: &System, it: &State| {
            ended(it).any(|(_, decision, end)| {
                let resolved = decision.branches.iter().any(|it| it.resolved == Some(false));
                decision.number == 2 && resolved && !end.heuristic
            })
        }));
        let name = "what is compensated is resolved to be committed";
        all.push(Property::sometimes(name, |_: &System, it: &State| {
            ended(it).any(|(_, decision, end)| {
                let resolved = decision.branches.iter().any(|it| it.resolved == Some(true));
                decision.number == 2 && resolved && end.heuristic
            })
        }));
        let name = "what is to be compensated is a hazard until it is heard of";
        all.push(Property::sometimes(name, |_: &System, it: &State| {
            branches(it).any(|(number, state, notify)| {
                number == 2 && state == BranchState::Hazard && notify
            })
        }));
    }
    all
}

fn lost(setup: &Setup) -> Vec<Property<System>> {
    let mut all = vec![
        Property::sometimes("a lost disk is found out", |_: &System, it: &State| finds_hazard(it)),
        Property::sometimes("an unknown branch is said to be", says_unknown),
    ];
    if setup.is_one_phase() || setup.compensate_after > 0 {
        let name = "a lost branch is done again by messages from before";
        all.push(Property::sometimes(name, |_: &System, it: &State| {
            rows(it).any(|(_, participant, id, branch)| {
                let aborted = it.journal.commits(id) == Some(false);
                aborted && is_committed(branch) && !is_turning(it, id) && is_lost(participant, id)
            })
        }));
    }
    if setup.crashes > 0 {
        let name = "a lost disk is found out after a restart";
        all.push(Property::sometimes(name, |_: &System, it: &State| {
            let is_hazard = |it: &TransactionProjection| {
                it.recovered && it.branches.iter().any(|it| it.state == BranchState::Hazard)
            };
            it.machine.transactions.iter().any(is_hazard)
        }));
    }
    if setup.compensate_after > 0 {
        let name = "what is to be compensated is lost, and that is told";
        all.push(Property::sometimes(name, |_: &System, it: &State| {
            ended(it).any(|(_, decision, end)| decision.number == 2 && end.heuristic)
        }));
    }
    all
}

/// The name of the property that the end can be reached from everywhere.
pub(crate) fn reaches_end(setup: &Setup) -> &'static str {
    match setup.lost_disks > 0 && setup.asking != Asking::All {
        true => "everything can be finished, but a new disk's promise that cannot ask",
        false => crate::REACHES_END,
    }
}

/// Whether a branch in doubt is left to an operator at its participant.
pub(crate) fn is_left_alone(participant: &Participant, id: Id) -> bool {
    !participant.supports_inquiry && is_lost(participant, id)
}

/// The branches in the coordinator's memory, with their decisions' numbers.
fn branches(state: &State) -> impl Iterator<Item = (u32, BranchState, bool)> {
    state.machine.transactions.iter().flat_map(|transaction| {
        let branches = transaction.branches.iter();
        branches.map(|it| (transaction.number, it.state, it.notify))
    })
}

/// Whether anything durable of the branch went with a disk.
fn is_lost(participant: &Participant, id: Id) -> bool {
    let history = participant.history(id);
    let durable = history.promised | history.committed | history.rolled_back;
    durable & before(participant) != 0
}

/// The journals before the one that is there, a bit each.
fn before(participant: &Participant) -> u8 {
    (1 << participant.journal) - 1
}

/// Whether its promise, or its commit, went with a disk.
fn is_promise_lost(participant: &Participant, id: Id) -> bool {
    let history = participant.history(id);
    (history.promised | history.committed) & before(participant) != 0
}

/// Whether it is a branch that strong properties are not about.
fn is_excused(state: &State, index: usize, participant: &Participant, id: Id) -> bool {
    state.journal.resolved(id, index).is_some() || is_lost(participant, id)
}

fn others_agree(_: &System, state: &State) -> bool {
    let all = |id| {
        rows(state).filter(move |(index, participant, of, _)| {
            *of == id
                && !is_turning(state, id)
                && !participant.history(id).read_only
                && !is_excused(state, *index, participant, id)
        })
    };
    rows(state).all(|(_, _, id, _)| {
        let committed = all(id).any(|(.., branch)| is_committed(branch));
        !(committed && all(id).any(|(.., branch)| is_rolled_back(branch)))
    })
}

fn others_as_decided(_: &System, state: &State) -> bool {
    rows(state).all(|(index, participant, id, branch)| {
        is_excused(state, index, participant, id) || is_as_decided(state, participant, id, branch)
    })
}

/// Only an operator who was against the decision, or a lost promise, makes an outcome
/// heuristic for good; until a resolved branch is heard of, it may be for a time.
fn heuristic_with_cause(system: &System, state: &State) -> bool {
    let one_phase = system.0.is_one_phase();
    let lost = |id| {
        let gone = |it: &Participant| it.journal > 0 && one_phase;
        state.participants.iter().any(|it| is_promise_lost(it, id) || gone(it))
    };
    let mut all = ended(state).filter(|(.., end)| end.heuristic);
    let for_good = all.all(|(id, decision, _)| {
        lost(id) || decision.branches.iter().any(|it| it.resolved == Some(!decision.commit))
    });
    let resolved = |id: &Id| {
        let decision = state.journal.decision(*id);
        decision.is_some_and(|it| it.branches.iter().any(|it| it.resolved.is_some()))
    };
    let told = state.client.told_heuristic;
    for_good && (!told || (1..=state.client.requests).any(|id| lost(id) || resolved(&id)))
}

/// What an operator resolved is shown as acknowledged only when the participant that
/// promised it has done it.
fn is_shown_as_asserted(_: &System, state: &State) -> bool {
    state.machine.transactions.iter().all(|transaction| {
        let id = crate::journal::number(transaction.id);
        transaction.branches.iter().filter(|it| it.resolved.is_some()).all(|branch| {
            let history = state.participants[branch.participant.0 as usize].history(id);
            match branch.state {
                BranchState::Committed => history.committed != 0,
                BranchState::RolledBack => {
                    history.rolled_back != 0 && history.committed & !history.undone == 0
                }
                _ => true,
            }
        })
    })
}

fn as_resolved(_: &System, state: &State) -> bool {
    rows(state).all(|(index, participant, id, branch)| {
        let resolved = state.journal.resolved(id, index);
        match state.journal.commits(id) {
            Some(true) => {
                !is_rolled_back(branch)
                    || resolved == Some(false)
                    || participant.history(id).read_only
            }
            Some(false) => !is_committed(branch) || resolved == Some(true) || is_turning(state, id),
            None => !is_committed(branch) || participant.durable.rows[&id].at_once,
        }
    })
}

/// What is asserted of a branch, its participant has not done the opposite of.
fn is_not_contradicted(_: &System, state: &State) -> bool {
    state.machine.transactions.iter().all(|transaction| {
        let id = crate::journal::number(transaction.id);
        let all = transaction.branches.iter();
        all.filter(|it| it.state == BranchState::Asserted).all(|branch| {
            let history = state.participants[branch.participant.0 as usize].history(id);
            match transaction.commit {
                true => history.rolled_back == 0,
                false => history.committed & !history.undone == 0,
            }
        })
    })
}

/// What has ended with a branch that did the opposite is not shown as it was decided;
/// unless it had done that, and did the opposite on the next disk.
fn is_told_of(_: &System, state: &State) -> bool {
    rows(state).all(|(_, participant, id, branch)| {
        let ended = state.journal.decision(id).zip(state.journal.end(id));
        let was_done = |decision: &DecisionRecord| {
            let history = participant.history(id);
            let done = if decision.commit { history.committed } else { history.rolled_back };
            done & before(participant) != 0
        };
        ended.is_none_or(|(decision, end)| {
            let reads = decision.commit && participant.history(id).read_only;
            !is_opposite(decision, branch) || reads || end.heuristic || was_done(decision)
        })
    })
}

fn is_opposite(decision: &DecisionRecord, branch: Branch) -> bool {
    if decision.commit { is_rolled_back(branch) } else { is_committed(branch) }
}

fn branches_agree(_: &System, state: &State) -> bool {
    // A read-only voter that was asked again and refused has nothing to undo.
    let counts = |participant: &Participant, id| !participant.history(id).read_only;
    rows(state).filter(|(_, _, id, _)| !is_turning(state, *id)).all(|(_, _, id, branch)| {
        let mut others =
            rows(state).filter(|(_, participant, of, _)| *of == id && counts(participant, id));
        !is_committed(branch) || !others.any(|(.., other)| is_rolled_back(other))
    })
}

/// Whether branches that have committed are still being told to undo it.
fn is_turning(state: &State, id: Id) -> bool {
    state.journal.compensated.contains(&id) && state.journal.end(id).is_none()
}

fn as_decided(_: &System, state: &State) -> bool {
    rows(state).all(|(_, participant, id, branch)| is_as_decided(state, participant, id, branch))
}

fn is_as_decided(state: &State, participant: &Participant, id: Id, branch: Branch) -> bool {
    match state.journal.commits(id) {
        Some(true) => !is_rolled_back(branch) || participant.history(id).read_only,
        Some(false) => !is_committed(branch) || is_turning(state, id),
        None => !is_committed(branch) || participant.durable.rows[&id].at_once,
    }
}

fn not_heuristic(_: &System, state: &State) -> bool {
    !finds_hazard(state) && !state.client.told_heuristic
}

fn finds_hazard(state: &State) -> bool {
    ended(state).any(|(.., end)| end.heuristic)
}
