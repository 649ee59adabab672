//! What has to hold in every state, and beside it what has to occur in some, so
//! that nothing holds only because nothing happens.

pub(crate) mod faults;

use dtc_core::{BranchState, DecisionRecord, EndRecord, Outcome};
use dtc_protocol::branch::Branch;
use stateright::Property;

use crate::{
    network::{Answer, Content, Id, Request},
    participant::{History, Participant},
    setup::{Asking, Setup, Use},
    state::State,
    system::System,
};

/// The properties of a setup.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn all(setup: &Setup) -> Vec<Property<System>> {
    let mut all = participants();
    let coordinated = setup.usage != Use::AnyCoordinator;
    let two_phase = coordinated && !setup.is_one_phase();
    if !coordinated {
        all.push(Property::sometimes("an unknown branch is said to be", says_unknown));
        all.push(Property::sometimes("an old run is refused", refuses_stale));
        all.push(Property::sometimes("a compensated decision is applied", applies_second));
        return all;
    }
    all.extend([
        Property::always("a commit is sent to participants only when durable", commit_is_durable),
        Property::always("only uncommitted transactions are reported aborted", abort_is_true),
        Property::always("watchers are told only what is so", |_: &System, it: &State| !it.misled),
        Property::always("a decision never changes", decisions_stand),
        Property::always("commit only if all voted for it", all_voted),
        Property::always("nothing ends before all that is owed is done", ends_when_done),
        Property::sometimes("committed everywhere", committed_everywhere),
        Property::sometimes("a client is told 'committed'", |_: &System, it: &State| {
            it.client.told_committed
        }),
    ]);
    if setup.usage == Use::Locked {
        all.push(Property::always("a lock excludes others until its owner has ended", alone));
        all.push(Property::sometimes("a lock is waited for", |_: &System, it: &State| {
            waits_for_locks(it)
        }));
        all.push(Property::sometimes("both commit", |_: &System, it: &State| {
            (1..=2).all(|id| it.journal.commits(id) == Some(true))
        }));
    } else {
        all.extend([Property::always("only one run of a key commits", one_run_commits)]);
        all.extend(match faults::may_ask_anew(setup) {
            true => [
                Property::always(
                    "clients are told what is durable, but of what is asked anew",
                    faults::clients_hear_truth,
                ),
                Property::always(
                    "a client is told one outcome, but of what is asked anew",
                    faults::one_outcome,
                ),
            ],
            false => [
                Property::always("clients see durable states only", clients_hear_truth),
                Property::always("a client is told one outcome", one_outcome),
            ],
        });
    }
    all.extend(faults::all(setup));
    if setup.refusals || setup.retries {
        all.push(Property::sometimes("a client is told 'aborted'", |_: &System, it: &State| {
            it.client.told_aborted
        }));
    }
    if setup.refusals && two_phase {
        all.push(Property::sometimes("a promise is rolled back", rolls_back_promise));
    }
    if two_phase && setup.retries {
        all.push(Property::sometimes("a tombstone is left", leaves_tombstone));
    }
    if setup.read_only {
        all.push(Property::sometimes("a read-only voter leaves early", leaves_early));
    }
    if setup.crashes > 0 {
        if !setup.drop_stale {
            all.push(Property::sometimes("an old run is refused", refuses_stale));
        }
        if two_phase {
            all.push(Property::sometimes(
                "a decided commit is recovered",
                |_: &System, it: &State| {
                    it.machine.transactions.iter().any(|it| it.recovered && it.commit)
                },
            ));
        }
    }
    if setup.asking != Asking::None && two_phase && setup.crashes > 0 {
        all.push(Property::sometimes("a question is answered 'committed'", told_committed));
        all.push(Property::sometimes("a question is answered 'aborted'", told_aborted));
    }
    if setup.is_keyed() {
        all.push(Property::sometimes(
            "a duplicate gets the first outcome",
            |_: &System, it: &State| it.client.told_again,
        ));
    }
    if setup.is_one_phase() {
        all.push(Property::sometimes("committed in one phase", commits_at_once));
        all.push(Property::sometimes("a lost answer is settled", settles));
    }
    if setup.usage == Use::Interactive {
        all.push(Property::sometimes(
            "all votes are in, and the client decides",
            |_: &System, it: &State| System::phase(it) == Some(dtc_core::Phase::Prepared),
        ));
    }
    if setup.enlist_keys {
        all.push(Property::always("a key enlists one branch", one_branch_of_a_key));
        all.push(Property::sometimes(
            "a repeated call is told the branch of the first",
            |_: &System, it: &State| it.client.enlisted_again,
        ));
        all.push(Property::sometimes(
            "that is so after a restart too",
            |system: &System, it: &State| {
                system.0.crashes == 0 || it.client.enlisted_again && it.epoch > 1
            },
        ));
    }
    all
}

