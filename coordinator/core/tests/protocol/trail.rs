//! The trail of a transaction.

use dtc_core::{CommitPolicy, Opaque, Outcome, TrailEvent, TrailKind, TrailKind::*};

use crate::{
    environment::{Environment, P0, P1, millis, seconds},
    participant::{NO, YES},
};

fn kinds(trail: &[TrailEvent]) -> Vec<(TrailKind, Option<u32>)> {
    trail.iter().map(|event| (event.kind, event.branch)).collect()
}

#[test]
fn a_commit_leaves_its_story_in_the_journal() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.settle();
    let decision = environment.journal.decision(run.id).expect("a decision");
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
    let end = environment.journal.end(run.id).expect("an end");
    assert_eq!(
        kinds(&end.trail),
        [(CommitAcknowledged, Some(0)), (CommitAcknowledged, Some(1)), (Ended, None),]
    );
}

#[test]
fn an_abort_leaves_its_story_in_the_journal() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    environment.settle();
    let decision = environment.journal.decision(run.id).expect("a decision");
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
    let end = environment.journal.end(run.id).expect("an end");
    assert_eq!(kinds(&end.trail), [(RollbackAcknowledged, Some(0)), (Ended, None)]);
}

#[test]
fn endless_retries_and_questions_do_not_make_it_grow() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    let mut lengths = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            environment.advance(seconds(120));
            environment.ask(run.id, 0);
            environment.ask(run.id, 1);
            environment.disconnect(P0);
            environment.connect(P0);
        }
        environment.lose_all();
        lengths.push(environment.look(run.id).trail.len());
    }
    assert!(lengths[0] < 20 && lengths[1] == lengths[0] && lengths[2] == lengths[0]);
    let trail = environment.look(run.id).trail;
    let retried = trail.iter().find(|it| it.kind == Retried && it.branch == Some(0));
    assert!(retried.is_some_and(|it| it.attempt > 50), "the latest, with its number");
}

#[test]
fn every_attempt_is_told_to_the_shell() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.advance(seconds(7200));
    assert!(
        environment.count(run.id, Retried) > 100 && environment.count(run.id, Unreachable) > 100
    );
}

#[test]
fn recovery_is_part_of_it() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.crash();
    environment.heal();
    let end = kinds(&environment.journal.end(run.id).expect("an end").trail);
    assert_eq!(end[0], (Recovered, None));
    assert_eq!(end.last(), Some(&(Ended, None)));
}

#[test]
fn the_shell_is_told_why_and_how_long_it_took() {
    let mut environment = Environment::new();
    let of = |environment: &Environment, kind| {
        let mut details = environment.details.iter().filter(|it| it.0 == kind);
        let (_, reason, took) = details.next_back().expect("it happened").clone();
        (reason, took)
    };
    let begun = environment.execute_with(&[(P0, YES), (P1, YES)], |_| {});
    environment.advance(millis(20));
    environment.exchange();
    environment.sync();
    assert_eq!(of(&environment, TrailKind::DecidedCommit), (None, millis(20)));
    environment.advance(millis(30));
    environment.exchange();
    assert_eq!(of(&environment, TrailKind::Ended), (None, millis(30)));
    environment.sync();
    assert_eq!(environment.outcome(begun), Outcome::Committed);

    environment.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    environment.advance(millis(40));
    environment.exchange();
    let (refused, _) = of(&environment, TrailKind::VotedAbort);
    let (aborted, took) = of(&environment, TrailKind::DecidedAbort);
    assert!(refused.is_some());
    assert_eq!((aborted, took), (refused, millis(40)));
}

#[test]
fn of_what_comes_again_the_last_is_kept_for_each_branch() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: 100 };
    });
    for _ in 0..3 {
        environment.lose_all();
        environment.advance(millis(1200));
        environment.ask(run.id, 1);
    }
    let trail = environment.look(run.id).trail;
    let count = |kind| trail.iter().filter(|event| event.kind == kind).count();
    assert_eq!(count(TrailKind::Retried), 2, "one for each branch");
    assert_eq!(count(TrailKind::Unreachable), 2, "one for each branch");
    assert_eq!(count(TrailKind::Asked), 1);
}

#[test]
fn a_trace_goes_with_every_message() {
    let mut environment = Environment::new();
    let trace = Some(Opaque::from(*b"trace"));
    let run =
        environment.execute_with(&[(P0, YES), (P1, YES)], |begin| begin.trace = trace.clone());
    assert!(environment.flights.iter().all(|flight| flight.trace == trace));
    environment.exchange();
    environment.sync();
    assert_eq!(environment.flights.iter().filter(|flight| flight.trace == trace).count(), 2);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}
