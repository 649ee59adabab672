//! What people end by hand.

use dtc_core::{
    Acknowledgement, AnswerAt, BranchOutcome, BranchState, Client, CommitPolicy, Intervention,
    InterventionAction, Outcome, Refused, Reply, TransactionState,
};

use crate::{
    participant::{NO, YES},
    world::{P0, P1, P2, Run, World, locks, seconds},
};

pub(crate) fn by_hand(
    world: &World,
    action: InterventionAction,
    branch: Option<u32>,
) -> Intervention {
    let (reason, caller) = ("the disk is in the river".into(), "ada".into());
    Intervention { at: world.now, action, branch, reason, caller }
}

pub(crate) fn resolve(world: &mut World, run: Run, commit: bool, branch: Option<u32>) -> u64 {
    let action = match commit {
        true => InterventionAction::Commit,
        false => InterventionAction::Rollback,
    };
    let (intervention, until) = (by_hand(world, action, branch), world.now + seconds(60));
    world.call(run.id, Client::Resolve { intervention, until })
}

pub(crate) fn is_refused(world: &World, token: u64) -> bool {
    matches!(world.reply(token), Some(Reply::Refused(Refused::WrongState { .. })))
}

/// Committed at P0; P1 cannot be reached any more.
pub(crate) fn stuck(world: &mut World) -> Run {
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.lose_all();
    world.disconnect(P1);
    run
}

#[test]
fn a_branch_that_is_rolled_back_by_force_against_its_commit_is_a_hazard_until_it_says_so() {
    let mut world = World::new();
    let run = stuck(&mut world);
    let token = resolve(&mut world, run, false, Some(1));
    assert_eq!(world.look(run.id).state, TransactionState::Committing, "not durable yet");
    assert_eq!(
        world.ask(run.id, 1),
        Some(BranchOutcome::Committed { number: 1, output: Some([1, 1].into()) }),
        "told before it is durable"
    );
    world.sync();
    world.advance(seconds(30));
    let view = world.answer(token).clone();
    assert_eq!((view.state, view.outcome), (TransactionState::Committed, Outcome::HeuristicHazard));
    assert_eq!(view.interventions.len(), 1);
    assert_eq!((&*view.interventions[0].caller, view.interventions[0].branch), ("ada", Some(1)));
    assert_eq!(view.branches[1].state, BranchState::Hazard);
    assert_eq!(view.branches[1].resolution, Some(false));
    assert!(view.branches[1].notification_owed && !view.branches[0].notification_owed);
    world.sync();
    assert!(world.journal.end(run.id).is_none(), "its participant was not notified");
    // When it is back, it does what was forced, and that is known.
    world.connect(P1);
    world.inquire(P1);
    world.settle();
    assert!(world.is_rolled_back_at(P1, run.id) && world.is_committed_at(P0, run.id));
    let end = world.journal.end(run.id).unwrap();
    assert!(end.heuristic && end.kept);
    assert_eq!(end.branches[1], BranchState::Heuristic);
}

#[test]
fn one_that_can_be_reached_says_what_became_of_it() {
    for (answer, outcome) in [
        (Acknowledgement::RolledBack, Outcome::HeuristicMixed),
        (Acknowledgement::Committed, Outcome::Committed),
        (Acknowledgement::Unknown, Outcome::HeuristicHazard),
    ] {
        let mut world = World::new();
        let run = stuck(&mut world);
        world.connect(P1);
        world.lose_all();
        let token = resolve(&mut world, run, false, None);
        world.sync();
        assert_eq!(world.on_the_way(), [(P1, "rollback")]);
        let journal = Some(world.participant(P1).journal);
        // A late answer to the commit says nothing about the rollback.
        world.acknowledge(P1, run.id, 1, Acknowledgement::Committed);
        assert!(world.reply(token).is_none());
        world.event(dtc_core::Event::Acknowledged {
            from: P1,
            journal,
            id: run.id,
            branch: 1,
            number: 2,
            acknowledgement: answer,
        });
        assert_eq!(world.answer(token).outcome, outcome);
        world.sync();
        assert!(world.journal.end(run.id).unwrap().kept, "until somebody has looked");
    }
}

#[test]
fn what_is_resolved_as_it_was_decided_is_shown_as_asserted_until_it_is_acknowledged() {
    let mut world = World::new();
    let run = stuck(&mut world);
    let token = resolve(&mut world, run, true, None);
    world.sync();
    world.advance(seconds(30));
    let view = world.answer(token).clone();
    assert_eq!((view.state, view.outcome), (TransactionState::Committed, Outcome::Committed));
    assert_eq!(view.branches[1].state, BranchState::Asserted);
    assert_eq!(view.branches[1].resolution, Some(true));
    assert!(view.branches[1].notification_owed);
    assert!(view.ended_at.is_some());
    world.connect(P1);
    world.exchange();
    assert_eq!(world.look(run.id).branches[1].state, BranchState::Committed);
    world.settle();
    assert!(world.is_committed_at(P1, run.id));
    let end = world.journal.end(run.id).unwrap();
    assert!(!end.heuristic && end.kept, "somebody intervened");
    assert_eq!(end.branches, [BranchState::Committed; 2]);
}