/// What holds of participants whatever the coordinator does.
fn participants() -> Vec<Property<System>> {
    vec![
        Property::always("answers leave when they are durable", answers_are_durable),
        Property::always("a prepared branch never acts alone", never_alone),
        Property::always("a tombstone holds, and so does a commit", decided_stays),
        Property::always("an unknown branch is never acknowledged", known_only),
        Property::always("an old run is never obeyed", |_: &System, it: &State| {
            it.participants.iter().all(|participant| !participant.obeyed_stale)
        }),
        Property::always("an effect is reserved once and made final once", once),
        Property::always("records and answers are consistent", |_: &System, it: &State| {
            it.participants.iter().all(|participant| participant.broken.is_none())
        }),
        Property::always(
            "no assertion fails, no record contradicts another",
            |_: &System, it: &State| it.broken.is_none() && it.journal.broken.is_none(),
        ),
    ]
}

/// All branches that any participant has, durably.
fn rows(state: &State) -> impl Iterator<Item = (usize, &Participant, Id, Branch)> {
    state.participants.iter().enumerate().flat_map(|(index, participant)| {
        let participant: &Participant = participant;
        let rows = participant.durable.rows.iter();
        rows.map(move |(id, row)| (index, participant, *id, row.branch))
    })
}

fn histories(state: &State) -> impl Iterator<Item = (usize, &Participant, Id, History)> {
    state.participants.iter().enumerate().flat_map(|(index, participant)| {
        let participant: &Participant = participant;
        participant.history.iter().map(move |(id, history)| (index, participant, *id, *history))
    })
}

fn is_committed(branch: Branch) -> bool {
    matches!(branch, Branch::Committed { .. })
}

fn is_rolled_back(branch: Branch) -> bool {
    matches!(branch, Branch::RolledBack { .. })
}

// Participants.

fn answers_are_durable(_: &System, state: &State) -> bool {
    state.network.iter().all(|message| {
        let Content::Answer { journal, answer } = message.content else { return true };
        let history = state.participants[usize::from(message.participant)].history(message.id);
        let bit = 1 << journal;
        match answer {
            Answer::Yes { committed: true, .. } => history.committed & bit != 0,
            Answer::Yes { committed: false, .. } => history.promised & bit != 0,
            Answer::RolledBack { .. } => history.rolled_back & bit != 0,
            // See 'an unknown branch is never acknowledged'.
            Answer::Committed { .. } => true,
            Answer::No | Answer::ReadOnly | Answer::Unknown { .. } => true,
        }
    })
}

fn known_only(_: &System, state: &State) -> bool {
    state.network.iter().all(|message| {
        let Content::Answer { journal, answer: Answer::Committed { .. } } = message.content else {
            return true;
        };
        let history = state.participants[usize::from(message.participant)].history(message.id);
        history.committed & (1 << journal) != 0
    })
}

fn never_alone(_: &System, state: &State) -> bool {
    state.participants.iter().all(|participant| !participant.acted_alone)
}

fn decided_stays(_: &System, state: &State) -> bool {
    histories(state).all(|(_, participant, id, history)| {
        let bit = 1 << participant.journal;
        let branch = participant.durable.rows.get(&id).map(|row| row.branch);
        let committed = history.committed & !history.undone;
        committed & history.rolled_back == 0
            && (committed & bit == 0 || branch.is_some_and(is_committed))
            && (history.rolled_back & bit == 0 || branch.is_some_and(is_rolled_back))
    })
}

fn once(_: &System, state: &State) -> bool {
    state.participants.iter().all(|participant| {
        participant.file().rows.values().all(|row| match row.branch {
            Branch::Prepared { .. } => row.reserved == 1 && row.applied == 0,
            Branch::Committed { .. } => row.reserved == 0 && row.applied == 1,
            Branch::RolledBack { .. } => row.reserved == 0 && row.applied == 0,
        })
    })
}

/// A request is on its way to a participant that has seen a newer run.
fn refuses_stale(_: &System, state: &State) -> bool {
    state.network.iter().any(|message| {
        let participant = &state.participants[usize::from(message.participant)];
        let seen = participant.durable.seen.unwrap_or(0);
        matches!(message.content, Content::Request { epoch, .. } if epoch < seen)
    })
}

fn applies_second(_: &System, state: &State) -> bool {
    rows(state).any(|(.., branch)| branch.decision_number() == 2)
}

