//! A commit that keeps failing is undone everywhere, where its client asked for that.

use dtc_core::{
    Acknowledgement, AnswerAt, BranchOutcome, BranchState, CommitPolicy, Outcome, TrailKind,
    TransactionState,
};

use crate::{
    forced::resolve,
    participant::YES,
    world::{P0, P1, Run, World, seconds},
};

const ATTEMPTS: u32 = 3;

/// Begins one that may be turned round.
fn execute(world: &mut World) -> Run {
    world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: ATTEMPTS };
    })
}

/// Committed at P0; P1 gets nothing, until the turning is asked for.
fn turning(world: &mut World) -> Run {
    let run = execute(world);
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    assert!(world.is_committed_at(P0, run.id));
    fail_until_asked(world);
    run
}

fn fail_until_asked(world: &mut World) {
    for _ in 0..20 {
        world.lose_all();
        if !world.journal.pending.is_empty() {
            return;
        }
        world.advance(seconds(3));
    }
    panic!("it was not turned round");
}

/// What came of it: undone everywhere, and told so.
fn is_undone(world: &mut World, run: Run) {
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
    assert_eq!(world.journal.commits(run.id), Some(false));
    assert!(!world.journal.end(run.id).expect("it has ended").heuristic);
}

#[test]
fn a_commit_that_keeps_failing_is_undone_everywhere_and_told_at_the_end() {
    let mut world = World::new();
    let run = turning(&mut world);
    assert!(world.reply(run.token).is_none(), "told before its end");
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "compensate"), (P1, "compensate")]);
    world.exchange();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
    let view = world.answer(run.token).clone();
    assert_eq!((view.outcome, view.committed), (Outcome::Aborted, false));
    let reason = view.reason.expect("a reason");
    assert_eq!((&*reason.code, reason.participant), ("COMMIT_FAILED", Some(P1)));
    assert!(reason.message.contains("branch 1 did not commit in 3 attempts"), "{reason:?}");
    is_undone(&mut world, run);
    assert_eq!(world.count(run.id, TrailKind::TurnedRound), 1);
}

#[test]
fn every_attempt_of_a_commit_that_may_be_turned_round_is_on_record() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.sync();
    let trail = &world.journal.decision(run.id).expect("a decision").trail;
    let of = |kind| trail.iter().filter(|it| it.kind == kind && it.branch == Some(1)).count();
    assert_eq!((of(TrailKind::Retried), of(TrailKind::Unreachable)), (2, 3));
    assert_eq!(trail.last().map(|it| it.kind), Some(TrailKind::TurnedRound));
}

#[test]
fn a_client_hears_nothing_at_the_decision_and_of_a_commit_at_the_end() {
    let mut world = World::new();
    let run = execute(&mut world);
    world.exchange();
    world.sync();
    let view = world.look(run.id);
    assert_eq!((view.state, view.outcome), (TransactionState::Committing, Outcome::Pending));
    assert!(!view.committed && world.reply(run.token).is_none());
    world.exchange();
    // A crash would find it undone in part, and turn it round.
    assert!(world.reply(run.token).is_none(), "told before its end is durable");
    assert_eq!(world.look(run.id).state, TransactionState::Committing);
    assert_eq!(world.count(run.id, TrailKind::Ended), 0, "a watcher sees it no sooner");
    assert_eq!(world.forced, Some(true), "somebody waits for the end");
    world.sync();
    assert_eq!(world.outcome(run), Outcome::Committed);
    assert_eq!(world.count(run.id, TrailKind::Ended), 1);
}

#[test]
fn who_says_while_it_votes_that_it_cannot_undo_a_commit_aborts() {
    let mut world = World::new();
    let run = execute(&mut world);
    world.participant(P1).compensates = false;
    world.connect(P1);
    world.exchange();
    world.sync();
    let reason = world.answer(run.token).reason.clone().expect("a reason");
    assert_eq!((&*reason.code, reason.participant), ("CANNOT_COMPENSATE", Some(P1)));
}

#[test]
fn what_an_operator_has_resolved_is_not_turned_round() {
    let mut world = World::new();
    let run = execute(&mut world);
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.lose_all();
    resolve(&mut world, run, true, Some(1));
    world.sync();
    for _ in 0..60 {
        world.lose_all();
        world.advance(seconds(1));
        world.sync();
    }
    assert_eq!(world.count(run.id, TrailKind::TurnedRound), 0);
    assert_eq!(world.look(run.id).branches[1].state, BranchState::Asserted);
    // Its outcome is known, after a crash too.
    assert_eq!(world.outcome(run), Outcome::Committed);
    world.crash();
    assert_eq!(world.look(run.id).outcome, Outcome::Committed);
}

