//! Unfinished work is bounded, and what is over a bound is refused at once.

use dtc_core::{
    Client, Config, Event, InterventionAction, Message, Opaque, ParticipantId, Refused, Reply, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    forced::{by_hand, resolve, stuck},
    participant::YES,
    world::{Flight, P0, P1, P2, Run, World, branch, keyed, seconds},
};

fn refused(world: &World, run: Run) -> Option<Refused> {
    match world.reply(run.token) {
        Some(Reply::Refused(refused)) => Some(refused.clone()),
        _ => None,
    }
}

#[test]
fn a_participant_at_its_bound_is_refused_and_the_others_go_on() {
    let mut world = World::with(Config { max_per_participant: 2, ..Config::default() });
    world.execute(&[P0, P1]);
    world.execute(&[P0, P0]);
    let full = Some(Refused::TooManyAtParticipant { participant: P0, limit: 2 });
    let run = world.execute(&[P1, P0]);
    assert_eq!(refused(&world, run), full);
    let run = world.execute(&[P1, P2]);
    assert_eq!(refused(&world, run), None);
    world.settle();
    let run = world.execute(&[P0, P1]);
    assert_eq!(refused(&world, run), None, "there is room again");
}

#[test]
fn the_bound_holds_for_branches_that_are_enlisted() {
    let mut world = World::with(Config { max_per_participant: 1, ..Config::default() });
    let id = world.begin();
    world.execute(&[P0, P1]);
    let token = world.enlist(id, P0);
    let full = Refused::TooManyAtParticipant { participant: P0, limit: 1 };
    assert!(matches!(world.reply(token), Some(Reply::Refused(it)) if *it == full));
}

#[test]
fn the_bound_holds_for_runs_that_waited_for_their_key() {
    let mut world = World::with(Config { max_per_participant: 1, ..Config::default() });
    let branches = [(P0, YES), (P1, YES)];
    let first = world.execute_with(&branches, |begin| begin.key = keyed("a", 1));
    let second = world.execute_with(&branches, |begin| begin.key = keyed("b", 1));
    let joined = world.execute_with(&branches, |begin| begin.key = keyed("b", 1));
    world.answer_lookups();
    let full = Some(Refused::TooManyAtParticipant { participant: P0, limit: 1 });
    assert_eq!(refused(&world, first), None);
    assert_eq!((refused(&world, second), refused(&world, joined)), (full.clone(), full));
    world.settle();
    let again = world.execute_keyed("b", &[P0, P1]);
    assert_eq!(refused(&world, again), None, "the key is free");
}

#[test]
fn transactions_branches_and_bytes_are_bounded() {
    let mut world = World::with(Config { max_in_flight: 2, ..Config::default() });
    world.execute(&[P0]);
    world.execute_with(&[(P0, YES)], |begin| begin.key = keyed("a", 1));
    let run = world.execute(&[P1]);
    assert_eq!(refused(&world, run), Some(Refused::TooManyInFlight { limit: 2 }));

    let mut world = World::with(Config { max_branches: 2, ..Config::default() });
    let run = world.execute(&[P0, P1, P2]);
    assert_eq!(refused(&world, run), Some(Refused::TooManyBranches { limit: 2 }));

    let mut world = World::with(Config { max_in_flight_bytes: 3, ..Config::default() });
    world.execute(&[P0, P1]);
    let run = world.execute(&[P0, P1]);
    assert_eq!(refused(&world, run), Some(Refused::TooManyBytes { limit: 3 }));
    world.settle();
    let run = world.execute(&[P0, P1, P2]);
    assert_eq!(refused(&world, run), None, "the bytes are given back");
}

fn vote(run: Run, branch: u32, output: usize) -> Event {
    let output = Some(Opaque::from(vec![7; output]));
    let vote = Vote::Commit { output, committed: false };
    let from = ParticipantId(branch);
    Event::Voted { from, journal: Some(JournalId::from_bytes([9; 16])), id: run.id, branch, vote }
}

fn aborted(world: &World, run: Run) -> Option<String> {
    let Some(Reply::Transaction(view)) = world.reply(run.token) else { return None };
    view.reason.as_ref().map(|reason| reason.code.clone())
}