#[test]
fn a_crash_before_the_record_is_durable_leaves_the_decision_and_one_after_it_what_was_forced() {
    for durable in [false, true] {
        let mut world = World::new();
        let run = stuck(&mut world);
        resolve(&mut world, run, false, Some(1));
        if durable {
            world.sync();
        }
        world.lose_all();
        world.crash();
        world.heal();
        assert_eq!(world.is_committed_at(P1, run.id), !durable);
        assert!(world.is_committed_at(P0, run.id));
        let end = world.journal.end(run.id).unwrap();
        assert_eq!((end.heuristic, end.kept), (durable, durable));
    }
}

#[test]
fn an_undecided_transaction_may_be_rolled_back_by_hand_and_committed_once_all_have_voted() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    let refused = resolve(&mut world, run, true, None);
    assert!(is_refused(&world, refused), "not all have voted");
    let refused = resolve(&mut world, run, false, Some(0));
    assert!(is_refused(&world, refused), "a branch alone");
    let token = resolve(&mut world, run, false, None);
    assert!(world.reply(token).is_none(), "told before it is on record");
    world.heal();
    let view = world.answer(token);
    assert_eq!((view.outcome, &*view.reason.as_ref().unwrap().code), (Outcome::Aborted, "FORCED"));
    assert!(world.journal.end(run.id).unwrap().kept);

    let id = world.begin();
    world.enlist(id, P0);
    world.enlist(id, P1);
    world.prepare(id);
    world.sync();
    world.exchange();
    let run = Run { id, token: 0 };
    for commit in [true, false] {
        let refused = resolve(&mut world, run, commit, Some(0));
        assert!(is_refused(&world, refused), "a branch alone, which would decide for all");
    }
    let token = resolve(&mut world, run, true, None);
    world.heal();
    assert_eq!(world.answer(token).outcome, Outcome::Committed);
}

#[test]
fn what_cannot_be_settled_in_one_phase_is_ended_as_a_hazard() {
    for commit in [false, true] {
        let mut world = World::new();
        let run = world.execute(&[P0]);
        world.lose_all();
        world.disconnect(P0);
        world.advance(seconds(20));
        let refused = resolve(&mut world, run, commit, Some(1));
        assert!(is_refused(&world, refused), "it has one branch");
        let token = resolve(&mut world, run, commit, None);
        assert!(world.reply(token).is_none(), "told before it is on record");
        world.sync();
        world.advance(seconds(30));
        assert_eq!(world.answer(token).outcome, Outcome::HeuristicHazard);
        assert_eq!(world.journal.commits(run.id), Some(commit));
        let branch = &world.look(run.id).branches[0];
        assert_eq!((branch.state, branch.resolution), (BranchState::Hazard, Some(commit)));
        assert!(branch.notification_owed);
        // A crash does not make it more certain than it is.
        world.crash();
        assert_eq!(world.look(run.id).outcome, Outcome::HeuristicHazard);
    }
}

#[test]
fn nothing_is_forced_where_nothing_is_owed() {
    let mut world = World::new();
    let run = stuck(&mut world);
    let refused = resolve(&mut world, run, false, Some(0));
    assert!(is_refused(&world, refused), "it has acknowledged");
    let refused = resolve(&mut world, run, false, Some(7));
    assert!(is_refused(&world, refused), "there is no such branch");
    let first = resolve(&mut world, run, false, Some(1));
    let refused = resolve(&mut world, run, true, Some(1));
    assert!(is_refused(&world, refused), "one at a time");
    world.sync();
    world.advance(seconds(30));
    assert!(world.reply(first).is_some());
    let refused = resolve(&mut world, run, true, Some(1));
    assert!(is_refused(&world, refused), "it was resolved");
    world.connect(P1);
    world.settle();
    let gone = resolve(&mut world, run, true, Some(1));
    assert!(matches!(world.reply(gone), Some(Reply::NotHere)));
}

#[test]
fn a_rollback_that_cannot_be_told_may_be_forced_and_even_into_a_commit() {
    for commit in [false, true] {
        let mut world = World::new();
        world.cannot_ask(P0);
        let run = world.execute_with(&[(P0, YES), (P2, NO)], |begin| {
            begin.waiter.at = AnswerAt::Completion;
        });
        world.sync();
        world.exchange();
        world.lose_all();
        resolve(&mut world, run, commit, Some(0));
        world.sync();
        let expected = if commit { "commit" } else { "rollback" };
        assert_eq!(world.on_the_way(), [(P0, expected)]);
        world.exchange();
        let outcome = if commit { Outcome::HeuristicMixed } else { Outcome::Aborted };
        assert_eq!(world.outcome(run), outcome);
        assert_eq!(world.is_committed_at(P0, run.id), commit);
    }
}

