//! Links that are down, attempts that come to nothing, and what was heard of them.

use dtc_core::{
    AnswerAt, BranchState, Client, Event, Failure, Message, Outcome, TrailKind, TransactionState,
};

use crate::participant::YES;
use crate::world::{P0, P1, P2, Run, World, millis, seconds};

fn reason(world: &World, run: Run) -> (String, String) {
    let reason = world.answer(run.token).reason.clone().expect("a reason");
    (reason.code.clone(), reason.message.clone())
}

#[test]
fn nobody_is_asked_while_a_participant_is_known_to_be_away() {
    let mut world = World::new();
    world.disconnect(P2);
    let run = world.execute(&[P0, P1, P2]);
    assert!(world.flights.is_empty(), "the others would hold what they promise");
    assert!(world.journal.pending.is_empty(), "nobody was promised that it is known");
    assert_eq!(world.look(run.id).state, TransactionState::Preparing);
    world.advance(millis(999));
    assert!(world.flights.is_empty() && world.reply(run.token).is_none());
    world.advance(millis(1));
    assert_eq!(world.outcome(run), Outcome::Aborted);
    let (code, message) = reason(&world, run);
    assert_eq!(code, "PARTICIPANT_UNAVAILABLE");
    assert!(message.contains("connection refused"), "{message}");
    let view = world.answer(run.token);
    assert_eq!(view.reason.as_ref().and_then(|it| it.participant), Some(P2));
    world.settle();
    assert!(world.flights.is_empty() && world.coordinator.is_empty(), "nothing is owed to anybody");
    assert!(world.branch_at(P0, run.id).is_none());
}

#[test]
fn whoever_is_back_within_the_grace_is_used_at_once() {
    let mut world = World::new();
    world.disconnect(P1);
    world.disconnect(P2);
    let run = world.execute(&[P0, P1, P2]);
    world.advance(millis(500));
    world.connect(P1);
    assert!(world.flights.is_empty(), "another is still away");
    world.connect(P2);
    assert_eq!(world.on_the_way(), [(P0, "prepare"), (P1, "prepare"), (P2, "prepare")]);
    // Prepare's deadline begins now.
    world.advance(millis(4999));
    assert!(world.reply(run.token).is_none());
    world.take_flights();
    world.advance(millis(1));
    assert_eq!(reason(&world, run).0, "PREPARE_TIMEOUT");
}

#[test]
fn without_a_grace_it_is_aborted_at_once() {
    let mut world = World::new();
    world.disconnect(P1);
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.link_grace = seconds(0);
    });
    assert_eq!(world.outcome(run), Outcome::Aborted);
    assert!(world.flights.is_empty());
}

#[test]
fn the_grace_is_never_longer_than_prepares_deadline() {
    let mut world = World::new();
    world.disconnect(P1);
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.link_grace = seconds(60);
        begin.options.prepare_timeout = seconds(2);
    });
    world.advance(seconds(2));
    assert_eq!(reason(&world, run).0, "PARTICIPANT_UNAVAILABLE");
}

#[test]
fn locks_are_not_taken_while_a_participant_is_away() {
    let mut world = World::new();
    world.disconnect(P1);
    let waits = world.execute_locked("A", &[P0, P1]);
    let other = world.execute_locked("A", &[P0]);
    world.settle();
    assert_eq!(world.outcome(other), Outcome::Committed);
    world.connect(P1);
    world.settle();
    assert_eq!(world.outcome(waits), Outcome::Committed);
}

#[test]
fn a_client_that_drives_it_may_roll_it_back_while_it_waits_for_a_link() {
    let mut world = World::new();
    world.disconnect(P1);
    let id = world.begin();
    world.enlist(id, P0);
    world.enlist(id, P1);
    let asked = world.prepare(id);
    world.roll_back(id);
    assert_eq!(world.answer(asked).outcome, Outcome::Aborted);
    world.connect(P1);
    world.settle();
    assert!(world.branch_at(P0, id).is_none() && world.branch_at(P1, id).is_none());
}

#[test]
fn one_that_is_announced_is_known_while_it_waits_for_a_link() {
    let mut world = World::new();
    world.disconnect(P1);
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.announced = true;
        begin.waiter.at = AnswerAt::Begun;
    });
    world.sync();
    assert_eq!(world.outcome(run), Outcome::Pending);
    assert!(world.flights.is_empty());
    world.crash();
    world.connect_all();
    world.settle();
    assert!(world.branch_at(P0, run.id).is_none(), "no branch was sent anywhere");
    assert!(world.coordinator.is_empty());
}

#[test]
fn a_backoff_after_an_error_that_was_answered_outlasts_a_new_link() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.deliver_to(P1);
    world.hear_all();
    for _ in 0..5 {
        world.fail_all_at(P0, &Failure::answered("UNAVAILABLE: overloaded"));
        world.disconnect(P0);
        world.connect(P0);
        assert!(world.flights.is_empty(), "its wait was ended by a link");
        while world.flights.is_empty() {
            world.advance(millis(10));
        }
    }
    // What was lost with the link is sent at once.
    world.disconnect(P0);
    world.take_flights();
    world.connect(P0);
    assert_eq!(world.on_the_way(), [(P0, "prepare")]);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
}

