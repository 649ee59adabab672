//! Calls that wait for locks, and how their waits end.

use dtc_core::{Client, Config, Deadlocks, Outcome, Refused, Reply};

use crate::world::{P0, World, keyed, locks, seconds};

fn refused(world: &World, token: u64) -> Option<&Refused> {
    match world.reply(token) {
        Some(Reply::Refused(refused)) => Some(refused),
        _ => None,
    }
}

fn is_locked(world: &World, token: u64) -> bool {
    matches!(world.reply(token), Some(Reply::Locked { .. }))
}

#[test]
fn a_call_whose_time_is_over_is_told_so_and_its_transaction_goes_on() {
    let mut world = World::new();
    let (holder, waiter) = (world.begin(), world.begin());
    world.lock(holder, "A");
    let waits = world.lock(waiter, "A");
    world.advance(seconds(9));
    assert!(world.reply(waits).is_none());
    world.call(holder, Client::Get);
    world.advance(seconds(1));
    assert!(matches!(refused(&world, waits), Some(Refused::LockTimeout(_))));
    let other = world.lock(waiter, "B");
    assert!(is_locked(&world, other));
}

#[test]
fn repeats_of_a_call_wait_with_it_and_other_calls_do_not() {
    let mut world = World::new();
    let (holder, waiter) = (world.begin(), world.begin());
    world.lock(holder, "A");
    let until = world.now + seconds(10);
    let lock = |key| Client::Lock { locks: Some(locks("A")), key: keyed(key, 1), until };
    let calls: Vec<u64> = (0..257).map(|_| world.call(waiter, lock("a"))).collect();
    let (last, waiting) = calls.split_last().expect("many");
    assert!(waiting.iter().all(|call| world.reply(*call).is_none()));
    assert_eq!(refused(&world, *last), Some(&Refused::WaitsForLocks), "they are bounded");
    let other = world.call(waiter, lock("b"));
    assert_eq!(refused(&world, other), Some(&Refused::WaitsForLocks));
}

#[test]
fn a_call_that_waits_is_refused_when_a_deadlock_is_found() {
    let mut world = World::with(Config { deadlocks: Deadlocks::Detect, ..Config::default() });
    let (elder, younger) = (world.begin(), world.begin());
    world.lock(elder, "A");
    world.lock(younger, "B");
    let dies = world.lock(younger, "A");
    assert!(world.reply(dies).is_none());
    let waits = world.lock(elder, "B");
    assert!(matches!(refused(&world, dies), Some(Refused::Deadlock { .. })));
    assert!(is_locked(&world, waits), "what the younger one held is free");
    world.sync();
    let decision = world.journal.decision(younger).expect("it is aborted");
    assert_eq!(decision.reason.as_ref().expect("a reason").code, "DEADLOCK");
}

#[test]
fn a_transaction_that_waits_for_its_locks_is_aborted_when_a_deadlock_is_found() {
    let mut world = World::with(Config { deadlocks: Deadlocks::Detect, ..Config::default() });
    let (first, second) = (world.begin(), world.begin());
    world.lock(first, "A");
    world.lock(second, "b");
    let run = world.execute_locked("AB", &[P0]);
    // It stands before this one in the queue of 'b', and waits for it at 'a'.
    let waits = world.lock(first, "b");
    assert!(is_locked(&world, waits));
    let view = world.answer(run.token);
    assert_eq!(view.outcome, Outcome::Aborted);
    assert_eq!(view.reason.as_ref().expect("a reason").code, "DEADLOCK");
}

#[test]
fn a_repeat_of_a_call_that_met_a_deadlock_is_told_of_it_again() {
    let mut world = World::new();
    let (elder, younger) = (world.begin(), world.begin());
    world.lock(elder, "A");
    world.lock(younger, "B");
    // It stays in memory: its abort is not durable.
    let until = world.now + seconds(10);
    let lock = || Client::Lock { locks: Some(locks("A")), key: keyed("a", 1), until };
    for _ in 0..2 {
        let call = world.call(younger, lock());
        assert!(matches!(refused(&world, call), Some(Refused::Deadlock { .. })));
    }
}
