//! Calls that wait for locks, and how their waits end.

use dtc_core::{Client, Config, Deadlocks, Outcome, Refused, Reply};

use crate::environment::{Environment, P0, keyed, locks, seconds};

fn refused(environment: &Environment, token: u64) -> Option<&Refused> {
    match environment.reply(token) {
        Some(Reply::Refused(refused)) => Some(refused),
        _ => None,
    }
}

fn is_locked(environment: &Environment, token: u64) -> bool {
    matches!(environment.reply(token), Some(Reply::Locked { .. }))
}

#[test]
fn a_call_whose_time_is_over_is_told_so_and_its_transaction_goes_on() {
    let mut environment = Environment::new();
    let (holder, waiter) = (environment.begin(), environment.begin());
    environment.lock(holder, "A");
    let waits = environment.lock(waiter, "A");
    environment.advance(seconds(9));
    assert!(environment.reply(waits).is_none());
    environment.call(holder, Client::Get);
    environment.advance(seconds(1));
    assert!(matches!(refused(&environment, waits), Some(Refused::LockTimeout(_))));
    let other = environment.lock(waiter, "B");
    assert!(is_locked(&environment, other));
}

#[test]
fn repeats_of_a_call_wait_with_it_and_other_calls_do_not() {
    let mut environment = Environment::new();
    let (holder, waiter) = (environment.begin(), environment.begin());
    environment.lock(holder, "A");
    let until = environment.now + seconds(10);
    let lock = |key| Client::Lock { locks: Some(locks("A")), key: keyed(key, 1), until };
    let calls: Vec<u64> = (0..257).map(|_| environment.call(waiter, lock("a"))).collect();
    let (last, waiting) = calls.split_last().expect("many");
    assert!(waiting.iter().all(|call| environment.reply(*call).is_none()));
    assert_eq!(refused(&environment, *last), Some(&Refused::WaitsForLocks), "they are bounded");
    let other = environment.call(waiter, lock("b"));
    assert_eq!(refused(&environment, other), Some(&Refused::WaitsForLocks));
}

#[test]
fn a_call_that_waits_is_refused_when_a_deadlock_is_found() {
    let mut environment =
        Environment::with(Config { deadlocks: Deadlocks::Detect, ..Config::default() });
    let (elder, younger) = (environment.begin(), environment.begin());
    environment.lock(elder, "A");
    environment.lock(younger, "B");
    let dies = environment.lock(younger, "A");
    assert!(environment.reply(dies).is_none());
    let waits = environment.lock(elder, "B");
    assert!(matches!(refused(&environment, dies), Some(Refused::Deadlock { .. })));
    assert!(is_locked(&environment, waits), "what the younger one held is free");
    environment.sync();
    let decision = environment.journal.decision(younger).expect("it is aborted");
    assert_eq!(decision.reason.as_ref().expect("a reason").code, "DEADLOCK");
}

#[test]
fn a_transaction_that_waits_for_its_locks_is_aborted_when_a_deadlock_is_found() {
    let mut environment =
        Environment::with(Config { deadlocks: Deadlocks::Detect, ..Config::default() });
    let (first, second) = (environment.begin(), environment.begin());
    environment.lock(first, "A");
    environment.lock(second, "b");
    let run = environment.execute_locked("AB", &[P0]);
    // It stands before this one in the queue of 'b', and waits for it at 'a'.
    let waits = environment.lock(first, "b");
    assert!(is_locked(&environment, waits));
    let view = environment.answer(run.token);
    assert_eq!(view.outcome, Outcome::Aborted);
    assert_eq!(view.reason.as_ref().expect("a reason").code, "DEADLOCK");
}

#[test]
fn a_repeat_of_a_call_that_met_a_deadlock_is_told_of_it_again() {
    let mut environment = Environment::new();
    let (elder, younger) = (environment.begin(), environment.begin());
    environment.lock(elder, "A");
    environment.lock(younger, "B");
    // It stays in memory: its abort is not durable.
    let until = environment.now + seconds(10);
    let lock = || Client::Lock { locks: Some(locks("A")), key: keyed("a", 1), until };
    for _ in 0..2 {
        let call = environment.call(younger, lock());
        assert!(matches!(refused(&environment, call), Some(Refused::Deadlock { .. })));
    }
}
