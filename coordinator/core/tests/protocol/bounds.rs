//! Unfinished work is bounded, and what is over a bound is refused at once.

use dtc_core::{
    Client, Config, Event, InterventionAction, Message, Opaque, ParticipantId, Refused, Reply, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    environment::{Environment, Flight, P0, P1, P2, Run, branch, keyed, seconds},
    participant::YES,
    resolved::{by_operator, resolve, stuck},
};

fn refused(environment: &Environment, run: Run) -> Option<Refused> {
    match environment.reply(run.token) {
        Some(Reply::Refused(refused)) => Some(refused.clone()),
        _ => None,
    }
}

#[test]
fn a_participant_at_its_bound_is_refused_and_the_others_go_on() {
    let mut environment = Environment::with(Config { max_per_participant: 2, ..Config::default() });
    environment.execute(&[P0, P1]);
    environment.execute(&[P0, P0]);
    let full = Some(Refused::TooManyAtParticipant { participant: P0, limit: 2 });
    let run = environment.execute(&[P1, P0]);
    assert_eq!(refused(&environment, run), full);
    let run = environment.execute(&[P1, P2]);
    assert_eq!(refused(&environment, run), None);
    environment.settle();
    let run = environment.execute(&[P0, P1]);
    assert_eq!(refused(&environment, run), None, "there is room again");
}

#[test]
fn the_bound_holds_for_branches_that_are_enlisted() {
    let mut environment = Environment::with(Config { max_per_participant: 1, ..Config::default() });
    let id = environment.begin();
    environment.execute(&[P0, P1]);
    let token = environment.enlist(id, P0);
    let full = Refused::TooManyAtParticipant { participant: P0, limit: 1 };
    assert!(matches!(environment.reply(token), Some(Reply::Refused(it)) if *it == full));
}

#[test]
fn the_bound_holds_for_runs_that_waited_for_their_key() {
    let mut environment = Environment::with(Config { max_per_participant: 1, ..Config::default() });
    let branches = [(P0, YES), (P1, YES)];
    let first = environment.execute_with(&branches, |begin| begin.key = keyed("a", 1));
    let second = environment.execute_with(&branches, |begin| begin.key = keyed("b", 1));
    let joined = environment.execute_with(&branches, |begin| begin.key = keyed("b", 1));
    environment.answer_lookups();
    let full = Some(Refused::TooManyAtParticipant { participant: P0, limit: 1 });
    assert_eq!(refused(&environment, first), None);
    assert_eq!(
        (refused(&environment, second), refused(&environment, joined)),
        (full.clone(), full)
    );
    environment.settle();
    let again = environment.execute_keyed("b", &[P0, P1]);
    assert_eq!(refused(&environment, again), None, "the key is free");
}

#[test]
fn transactions_branches_and_bytes_are_bounded() {
    let mut environment = Environment::with(Config { max_in_flight: 2, ..Config::default() });
    environment.execute(&[P0]);
    environment.execute_with(&[(P0, YES)], |begin| begin.key = keyed("a", 1));
    let run = environment.execute(&[P1]);
    assert_eq!(refused(&environment, run), Some(Refused::TooManyInFlight { limit: 2 }));

    let mut environment = Environment::with(Config { max_branches: 2, ..Config::default() });
    let run = environment.execute(&[P0, P1, P2]);
    assert_eq!(refused(&environment, run), Some(Refused::TooManyBranches { limit: 2 }));

    let mut environment = Environment::with(Config { max_in_flight_bytes: 3, ..Config::default() });
    environment.execute(&[P0, P1]);
    let run = environment.execute(&[P0, P1]);
    assert_eq!(refused(&environment, run), Some(Refused::TooManyBytes { limit: 3 }));
    environment.settle();
    let run = environment.execute(&[P0, P1, P2]);
    assert_eq!(refused(&environment, run), None, "the bytes are given back");
}

fn vote(run: Run, branch: u32, output: usize) -> Event {
    let output = Some(Opaque::from(vec![7; output]));
    let vote = Vote::Commit { output, committed: false };
    let from = ParticipantId(branch);
    Event::Voted { from, journal: Some(JournalId::from_bytes([9; 16])), id: run.id, branch, vote }
}

fn aborted(environment: &Environment, run: Run) -> Option<String> {
    let Some(Reply::Transaction(view)) = environment.reply(run.token) else { return None };
    view.reason.as_ref().map(|reason| reason.code.clone())
}

