//! The trail of a transaction.

use dtc_core::{CommitPolicy, Opaque, Outcome, TrailEvent, TrailKind, TrailKind::*};

use crate::{
    participant::{NO, YES},
    world::{P0, P1, World, millis, seconds},
};

fn kinds(trail: &[TrailEvent]) -> Vec<(TrailKind, Option<u32>)> {
    trail.iter().map(|event| (event.kind, event.branch)).collect()
}

#[test]
fn a_commit_leaves_its_story_in_the_journal() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.settle();
    let decision = world.journal.decision(run.id).expect("a decision");
    assert_eq!(
        kinds(&decision.trail),
        [
            (Begun, None),
            (PrepareSent, Some(0)),
            (PrepareSent, Some(1)),
            (VotedCommit, Some(0)),
            (VotedCommit, Some(1)),
            (DecidedCommit, None),
        ]
    );
    let end = world.journal.end(run.id).expect("an end");
    assert_eq!(
        kinds(&end.trail),
        [(CommitAcknowledged, Some(0)), (CommitAcknowledged, Some(1)), (Ended, None),]
    );
}

#[test]
fn an_abort_leaves_its_story_in_the_journal() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    world.settle();
    let decision = world.journal.decision(run.id).expect("a decision");
    assert_eq!(
        kinds(&decision.trail),
        [
            (Begun, None),
            (PrepareSent, Some(0)),
            (PrepareSent, Some(1)),
            (VotedCommit, Some(0)),
            (VotedAbort, Some(1)),
            (DecidedAbort, None),
        ]
    );
    let end = world.journal.end(run.id).expect("an end");
    assert_eq!(kinds(&end.trail), [(RollbackAcknowledged, Some(0)), (Ended, None)]);
}

#[test]
fn endless_retries_and_questions_do_not_make_it_grow() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    let mut lengths = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            world.advance(seconds(120));
            world.ask(run.id, 0);
            world.ask(run.id, 1);
            world.disconnect(P0);
            world.connect(P0);
        }
        world.lose_all();
        lengths.push(world.look(run.id).trail.len());
    }
    assert!(lengths[0] < 20 && lengths[1] == lengths[0] && lengths[2] == lengths[0]);
    let trail = world.look(run.id).trail;
    let retried = trail.iter().find(|it| it.kind == Retried && it.branch == Some(0));
    assert!(retried.is_some_and(|it| it.attempt > 50), "the latest, with its number");
}

#[test]
fn every_attempt_is_told_to_the_shell() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.advance(seconds(7200));
    assert!(world.count(run.id, Retried) > 100 && world.count(run.id, Unreachable) > 100);
}

#[test]
fn recovery_is_part_of_it() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.crash();
    world.heal();
    let end = kinds(&world.journal.end(run.id).expect("an end").trail);
    assert_eq!(end[0], (Recovered, None));
    assert_eq!(end.last(), Some(&(Ended, None)));
}

#[test]
fn the_shell_is_told_why_and_how_long_it_took() {
    let mut world = World::new();
    let of = |world: &World, kind| {
        let mut details = world.details.iter().filter(|it| it.0 == kind);
        let (_, reason, took) = details.next_back().expect("it happened").clone();
        (reason, took)
    };
    let begun = world.execute_with(&[(P0, YES), (P1, YES)], |_| {});
    world.advance(millis(20));
    world.exchange();
    world.sync();
    assert_eq!(of(&world, TrailKind::DecidedCommit), (None, millis(20)));
    world.advance(millis(30));
    world.exchange();
    assert_eq!(of(&world, TrailKind::Ended), (None, millis(30)));
    world.sync();
    assert_eq!(world.outcome(begun), Outcome::Committed);

    world.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    world.advance(millis(40));
    world.exchange();
    let (refused, _) = of(&world, TrailKind::VotedAbort);
    let (aborted, took) = of(&world, TrailKind::DecidedAbort);
    assert!(refused.is_some());
    assert_eq!((aborted, took), (refused, millis(40)));
}

#[test]
fn of_what_comes_again_the_last_is_kept_for_each_branch() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: 100 };
    });
    for _ in 0..3 {
        world.lose_all();
        world.advance(millis(1200));
        world.ask(run.id, 1);
    }
    let trail = world.look(run.id).trail;
    let count = |kind| trail.iter().filter(|event| event.kind == kind).count();
    assert_eq!(count(TrailKind::Retried), 2, "one for each branch");
    assert_eq!(count(TrailKind::Unreachable), 2, "one for each branch");
    assert_eq!(count(TrailKind::Asked), 1);
}

#[test]
fn a_trace_goes_with_every_message() {
    let mut world = World::new();
    let trace = Some(Opaque::from(*b"trace"));
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| begin.trace = trace.clone());
    assert!(world.flights.iter().all(|flight| flight.trace == trace));
    world.exchange();
    world.sync();
    assert_eq!(world.flights.iter().filter(|flight| flight.trace == trace).count(), 2);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
}