fn says_unknown(_: &System, state: &State) -> bool {
    let unknown =
        |content| matches!(content, Content::Answer { answer: Answer::Unknown { .. }, .. });
    state.network.iter().any(|message| unknown(message.content))
}

// The coordinator.

fn commit_is_durable(_: &System, state: &State) -> bool {
    state.network.iter().all(|message| match message.content {
        Content::Request { request, .. } if request.tells_commit() => {
            state.journal.commits(message.id) == Some(true)
                || state.journal.compensated.contains(&message.id)
                || state.journal.resolved(message.id, message.participant.into()) == Some(true)
        }
        _ => true,
    })
}

/// Whether one phase was asked for.
fn in_one_phase(state: &State, id: Id) -> bool {
    told(state, id, |request| matches!(request, Request::Prepare { one_phase: true, .. }))
}

fn abort_is_true(_: &System, state: &State) -> bool {
    state.network.iter().all(|message| match message.content {
        // In one phase a rollback is also the question whether it was committed.
        Content::Request { request: Request::Rollback { .. }, .. }
            if in_one_phase(state, message.id) =>
        {
            true
        }
        Content::Request { request, .. } if request.tells_abort() => {
            state.journal.commits(message.id) != Some(true)
                || state.journal.resolved(message.id, message.participant.into()) == Some(false)
        }
        _ => true,
    })
}

fn clients_hear_truth(system: &System, state: &State) -> bool {
    let runs = 1..=state.client.requests;
    let durably = |commit| runs.clone().any(|run| state.journal.commits(run) == Some(commit));
    let keyed = system.0.is_keyed();
    let mut shown = state.shown();
    (!state.client.told_committed || durably(true))
        && (!state.client.told_aborted || !durably(true) && (!keyed || durably(false)))
        && shown.all(|(run, outcome)| match outcome {
            Outcome::Committed => state.journal.commits(run) == Some(true),
            Outcome::Aborted => match state.journal.commits(run) {
                Some(commit) => !commit,
                None => !keyed,
            },
            Outcome::Pending | Outcome::HeuristicMixed | Outcome::HeuristicHazard => true,
        })
}

/// While a branch of one transaction is promised, or committed and the other's commit
/// is to come, no branch of the other is promised.
fn alone(_: &System, state: &State) -> bool {
    let open = |id: Id| {
        let unfinished = state.journal.end(id).is_none();
        let promised = |participant: &&std::sync::Arc<Participant>| participant.is_in_doubt(id);
        let began = state.participants.iter().any(|it| it.history(id).promised != 0);
        began && (unfinished && state.journal.decision(id).is_some())
            || state.participants.iter().any(|it| promised(&it))
    };
    [(1, 2), (2, 1)].into_iter().all(|(one, other)| {
        !open(one) || !state.participants.iter().any(|it| it.is_in_doubt(other))
    })
}

fn waits_for_locks(state: &State) -> bool {
    state.machine.transactions.iter().any(|it| it.phase == dtc_core::Phase::Locking)
}

fn one_outcome(_: &System, state: &State) -> bool {
    !(state.client.told_committed && state.client.told_aborted)
}

/// The client gives each branch a key of its own.
fn one_branch_of_a_key(_: &System, state: &State) -> bool {
    let known = state.machine.transactions.iter().map(|it| it.branches.len());
    let recorded = (1..=state.client.requests).filter_map(|id| state.journal.decision(id));
    let most = known.chain(recorded.map(|it| it.branches.len())).max().unwrap_or(0);
    most <= state.client.enlisted.into() && !state.client.told_other_branch
}

fn decisions_stand(_: &System, state: &State) -> bool {
    let pending = state.journal.pending.iter();
    let decided = pending.filter_map(|(_, record)| match record {
        dtc_core::Record::Decision(decision) => Some(decision),
        _ => None,
    });
    let mut decided = decided.map(|it| (crate::journal::number(it.id), it.commit, it.number));
    let stands = |(id, commit, number)| {
        let durable = state.journal.decision(id);
        durable.is_none_or(|durable| durable.commit == commit || durable.number < number)
    };
    let mut pairs: Vec<(Id, bool, u32)> = decided.clone().collect();
    pairs.sort_unstable();
    pairs.dedup();
    decided.all(stands) && pairs.windows(2).all(|pair| pair[0].0 != pair[1].0)
}

fn one_run_commits(_: &System, state: &State) -> bool {
    let runs = 1..=state.client.requests;
    let at = |participant: &Participant, id: Id| participant.history(id).committed != 0;
    let committed = |run: &Id| {
        state.journal.commits(*run) == Some(true)
            || state.participants.iter().any(|participant| at(participant, *run))
    };
    runs.filter(committed).count() <= 1
}

