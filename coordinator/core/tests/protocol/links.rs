//! Links that are down, attempts that come to nothing, and what was heard of them.

use dtc_core::{
    AnswerAt, BranchState, Client, Event, Failure, Message, Outcome, TrailKind, TransactionState,
};

use crate::environment::{Environment, P0, P1, P2, Run, millis, seconds};
use crate::participant::YES;

fn reason(environment: &Environment, run: Run) -> (String, String) {
    let reason = environment.answer(run.token).reason.clone().expect("a reason");
    (reason.code.clone(), reason.message.clone())
}

#[test]
fn nobody_is_asked_while_a_participant_is_known_to_be_away() {
    let mut environment = Environment::new();
    environment.disconnect(P2);
    let run = environment.execute(&[P0, P1, P2]);
    assert!(environment.flights.is_empty(), "the others would hold what they promise");
    assert!(environment.journal.pending.is_empty(), "nobody was promised that it is known");
    assert_eq!(environment.look(run.id).state, TransactionState::Preparing);
    environment.advance(millis(999));
    assert!(environment.flights.is_empty() && environment.reply(run.token).is_none());
    environment.advance(millis(1));
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    let (code, message) = reason(&environment, run);
    assert_eq!(code, "PARTICIPANT_UNAVAILABLE");
    assert!(message.contains("connection refused"), "{message}");
    let view = environment.answer(run.token);
    assert_eq!(view.reason.as_ref().and_then(|it| it.participant), Some(P2));
    environment.settle();
    assert!(
        environment.flights.is_empty() && environment.coordinator.is_empty(),
        "nothing is owed to anybody"
    );
    assert!(environment.branch_at(P0, run.id).is_none());
}

#[test]
fn whoever_is_back_within_the_grace_is_used_at_once() {
    let mut environment = Environment::new();
    environment.disconnect(P1);
    environment.disconnect(P2);
    let run = environment.execute(&[P0, P1, P2]);
    environment.advance(millis(500));
    environment.connect(P1);
    assert!(environment.flights.is_empty(), "another is still away");
    environment.connect(P2);
    assert_eq!(environment.on_the_way(), [(P0, "prepare"), (P1, "prepare"), (P2, "prepare")]);
    // Prepare's deadline begins now.
    environment.advance(millis(4999));
    assert!(environment.reply(run.token).is_none());
    environment.take_flights();
    environment.advance(millis(1));
    assert_eq!(reason(&environment, run).0, "PREPARE_TIMEOUT");
}

#[test]
fn without_a_grace_it_is_aborted_at_once() {
    let mut environment = Environment::new();
    environment.disconnect(P1);
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.link_grace = seconds(0);
    });
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    assert!(environment.flights.is_empty());
}

#[test]
fn the_grace_is_never_longer_than_prepares_deadline() {
    let mut environment = Environment::new();
    environment.disconnect(P1);
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.link_grace = seconds(60);
        begin.options.prepare_timeout = seconds(2);
    });
    environment.advance(seconds(2));
    assert_eq!(reason(&environment, run).0, "PARTICIPANT_UNAVAILABLE");
}

#[test]
fn locks_are_not_taken_while_a_participant_is_away() {
    let mut environment = Environment::new();
    environment.disconnect(P1);
    let waits = environment.execute_locked("A", &[P0, P1]);
    let other = environment.execute_locked("A", &[P0]);
    environment.settle();
    assert_eq!(environment.outcome(other), Outcome::Committed);
    environment.connect(P1);
    environment.settle();
    assert_eq!(environment.outcome(waits), Outcome::Committed);
}

#[test]
fn a_client_that_drives_it_may_roll_it_back_while_it_waits_for_a_link() {
    let mut environment = Environment::new();
    environment.disconnect(P1);
    let id = environment.begin();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    let asked = environment.prepare(id);
    environment.roll_back(id);
    assert_eq!(environment.answer(asked).outcome, Outcome::Aborted);
    environment.connect(P1);
    environment.settle();
    assert!(environment.branch_at(P0, id).is_none() && environment.branch_at(P1, id).is_none());
}

#[test]
fn one_that_is_announced_is_known_while_it_waits_for_a_link() {
    let mut environment = Environment::new();
    environment.disconnect(P1);
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.id_may_be_known = true;
        begin.waiter.at = AnswerAt::Begun;
    });
    environment.sync();
    assert_eq!(environment.outcome(run), Outcome::Pending);
    assert!(environment.flights.is_empty());
    environment.crash();
    environment.connect_all();
    environment.settle();
    assert!(environment.branch_at(P0, run.id).is_none(), "no branch was sent anywhere");
    assert!(environment.coordinator.is_empty());
}

#[test]
fn a_backoff_after_an_error_that_was_answered_outlasts_a_new_link() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.deliver_to(P1);
    environment.hear_all();
    for _ in 0..5 {
        environment.fail_all_at(P0, &Failure::answered("UNAVAILABLE: overloaded"));
        environment.disconnect(P0);
        environment.connect(P0);
        assert!(environment.flights.is_empty(), "its wait was ended by a link");
        while environment.flights.is_empty() {
            environment.advance(millis(10));
        }
    }
    // What was lost with the link is sent at once.
    environment.disconnect(P0);
    environment.take_flights();
    environment.connect(P0);
    assert_eq!(environment.on_the_way(), [(P0, "prepare")]);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}