#[test]
fn what_prepares_returned_is_bounded_with_the_payloads() {
    let config = || Config { max_in_flight_bytes: 1000, max_output: 600, ..Config::default() };
    let mut world = World::with(config());
    let (first, second) = (world.execute(&[P0, P1]), world.execute(&[P0, P1]));
    world.event(vote(first, 0, 600));
    world.event(vote(first, 0, 600));
    let run = world.execute(&[P0]);
    assert_eq!(refused(&world, run), None, "a repeated vote counts once");

    // More than there is room for: its transaction aborts, and both branches are told.
    world.flights.clear();
    world.event(vote(second, 0, 600));
    assert_eq!(aborted(&world, second).as_deref(), Some("TOO_MANY_OUTPUTS"));
    let told = |world: &World, run: Run| {
        let rollback =
            |it: &&Flight| it.id == run.id && matches!(it.message, Message::Rollback { .. });
        world.flights.iter().filter(rollback).count()
    };
    assert_eq!(told(&world, second), 2);

    // Within the room, and then new work is refused until some has ended.
    world.event(vote(first, 1, 390));
    let third = world.execute(&[P0; 9]);
    let full = Some(Refused::TooManyBytes { limit: 1000 });
    assert_eq!(refused(&world, third), full);
    world.settle();
    let again = world.execute(&[P0; 9]);
    assert_eq!(refused(&world, again), None, "the bytes are given back");

    // One that is too large by itself.
    let large = world.execute(&[P0, P1]);
    world.event(vote(large, 1, 601));
    assert_eq!(aborted(&world, large).as_deref(), Some("OUTPUT_TOO_LARGE"));
}

#[test]
fn what_prepares_returned_counts_again_after_a_crash() {
    let mut world = World::with(Config { max_in_flight_bytes: 1000, ..Config::default() });
    let run = world.execute(&[P0, P1]);
    world.event(vote(run, 0, 500));
    world.event(vote(run, 1, 400));
    world.sync();
    world.crash();
    let payloads = [(P0, YES); 101];
    let refusal = world.execute_with(&payloads, |_| {});
    assert_eq!(refused(&world, refusal), Some(Refused::TooManyBytes { limit: 1000 }));
}

#[test]
fn recovered_work_does_not_use_up_the_room_of_new_work() {
    let mut world = World::with(Config { max_per_participant: 1, ..Config::default() });
    world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.lose_all();
    world.crash();
    let run = world.execute(&[P0, P1]);
    assert_eq!(refused(&world, run), None);
}

#[test]
fn calls_that_wait_for_one_transaction_are_bounded() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.answer_lookups();
    let mut again = Vec::new();
    for _ in 0..1000 {
        again.push(world.execute_keyed("a", &[P0, P1]));
    }
    let answered = |world: &World, run: &Run| world.reply(run.token).is_some();
    assert!(answered(&world, &first), "as if its wait had ended");
    let waiting = again.iter().filter(|run| !answered(&world, run)).count();
    assert!((1..=256).contains(&waiting), "{waiting} wait");
    world.settle();
    assert!(again.iter().all(|run| answered(&world, run)), "and all are answered");
}

#[test]
fn a_repeat_needs_no_room() {
    let configs = [
        Config { max_in_flight: 1, ..Config::default() },
        Config { max_per_participant: 1, ..Config::default() },
        Config { max_in_flight_bytes: 2, ..Config::default() },
    ];
    for config in configs {
        let mut world = World::with(config.clone());
        let finished = world.execute_keyed("a", &[P0, P1]);
        world.settle();
        let running = world.execute_keyed("b", &[P0, P1]);
        world.answer_lookups();
        let joined = world.execute_keyed("b", &[P0, P1]);
        let branches = [(P0, YES), (P1, YES)];
        let again = world.execute_with(&branches, |begin| begin.key = keyed("a", 1));
        let new = world.execute_with(&branches, |begin| begin.key = keyed("c", 1));
        for run in [again, new] {
            assert_eq!(refused(&world, run), None, "the journal is asked first: {config:?}");
        }
        world.answer_lookups();
        let told = world.reply(again.token);
        assert!(matches!(told, Some(Reply::See(id)) if *id == finished.id), "{config:?}: {told:?}");
        assert!(refused(&world, new).is_some(), "{config:?}");
        world.settle();
        assert_eq!(world.answer(joined.token).id, running.id, "{config:?}");
    }
}

#[test]
fn a_repeat_fits_smaller_bounds_of_one_request() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.settle();
    world.config = Config { max_branches: 1, max_locks: 0, ..Config::default() };
    world.crash();
    let again = world.execute_keyed("a", &[P0, P1]);
    world.answer_lookups();
    assert!(matches!(world.reply(again.token), Some(Reply::See(id)) if *id == first.id));
    let new = world.execute_keyed("b", &[P0, P1]);
    world.answer_lookups();
    assert_eq!(refused(&world, new), Some(Refused::TooManyBranches { limit: 1 }));
}

#[test]
fn what_fills_a_bound_exactly_is_admitted() {
    let mut world = World::with(Config { max_branches: 2, ..Config::default() });
    let run = world.execute(&[P0, P1]);
    assert_eq!(refused(&world, run), None);

    let mut world = World::with(Config { max_in_flight_bytes: 6, ..Config::default() });
    world.execute(&[P0; 4]);
    let run = world.execute(&[P0; 2]);
    assert_eq!(refused(&world, run), None);
}