#[test]
fn nobody_is_told_of_the_turning_before_its_record_is_durable() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.connect(P0);
    world.connect(P1);
    world.advance(seconds(60));
    assert!(world.flights.is_empty(), "{:?}", world.flights);
    assert_eq!(world.ask(run.id, 1), Some(BranchOutcome::Pending));
    let view = world.look(run.id);
    assert_eq!((view.state, view.reason), (TransactionState::Committing, None));
    assert!(view.branches.iter().all(|it| it.state == BranchState::Committing));
    world.sync();
    assert_eq!(world.ask(run.id, 1), Some(BranchOutcome::Aborted { number: 2 }));
    is_undone(&mut world, run);
}

#[test]
fn a_crash_before_the_record_is_durable_leaves_the_first_decision() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.crash();
    assert_eq!(world.journal.commits(run.id), Some(true));
    world.heal();
    assert!(world.is_committed_at(P0, run.id) && world.is_committed_at(P1, run.id));
}

#[test]
fn a_crash_before_the_record_is_durable_and_no_commit_after_it_turns_round_later() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.crash();
    world.connect(P0);
    world.exchange();
    fail_until_asked(&mut world);
    world.sync();
    is_undone(&mut world, run);
}

#[test]
fn a_crash_after_the_record_is_durable_undoes_it_all_again() {
    for told in [&[][..], &[P0], &[P1], &[P0, P1]] {
        let mut world = World::new();
        let run = turning(&mut world);
        world.sync();
        told.iter().for_each(|to| world.deliver_to(*to));
        if told.len() == 2 {
            world.hear_all();
        }
        world.flights.clear();
        world.crash();
        is_undone(&mut world, run);
    }
}

#[test]
fn a_late_commit_of_the_first_decision_does_nothing() {
    let mut world = World::new();
    let run = execute(&mut world);
    world.exchange();
    world.sync();
    let late = world.take_flights();
    fail_until_asked(&mut world);
    world.sync();
    world.exchange();
    late.iter().for_each(|flight| world.deliver(flight));
    assert!(world.answers.is_empty());
    is_undone(&mut world, run);
}

#[test]
fn a_branch_that_is_undone_is_told_until_it_acknowledges_though_it_asks() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.sync();
    for _ in 0..20 {
        world.lose_all();
        world.advance(seconds(6));
    }
    let states: Vec<_> = world.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::RollingBack; 2]);
    is_undone(&mut world, run);
}

#[test]
fn one_that_will_not_undo_its_commit_makes_the_outcome_mixed() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.sync();
    world.deliver_to(P1);
    world.lose_all();
    let journal = Some(world.participant(P0).journal);
    world.event(dtc_core::Event::Acknowledged {
        from: P0,
        journal,
        id: run.id,
        branch: 0,
        number: 2,
        acknowledgement: Acknowledgement::Committed,
    });
    world.heal();
    assert_eq!(world.outcome(run), Outcome::HeuristicMixed);
    assert!(world.journal.end(run.id).expect("it has ended").heuristic);
}

#[test]
fn a_journal_that_is_gone_cannot_say_that_its_commit_is_undone() {
    let mut world = World::new();
    let run = turning(&mut world);
    world.participant(P0).lose_disk();
    world.sync();
    world.heal();
    assert_eq!(world.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn all_that_vote_have_to_be_able_to_undo_their_commit() {
    let mut world = World::new();
    world.participant(P1).compensates = false;
    world.connect(P1);
    let run = execute(&mut world);
    assert!(world.flights.is_empty(), "asked one that can't");
    let view = world.answer(run.token);
    let reason = view.reason.clone().expect("a reason");
    assert_eq!((&*reason.code, reason.participant), ("CANNOT_COMPENSATE", Some(P1)));

    // Not known before it is there.
    let mut world = World::new();
    world.crash();
    world.participant(P1).compensates = false;
    let run = execute(&mut world);
    world.sync();
    world.connect_all();
    world.exchange();
    assert_eq!(world.outcome(run), Outcome::Aborted);
    world.heal();
    assert!(world.branch_at(P0, run.id).is_none(), "nobody was asked before it was known");
}

#[test]
fn one_that_says_it_rolled_back_is_at_one_with_the_others_after_the_turn() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES), (crate::world::P2, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: ATTEMPTS };
        begin.waiter.at = AnswerAt::Completion;
    });
    world.exchange();
    world.sync();
    world.lose_all();
    world.acknowledge(P0, run.id, 0, Acknowledgement::RolledBack);
    fail_until_asked(&mut world);
    world.sync();
    is_undone(&mut world, run);
    assert_eq!(world.outcome(run), Outcome::Aborted);
}