#[test]
fn a_retry_by_hand_sends_at_once_and_is_on_record() {
    let mut world = World::new();
    let run = stuck(&mut world);
    world.connect(P1);
    world.lose_all();
    world.advance(seconds(120));
    world.take_flights();
    let action = InterventionAction::Retry;
    let intervention = by_hand(&world, action, None);
    let token = world.call(run.id, Client::Retry { intervention });
    assert_eq!(world.on_the_way(), [(P1, "commit")]);
    assert_eq!(world.answer(token).interventions[0].action, action);
    world.exchange();
    world.sync();
    assert_eq!(world.journal.decision(run.id).unwrap().interventions.len(), 1);
    assert!(world.journal.end(run.id).unwrap().kept);
    let states: Vec<_> = world.journal.end(run.id).unwrap().branches.clone();
    assert_eq!(states, [BranchState::Committed; 2]);
}

#[test]
fn nothing_ends_while_something_is_about_to_be_forced() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P2, NO)], |_| {});
    world.exchange();
    world.lose_all();
    let token = resolve(&mut world, run, true, Some(0));
    // The rollback is left to a participant that asks; the record is not durable yet.
    world.disconnect(P0);
    world.advance(seconds(20));
    assert!(world.reply(token).is_none());
    world.sync();
    world.advance(seconds(20));
    assert_eq!(world.answer(token).outcome, Outcome::HeuristicHazard);
}

#[test]
fn what_was_left_to_be_asked_for_and_forced_is_told_after_a_crash_too() {
    let mut world = World::new();
    world.cannot_ask(P1);
    let run = world.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |_| {});
    world.sync();
    world.exchange();
    world.disconnect(P0);
    world.lose_all();
    world.advance(seconds(60));
    assert_eq!(world.look(run.id).branches[0].state, BranchState::LeftToAsk);
    resolve(&mut world, run, true, Some(0));
    world.sync();
    world.lose_all();
    world.crash();
    world.heal();
    assert!(world.is_committed_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
    assert!(world.journal.end(run.id).unwrap().heuristic, "dressed up as aborted");
}

#[test]
fn a_retry_does_not_write_over_what_is_being_forced() {
    let mut world = World::new();
    let run = stuck(&mut world);
    resolve(&mut world, run, false, Some(1));
    let intervention = by_hand(&world, InterventionAction::Retry, None);
    world.call(run.id, Client::Retry { intervention });
    world.sync();
    world.lose_all();
    assert_eq!(world.journal.decision(run.id).unwrap().branches[1].forced, Some(false));
    world.crash();
    world.heal();
    assert!(world.is_rolled_back_at(P1, run.id));
}

#[test]
fn what_is_forced_after_a_turn_is_undone_too() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: 1 };
        begin.waiter.at = AnswerAt::Completion;
    });
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.lose_all();
    assert!(world.is_committed_at(P0, run.id));
    while world.journal.pending.is_empty() {
        world.advance(seconds(3));
    }
    world.sync();
    world.lose_all();
    let token = resolve(&mut world, run, false, None);
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "compensate"), (P1, "compensate")]);
    world.exchange();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
    assert_eq!(world.answer(token).outcome, Outcome::Aborted);
}

#[test]
fn locks_are_held_until_what_is_forced_has_ended() {
    let mut world = World::new();
    let run = world.execute_locked("A", &[P0, P1]);
    world.sync();
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.lose_all();
    let next = world.execute_locked("A", &[P0, P2]);
    resolve(&mut world, run, false, Some(1));
    world.sync();
    assert!(world.flights.iter().all(|flight| flight.id == run.id), "it does not hold the lock");
    world.exchange();
    world.sync();
    assert!(world.flights.iter().any(|flight| flight.id == next.id), "nobody has the lock");
}

#[test]
fn locks_are_held_until_a_commit_is_undone() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: 1 };
        begin.locks = locks("A");
    });
    world.sync();
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.lose_all();
    let next = world.execute_locked("A", &[P0, P2]);
    while world.journal.pending.is_empty() {
        world.advance(seconds(3));
    }
    world.sync();
    world.lose_all();
    world.crash();
    let late = world.execute_locked("A", &[P0, P2]);
    world.sync();
    world.connect_all();
    assert!(world.flights.iter().all(|flight| flight.id == run.id), "it does not hold the lock");
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
    assert!(world.is_committed_at(P2, late.id) && !world.is_committed_at(P2, next.id));
}

#[test]
fn what_answers_before_its_force_is_durable_is_not_forced() {
    for (answer, state) in [
        (Acknowledgement::Committed, BranchState::Committed),
        (Acknowledgement::Unknown, BranchState::Hazard),
    ] {
        let mut world = World::new();
        let run = world.execute(&[P0, P1, P2]);
        world.exchange();
        world.sync();
        world.lose_all();
        resolve(&mut world, run, false, Some(1));
        world.acknowledge(P1, run.id, 1, answer);
        world.sync();
        let branch = &world.look(run.id).branches[1];
        assert_eq!((branch.state, branch.resolution), (state, None));
        assert!(!branch.notification_owed && world.flights.is_empty());
    }
}