#[test]
fn what_prepares_returned_is_bounded_with_the_payloads() {
    let config = || Config { max_in_flight_bytes: 1000, max_output: 600, ..Config::default() };
    let mut environment = Environment::with(config());
    let (first, second) = (environment.execute(&[P0, P1]), environment.execute(&[P0, P1]));
    environment.event(vote(first, 0, 600));
    environment.event(vote(first, 0, 600));
    let run = environment.execute(&[P0]);
    assert_eq!(refused(&environment, run), None, "a repeated vote counts once");

    // More than there is room for: its transaction aborts, and both branches are told.
    environment.flights.clear();
    environment.event(vote(second, 0, 600));
    assert_eq!(aborted(&environment, second).as_deref(), Some("TOO_MANY_OUTPUTS"));
    let told = |environment: &Environment, run: Run| {
        let rollback =
            |it: &&Flight| it.id == run.id && matches!(it.message, Message::Rollback { .. });
        environment.flights.iter().filter(rollback).count()
    };
    assert_eq!(told(&environment, second), 2);

    // Within the room, and then new work is refused until some has ended.
    environment.event(vote(first, 1, 390));
    let third = environment.execute(&[P0; 9]);
    let full = Some(Refused::TooManyBytes { limit: 1000 });
    assert_eq!(refused(&environment, third), full);
    environment.settle();
    let again = environment.execute(&[P0; 9]);
    assert_eq!(refused(&environment, again), None, "the bytes are given back");

    // One that is too large by itself.
    let large = environment.execute(&[P0, P1]);
    environment.event(vote(large, 1, 601));
    assert_eq!(aborted(&environment, large).as_deref(), Some("OUTPUT_TOO_LARGE"));
}

#[test]
fn what_prepares_returned_counts_again_after_a_crash() {
    let mut environment =
        Environment::with(Config { max_in_flight_bytes: 1000, ..Config::default() });
    let run = environment.execute(&[P0, P1]);
    environment.event(vote(run, 0, 500));
    environment.event(vote(run, 1, 400));
    environment.sync();
    environment.crash();
    let payloads = [(P0, YES); 101];
    let refusal = environment.execute_with(&payloads, |_| {});
    assert_eq!(refused(&environment, refusal), Some(Refused::TooManyBytes { limit: 1000 }));
}

#[test]
fn recovered_work_does_not_use_up_the_room_of_new_work() {
    let mut environment = Environment::with(Config { max_per_participant: 1, ..Config::default() });
    environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.lose_all();
    environment.crash();
    let run = environment.execute(&[P0, P1]);
    assert_eq!(refused(&environment, run), None);
}

#[test]
fn calls_that_wait_for_one_transaction_are_bounded() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.answer_lookups();
    let mut again = Vec::new();
    for _ in 0..1000 {
        again.push(environment.execute_keyed("a", &[P0, P1]));
    }
    let answered = |environment: &Environment, run: &Run| environment.reply(run.token).is_some();
    assert!(answered(&environment, &first), "as if its wait had ended");
    let waiting = again.iter().filter(|run| !answered(&environment, run)).count();
    assert!((1..=256).contains(&waiting), "{waiting} wait");
    environment.settle();
    assert!(again.iter().all(|run| answered(&environment, run)), "and all are answered");
}

#[test]
fn a_repeat_needs_no_room() {
    let configs = [
        Config { max_in_flight: 1, ..Config::default() },
        Config { max_per_participant: 1, ..Config::default() },
        Config { max_in_flight_bytes: 2, ..Config::default() },
    ];
    for config in configs {
        let mut environment = Environment::with(config.clone());
        let finished = environment.execute_keyed("a", &[P0, P1]);
        environment.settle();
        let running = environment.execute_keyed("b", &[P0, P1]);
        environment.answer_lookups();
        let joined = environment.execute_keyed("b", &[P0, P1]);
        let branches = [(P0, YES), (P1, YES)];
        let again = environment.execute_with(&branches, |begin| begin.key = keyed("a", 1));
        let new = environment.execute_with(&branches, |begin| begin.key = keyed("c", 1));
        for run in [again, new] {
            assert_eq!(refused(&environment, run), None, "the journal is asked first: {config:?}");
        }
        environment.answer_lookups();
        let told = environment.reply(again.token);
        assert!(matches!(told, Some(Reply::See(id)) if *id == finished.id), "{config:?}: {told:?}");
        assert!(refused(&environment, new).is_some(), "{config:?}");
        environment.settle();
        assert_eq!(environment.answer(joined.token).id, running.id, "{config:?}");
    }
}

#[test]
fn a_repeat_fits_smaller_bounds_of_one_request() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.settle();
    environment.config = Config { max_branches: 1, max_locks: 0, ..Config::default() };
    environment.crash();
    let again = environment.execute_keyed("a", &[P0, P1]);
    environment.answer_lookups();
    assert!(matches!(environment.reply(again.token), Some(Reply::See(id)) if *id == first.id));
    let new = environment.execute_keyed("b", &[P0, P1]);
    environment.answer_lookups();
    assert_eq!(refused(&environment, new), Some(Refused::TooManyBranches { limit: 1 }));
}

#[test]
fn what_fills_a_bound_exactly_is_admitted() {
    let mut environment = Environment::with(Config { max_branches: 2, ..Config::default() });
    let run = environment.execute(&[P0, P1]);
    assert_eq!(refused(&environment, run), None);

    let mut environment = Environment::with(Config { max_in_flight_bytes: 6, ..Config::default() });
    environment.execute(&[P0; 4]);
    let run = environment.execute(&[P0; 2]);
    assert_eq!(refused(&environment, run), None);
}