#[test]
fn an_attempt_that_comes_late_ends_no_later_one() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.deliver_to(P1);
    environment.hear_all();
    let first = environment.take_flights();
    environment.advance(millis(1050));
    let second = environment.take_flights();
    assert_eq!((first[0].attempt, second[0].attempt), (1, 2));
    environment.fail(&first[0], &Failure::answered("INTERNAL: late"));
    environment.advance(millis(500));
    assert!(environment.flights.is_empty(), "the second attempt still has half a second");
    environment.advance(millis(700));
    assert_eq!(environment.on_the_way(), [(P0, "prepare")], "the third");
    environment.settle();
    // The same across phases: a prepare that fails late is no failed commit.
    assert_eq!(environment.outcome(run), Outcome::Committed);
    let run = environment.execute(&[P0, P1]);
    let prepares = environment.take_flights();
    prepares.iter().for_each(|flight| environment.deliver(flight));
    environment.hear_all();
    environment.sync();
    environment.fail(&prepares[0], &Failure::lost("connection reset"));
    let commits = environment.take_flights();
    assert!(commits.iter().all(|it| matches!(it.message, Message::Commit { .. })));
    environment.advance(millis(1900));
    assert!(environment.flights.is_empty());
    assert_eq!(environment.look(run.id).branches[0].state, BranchState::Committing);
}

#[test]
fn the_reason_of_a_timeout_says_what_was_heard_last() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.deliver_to(P1);
    environment.hear_all();
    while environment.reply(run.token).is_none() {
        environment.fail_all_at(P0, &Failure::answered("prepare was answered 204 No Content"));
        environment.advance(millis(10));
    }
    let (code, message) = reason(&environment, run);
    assert_eq!(code, "PREPARE_TIMEOUT");
    assert!(message.contains("last answer: prepare was answered 204 No Content"), "{message}");
    assert!(message.contains("attempts") && message.len() < 500, "{message}");
}

#[test]
fn a_recovered_transaction_has_the_present_options_and_its_own_attempts() {
    let mut environment = Environment::new();
    let plain = environment.execute(&[P0, P1]);
    let own = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_attempt_timeout = seconds(20);
    });
    environment.exchange();
    environment.sync();
    let mut config = dtc_core::Config::default();
    config.options.commit_attempt_timeout = seconds(10);
    environment.restart_with(config);
    environment.lose_all();
    environment.connect_all();
    let sent = |environment: &Environment, run: Run| {
        environment.flights.iter().filter(|it| it.id == run.id && it.to == P0).count()
    };
    environment.advance(seconds(9));
    assert_eq!((sent(&environment, plain), sent(&environment, own)), (1, 1));
    environment.advance(seconds(8));
    assert_eq!((sent(&environment, plain), sent(&environment, own)), (2, 1), "10 s, then 20 s");
    environment.advance(seconds(10));
    assert_eq!(sent(&environment, own), 2);
}

#[test]
fn the_time_of_an_attempt_grows_until_a_slow_participant_is_heard() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.deliver_to(P1);
    environment.hear_all();
    let mut spans = Vec::new();
    for _ in 0..8 {
        environment.take_flights();
        let since = environment.now;
        while environment.flights.is_empty() {
            environment.advance(millis(50));
        }
        spans.push(environment.now.since(since));
    }
    assert!(spans[0] >= seconds(2) && spans[0] < seconds(3), "{spans:?}");
    assert!(spans[2] >= seconds(8) && spans[2] < seconds(10), "{spans:?}");
    assert!(spans[7] >= seconds(60) && spans[7] <= seconds(66), "no more than a minute: {spans:?}");
    assert_eq!(environment.look(run.id).state, TransactionState::Committing);
    let token = environment.call(run.id, Client::Get);
    assert!(environment.answer(token).stalled, "longer attempts do not hide that it is stalled");
}

#[test]
fn the_reason_of_a_timeout_names_a_few_of_many_branches() {
    for (count, others) in [(3, false), (5, true)] {
        let mut environment = Environment::new();
        let run = environment.execute(&vec![P0; count]);
        environment.advance(seconds(5));
        let (_, message) = reason(&environment, run);
        assert_eq!(message.matches("has not voted").count(), 3, "{message}");
        assert_eq!(message.contains(", nor have 2 other branches"), others, "{message}");
        assert_eq!(message.contains("other branches"), others, "{message}");
    }
}

#[test]
fn an_attempt_is_ended_only_by_whom_it_was_sent_to() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    let attempt = environment.flights[0].attempt;
    let why = Failure::lost("connection refused");
    environment.event(Event::Unreachable { participant: P1, id: run.id, branch: 0, attempt, why });
    assert_eq!(environment.count(run.id, TrailKind::Unreachable), 0);
}

#[test]
fn only_what_may_be_decided_is_called_stalled() {
    // Of one branch, which may have committed, and of two, which wait for votes.
    for (participants, stalled) in [(&[P0][..], true), (&[P0, P1][..], false)] {
        let mut environment = Environment::new();
        let branches: Vec<_> = participants.iter().map(|it| (*it, YES)).collect();
        let run = environment.execute_with(&branches, |begin| {
            let two = participants.len() > 1;
            begin.options.prepare_timeout = seconds(if two { 6000 } else { 5 });
        });
        environment.advance(seconds(1200));
        assert!(environment.look(run.id).branches[0].attempts > 10);
        assert_eq!(environment.look(run.id).stalled, stalled, "{participants:?}");
    }
}

#[test]
fn a_deadline_comes_after_many_others_have_come_and_gone() {
    let mut environment = Environment::new();
    let waits = environment.execute(&[P0, P1]);
    environment.lose_all();
    for _ in 0..5000 {
        environment.execute(&[P2]);
        environment.settle();
        // So that no check has to go through all that was.
        environment.journal.durable.clear();
    }
    environment.advance(seconds(5));
    assert_eq!(reason(&environment, waits).0, "PREPARE_TIMEOUT");
}