fn all_voted(system: &System, state: &State) -> bool {
    (1..=state.client.requests).all(|id| {
        let Some(decision) = state.journal.decision(id).filter(|decision| decision.commit) else {
            return true;
        };
        // An interactive client may commit what it has enlisted so far.
        let all =
            system.0.usage == Use::Interactive || decision.branches.len() == system.0.participants;
        all && decision.branches.iter().all(|branch| {
            let history = state.participants[branch.participant.0 as usize].history(id);
            history.promised != 0 || history.committed != 0 || history.read_only
        })
    })
}

/// Whether no commit of it stands: but in a journal that came when the one that had it
/// rolled back was lost, so that the prepare of then may be taken for a new one.
fn is_nowhere_committed(history: History) -> bool {
    let until_then = (2_u16 << history.rolled_back.trailing_zeros()) - 1;
    u16::from(history.committed & !history.undone) & until_then == 0
}

/// What has been decided and has ended, durably.
fn ended(state: &State) -> impl Iterator<Item = (Id, &DecisionRecord, &EndRecord)> {
    (1..=state.client.requests).filter_map(|id| {
        let (decision, end) = state.journal.decision(id).zip(state.journal.end(id))?;
        Some((id, decision, end))
    })
}

fn ends_when_done(_: &System, state: &State) -> bool {
    ended(state).all(|(id, decision, end)| {
        let branches = decision.branches.iter().zip(&end.branches);
        branches.into_iter().all(|(branch, ended)| {
            let participant = &state.participants[branch.participant.0 as usize];
            let history = participant.history(id);
            // The journal that promised it, where one did, is the one that did it.
            let voted = branch.journal.map_or(!0, |it| 1 << (it.as_bytes()[0] - 1));
            match ended {
                BranchState::Committed => {
                    let any = if in_one_phase(state, id) { !0 } else { voted };
                    decision.commit && history.committed & any != 0
                }
                BranchState::RolledBack => {
                    history.rolled_back & voted != 0 && is_nowhere_committed(history)
                }
                BranchState::RollbackUnacknowledged => {
                    participant.supports_inquiry && decision.number == 1
                }
                BranchState::ReadOnly | BranchState::Refused => true,
                BranchState::Enlisted => !decision.commit,
                BranchState::Heuristic | BranchState::Hazard => end.heuristic,
                // Nobody says of a participant that it never will be notified.
                BranchState::Asserted => false,
                BranchState::Preparing
                | BranchState::Prepared
                | BranchState::Committing
                | BranchState::RollingBack => false,
            }
        })
    })
}

fn committed_everywhere(_: &System, state: &State) -> bool {
    state
        .participants
        .iter()
        .all(|participant| participant.durable.rows.values().any(|row| is_committed(row.branch)))
}

fn rolls_back_promise(_: &System, state: &State) -> bool {
    histories(state).any(|(.., history)| history.promised & history.rolled_back != 0)
}

fn leaves_tombstone(_: &System, state: &State) -> bool {
    let mut left =
        rows(state).filter(|(_, participant, id, _)| participant.history(*id).promised == 0);
    left.any(|(.., branch)| matches!(branch, Branch::RolledBack { decision_number: 1.. }))
}

fn leaves_early(_: &System, state: &State) -> bool {
    (1..=state.client.requests).any(|id| {
        let decision = state.journal.decision(id).filter(|decision| decision.commit);
        decision.is_some_and(|decision| {
            decision.branches.iter().any(|branch| branch.state == BranchState::ReadOnly)
        })
    })
}

fn told(state: &State, id: Id, what: impl Fn(Request) -> bool) -> bool {
    state.network.iter().any(|message| match message.content {
        Content::Request { request, .. } => message.id == id && what(request),
        Content::Answer { .. } => false,
    })
}

fn told_committed(_: &System, state: &State) -> bool {
    told(state, 1, |request| matches!(request, Request::AnsweredCommitted { .. }))
}

fn told_aborted(_: &System, state: &State) -> bool {
    told(state, 1, |request| matches!(request, Request::AnsweredAborted { .. }))
}

fn commits_at_once(_: &System, state: &State) -> bool {
    state.participants.iter().any(|it| it.durable.rows.values().any(|row| row.at_once))
}

fn settles(_: &System, state: &State) -> bool {
    let asked = told(state, 1, |request| matches!(request, Request::Rollback { .. }));
    asked && (1..=state.client.requests).any(|id| state.journal.commits(id) == Some(true))
}