#[test]
fn an_attempt_that_comes_late_ends_no_later_one() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.deliver_to(P1);
    world.hear_all();
    let first = world.take_flights();
    world.advance(millis(1050));
    let second = world.take_flights();
    assert_eq!((first[0].attempt, second[0].attempt), (1, 2));
    world.fail(&first[0], &Failure::answered("INTERNAL: late"));
    world.advance(millis(500));
    assert!(world.flights.is_empty(), "the second attempt still has half a second");
    world.advance(millis(700));
    assert_eq!(world.on_the_way(), [(P0, "prepare")], "the third");
    world.settle();
    // The same across phases: a prepare that fails late is no failed commit.
    assert_eq!(world.outcome(run), Outcome::Committed);
    let run = world.execute(&[P0, P1]);
    let prepares = world.take_flights();
    prepares.iter().for_each(|flight| world.deliver(flight));
    world.hear_all();
    world.sync();
    world.fail(&prepares[0], &Failure::lost("connection reset"));
    let commits = world.take_flights();
    assert!(commits.iter().all(|it| matches!(it.message, Message::Commit { .. })));
    world.advance(millis(1900));
    assert!(world.flights.is_empty());
    assert_eq!(world.look(run.id).branches[0].state, BranchState::Committing);
}

#[test]
fn the_reason_of_a_timeout_says_what_was_heard_last() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.deliver_to(P1);
    world.hear_all();
    while world.reply(run.token).is_none() {
        world.fail_all_at(P0, &Failure::answered("prepare was answered 204 No Content"));
        world.advance(millis(10));
    }
    let (code, message) = reason(&world, run);
    assert_eq!(code, "PREPARE_TIMEOUT");
    assert!(message.contains("last heard: prepare was answered 204 No Content"), "{message}");
    assert!(message.contains("attempts") && message.len() < 500, "{message}");
}

#[test]
fn a_recovered_transaction_has_the_present_options_and_its_own_attempts() {
    let mut world = World::new();
    let plain = world.execute(&[P0, P1]);
    let own = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_attempt_timeout = seconds(20);
    });
    world.exchange();
    world.sync();
    let mut config = dtc_core::Config::default();
    config.options.commit_attempt_timeout = seconds(10);
    world.restart_with(config);
    world.lose_all();
    world.connect_all();
    let sent = |world: &World, run: Run| {
        world.flights.iter().filter(|it| it.id == run.id && it.to == P0).count()
    };
    world.advance(seconds(9));
    assert_eq!((sent(&world, plain), sent(&world, own)), (1, 1));
    world.advance(seconds(8));
    assert_eq!((sent(&world, plain), sent(&world, own)), (2, 1), "10 s, then 20 s");
    world.advance(seconds(10));
    assert_eq!(sent(&world, own), 2);
}

#[test]
fn the_time_of_an_attempt_grows_until_a_slow_participant_is_heard() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.deliver_to(P1);
    world.hear_all();
    let mut spans = Vec::new();
    for _ in 0..8 {
        world.take_flights();
        let since = world.now;
        while world.flights.is_empty() {
            world.advance(millis(50));
        }
        spans.push(world.now.since(since));
    }
    assert!(spans[0] >= seconds(2) && spans[0] < seconds(3), "{spans:?}");
    assert!(spans[2] >= seconds(8) && spans[2] < seconds(10), "{spans:?}");
    assert!(spans[7] >= seconds(60) && spans[7] <= seconds(66), "no more than a minute: {spans:?}");
    assert_eq!(world.look(run.id).state, TransactionState::Committing);
    let token = world.call(run.id, Client::Get);
    assert!(world.answer(token).stalled, "longer attempts do not hide that it is stalled");
}

#[test]
fn the_reason_of_a_timeout_names_a_few_of_many_branches() {
    for (count, others) in [(3, false), (5, true)] {
        let mut world = World::new();
        let run = world.execute(&vec![P0; count]);
        world.advance(seconds(5));
        let (_, message) = reason(&world, run);
        assert_eq!(message.matches("has not voted").count(), 3, "{message}");
        assert_eq!(message.contains(", nor have 2 other branches"), others, "{message}");
        assert_eq!(message.contains("other branches"), others, "{message}");
    }
}

#[test]
fn an_attempt_is_ended_only_by_whom_it_was_sent_to() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    let attempt = world.flights[0].attempt;
    let why = Failure::lost("connection refused");
    world.event(Event::Unreachable { participant: P1, id: run.id, branch: 0, attempt, why });
    assert_eq!(world.count(run.id, TrailKind::Unreachable), 0);
}

#[test]
fn only_what_may_be_decided_is_called_stalled() {
    // Of one branch, which may have committed, and of two, which wait for votes.
    for (participants, stalled) in [(&[P0][..], true), (&[P0, P1][..], false)] {
        let mut world = World::new();
        let branches: Vec<_> = participants.iter().map(|it| (*it, YES)).collect();
        let run = world.execute_with(&branches, |begin| {
            let two = participants.len() > 1;
            begin.options.prepare_timeout = seconds(if two { 6000 } else { 5 });
        });
        world.advance(seconds(1200));
        assert!(world.look(run.id).branches[0].attempts > 10);
        assert_eq!(world.look(run.id).stalled, stalled, "{participants:?}");
    }
}

#[test]
fn a_deadline_comes_after_many_others_have_come_and_gone() {
    let mut world = World::new();
    let waits = world.execute(&[P0, P1]);
    world.lose_all();
    for _ in 0..5000 {
        world.execute(&[P2]);
        world.settle();
        // So that no check has to go through all that was.
        world.journal.durable.clear();
    }
    world.advance(seconds(5));
    assert_eq!(reason(&world, waits).0, "PREPARE_TIMEOUT");
}