#[test]
fn requests_that_wait_for_their_key_hold_their_bytes() {
    let mut world = World::with(Config { max_in_flight_bytes: 6, ..Config::default() });
    let run = world.execute_with(&[(P0, YES); 4], |begin| begin.key = keyed("a", 1));
    let more = world.execute(&[P0; 3]);
    assert_eq!(refused(&world, more), Some(Refused::TooManyBytes { limit: 6 }));
    let fits = world.execute(&[P0; 2]);
    assert_eq!(refused(&world, fits), None);
    world.answer_lookups();
    assert_eq!(refused(&world, run), None, "it does not stand in its own way");
}

#[test]
fn payloads_that_fill_the_bound_leave_a_quarter_of_it_for_outputs() {
    let mut world = World::with(Config { max_in_flight_bytes: 8, ..Config::default() });
    let run = world.execute(&[P0, P1, P2, P0, P0, P0, P0, P0]);
    world.event(vote(run, 0, 2));
    assert_eq!(aborted(&world, run), None);
    world.event(vote(run, 1, 1));
    assert_eq!(aborted(&world, run).as_deref(), Some("TOO_MANY_OUTPUTS"));
}

#[test]
fn branches_and_locks_that_are_added_are_bounded() {
    let config = Config { max_branches: 2, max_locks_per_owner: 2, ..Config::default() };
    let mut world = World::with(config);
    let id = world.begin();
    for number in 0..2 {
        let token = world.enlist(id, P0);
        assert!(matches!(world.reply(token), Some(Reply::Enlisted(it)) if *it == number));
    }
    let token = world.enlist(id, P1);
    let full = Refused::TooManyBranches { limit: 2 };
    assert!(matches!(world.reply(token), Some(Reply::Refused(it)) if *it == full));

    let first = world.lock(id, "A");
    assert!(matches!(world.reply(first), Some(Reply::Locked { .. })));
    let token = world.lock(id, "BC");
    let full = Refused::TooManyLocksOfOne { limit: 2 };
    assert!(matches!(world.reply(token), Some(Reply::Refused(it)) if *it == full));
    let second = world.lock(id, "B");
    assert!(matches!(world.reply(second), Some(Reply::Locked { .. })), "one more has room");
    let token = world.lock(id, "C");
    assert!(matches!(world.reply(token), Some(Reply::Refused(it)) if *it == full));
}

#[test]
fn calls_that_are_remembered_are_bounded() {
    let config = Config { max_branches: 2, max_locks_per_owner: 3, ..Config::default() };
    let mut world = World::with(config);
    let id = world.begin();
    let until = world.now;
    for key in ["a", "b", "c", "d", "e"] {
        let locks = Some(crate::world::locks("A"));
        let token = world.call(id, Client::Lock { locks, key: keyed(key, 1), until });
        assert!(matches!(world.reply(token), Some(Reply::Locked { .. })), "{key}");
    }
    let enlist = |key| Client::Enlist { branch: Some(branch(P0, YES)), key };
    let token = world.call(id, enlist(keyed("f", 1)));
    let full = Refused::TooManyCalls { limit: 5 };
    assert!(matches!(world.reply(token), Some(Reply::Refused(it)) if *it == full));
    let token = world.call(id, enlist(None));
    assert!(matches!(world.reply(token), Some(Reply::Enlisted(0))), "nothing to be remembered");
}

#[test]
fn retries_by_hand_are_bounded() {
    let mut world = World::new();
    let run = stuck(&mut world);
    for _ in 0..100 {
        let intervention = by_hand(&world, InterventionAction::Retry, None);
        let token = world.call(run.id, Client::Retry { intervention });
        assert!(matches!(world.reply(token), Some(Reply::Transaction(_))));
    }
    let intervention = by_hand(&world, InterventionAction::Retry, None);
    let token = world.call(run.id, Client::Retry { intervention });
    let full = Refused::TooManyRetries { limit: 100 };
    assert!(matches!(world.reply(token), Some(Reply::Refused(it)) if *it == full));
}

#[test]
fn what_only_notifies_gives_its_bytes_back() {
    // Two of payloads, and four that the branches returned, which are kept.
    let mut world = World::with(Config { max_in_flight_bytes: 6, ..Config::default() });
    let first = stuck(&mut world);
    let more = world.execute(&[P0]);
    assert_eq!(refused(&world, more), Some(Refused::TooManyBytes { limit: 6 }));
    resolve(&mut world, first, true, None);
    world.sync();
    world.advance(seconds(30));
    world.sync();
    assert_eq!(world.coordinator.notifying(), 1);
    let more = world.execute(&[P0, P0]);
    assert_eq!(refused(&world, more), None);
}