#[test]
fn requests_that_wait_for_their_key_hold_their_bytes() {
    let mut environment = Environment::with(Config { max_in_flight_bytes: 6, ..Config::default() });
    let run = environment.execute_with(&[(P0, YES); 4], |begin| begin.key = keyed("a", 1));
    let more = environment.execute(&[P0; 3]);
    assert_eq!(refused(&environment, more), Some(Refused::TooManyBytes { limit: 6 }));
    let fits = environment.execute(&[P0; 2]);
    assert_eq!(refused(&environment, fits), None);
    environment.answer_lookups();
    assert_eq!(refused(&environment, run), None, "it does not stand in its own way");
}

#[test]
fn payloads_that_fill_the_bound_leave_a_quarter_of_it_for_outputs() {
    let mut environment = Environment::with(Config { max_in_flight_bytes: 8, ..Config::default() });
    let run = environment.execute(&[P0, P1, P2, P0, P0, P0, P0, P0]);
    environment.event(vote(run, 0, 2));
    assert_eq!(aborted(&environment, run), None);
    environment.event(vote(run, 1, 1));
    assert_eq!(aborted(&environment, run).as_deref(), Some("TOO_MANY_OUTPUTS"));
}

#[test]
fn branches_and_locks_that_are_added_are_bounded() {
    let config = Config { max_branches: 2, max_locks_per_owner: 2, ..Config::default() };
    let mut environment = Environment::with(config);
    let id = environment.begin();
    for number in 0..2 {
        let token = environment.enlist(id, P0);
        assert!(matches!(environment.reply(token), Some(Reply::Enlisted(it)) if *it == number));
    }
    let token = environment.enlist(id, P1);
    let full = Refused::TooManyBranches { limit: 2 };
    assert!(matches!(environment.reply(token), Some(Reply::Refused(it)) if *it == full));

    let first = environment.lock(id, "A");
    assert!(matches!(environment.reply(first), Some(Reply::Locked { .. })));
    let token = environment.lock(id, "BC");
    let full = Refused::TooManyLocksOfOne { limit: 2 };
    assert!(matches!(environment.reply(token), Some(Reply::Refused(it)) if *it == full));
    let second = environment.lock(id, "B");
    assert!(matches!(environment.reply(second), Some(Reply::Locked { .. })), "one more has room");
    let token = environment.lock(id, "C");
    assert!(matches!(environment.reply(token), Some(Reply::Refused(it)) if *it == full));
}

#[test]
fn calls_that_are_remembered_are_bounded() {
    let config = Config { max_branches: 2, max_locks_per_owner: 3, ..Config::default() };
    let mut environment = Environment::with(config);
    let id = environment.begin();
    let until = environment.now;
    for key in ["a", "b", "c", "d", "e"] {
        let locks = Some(crate::environment::locks("A"));
        let token = environment.call(id, Client::Lock { locks, key: keyed(key, 1), until });
        assert!(matches!(environment.reply(token), Some(Reply::Locked { .. })), "{key}");
    }
    let enlist = |key| Client::Enlist { branch: Some(branch(P0, YES)), key };
    let token = environment.call(id, enlist(keyed("f", 1)));
    let full = Refused::TooManyCalls { limit: 5 };
    assert!(matches!(environment.reply(token), Some(Reply::Refused(it)) if *it == full));
    let token = environment.call(id, enlist(None));
    assert!(
        matches!(environment.reply(token), Some(Reply::Enlisted(0))),
        "nothing to be remembered"
    );
}

#[test]
fn retries_by_hand_are_bounded() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    for _ in 0..100 {
        let intervention = by_operator(&environment, InterventionAction::Retry, None);
        let token = environment.call(run.id, Client::Retry { intervention });
        assert!(matches!(environment.reply(token), Some(Reply::Transaction(_))));
    }
    let intervention = by_operator(&environment, InterventionAction::Retry, None);
    let token = environment.call(run.id, Client::Retry { intervention });
    let full = Refused::TooManyRetries { limit: 100 };
    assert!(matches!(environment.reply(token), Some(Reply::Refused(it)) if *it == full));
}

#[test]
fn what_only_notifies_gives_its_bytes_back() {
    // Two of payloads, and four that the branches returned, which are kept.
    let mut environment = Environment::with(Config { max_in_flight_bytes: 6, ..Config::default() });
    let first = stuck(&mut environment);
    let more = environment.execute(&[P0]);
    assert_eq!(refused(&environment, more), Some(Refused::TooManyBytes { limit: 6 }));
    resolve(&mut environment, first, true, None);
    environment.sync();
    environment.advance(seconds(30));
    environment.sync();
    assert_eq!(environment.coordinator.notifying(), 1);
    let more = environment.execute(&[P0, P0]);
    assert_eq!(refused(&environment, more), None);
}
