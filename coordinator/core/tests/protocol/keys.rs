//! A client's request key: one key, one outcome.

use dtc_core::{
    BranchState, Event, Outcome, ParticipantId, Refused, Reply, TrailKind, TransactionState,
};

use crate::{
    environment::{Environment, P0, P1, Run, keyed},
    participant::{NO, YES},
};

const BRANCHES: [(ParticipantId, u8); 2] = [(P0, YES), (P1, YES)];

#[test]
fn nothing_is_sent_before_the_journal_was_asked_for_the_key() {
    let mut environment = Environment::new();
    environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    assert!(environment.flights.is_empty() && environment.coordinator.is_empty());
    environment.answer_lookups();
    assert_eq!(environment.flights.len(), 2);
}

#[test]
fn an_abort_with_a_key_is_told_only_once_durable() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, NO), (P1, YES)], |begin| begin.key = keyed("a", 1));
    environment.answer_lookups();
    environment.exchange();
    environment.exchange();
    assert_eq!(environment.journal.pending.len(), 2, "the abort and the end");
    assert!(environment.reply(run.token).is_none());
    let view = environment.look(run.id);
    assert_eq!((view.outcome, view.decided_at, view.reason), (Outcome::Pending, None, None));
    assert_eq!(view.state, TransactionState::Preparing);
    let told = |kind| matches!(kind, TrailKind::DecidedAbort | TrailKind::Ended);
    assert!(!view.trail.iter().any(|event| told(event.kind)), "{:?}", view.trail);
    assert!(view.trail.iter().any(|event| event.kind == TrailKind::VotedAbort), "{:?}", view.trail);
    assert!(view.branches.iter().all(|it| it.state != BranchState::RolledBack));
    // Who watches is told no sooner.
    assert!(
        !environment.happened.iter().any(|(_, event)| told(event.kind)),
        "{:?}",
        environment.happened
    );
    environment.sync_some(1);
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    assert_eq!(environment.happened.iter().filter(|(_, event)| told(event.kind)).count(), 2);
}

#[test]
fn an_abort_record_with_a_key_is_forced() {
    let mut environment = Environment::new();
    environment.execute_with(&[(P0, NO), (P1, YES)], |begin| begin.key = keyed("a", 1));
    environment.answer_lookups();
    environment.exchange();
    assert_eq!(environment.sync, Some(true));
}

#[test]
fn a_second_request_with_a_key_joins_the_run_of_the_first() {
    let mut environment = Environment::new();
    let first = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let parked = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    environment.answer_lookups();
    let running = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    environment.settle();
    for run in [first, parked, running] {
        assert_eq!(environment.answer(run.token).id, first.id);
        assert_eq!(environment.outcome(run), Outcome::Committed);
    }
}

#[test]
fn a_key_with_another_body_is_refused() {
    let mut environment = Environment::new();
    environment.execute_keyed("a", &[P0, P1]);
    let refused = |environment: &mut Environment| {
        let run = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
        environment.answer_lookups();
        matches!(environment.reply(run.token), Some(Reply::Refused(Refused::KeyTaken(key))) if &**key == "a")
    };
    assert!(refused(&mut environment));
    environment.settle();
    assert!(environment.coordinator.is_empty());
    assert!(refused(&mut environment), "after its end, too");
    assert!(refused(&mut environment), "and the refused run does not hold the key");
}

#[test]
fn a_request_that_will_be_refused_does_not_take_the_key_from_its_owner() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.settle();
    // While the journal is asked whose the key is, its owner's request comes again.
    let other = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    let again = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    assert!(environment.reply(again.token).is_none());
    environment.answer_lookups();
    environment.answer_lookups();
    let refused = environment.reply(other.token);
    assert!(matches!(refused, Some(Reply::Refused(Refused::KeyTaken(_)))), "{refused:?}");
    let told = environment.reply(again.token);
    assert!(matches!(told, Some(Reply::See(id)) if *id == first.id), "{told:?}");
    assert!(environment.flights.is_empty() && environment.coordinator.is_empty());
}

#[test]
fn of_two_bodies_with_a_new_key_the_first_has_it() {
    let mut environment = Environment::new();
    let first = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let second = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    environment.settle();
    assert_eq!(environment.outcome(first), Outcome::Committed);
    let refused = environment.reply(second.token);
    assert!(matches!(refused, Some(Reply::Refused(Refused::KeyTaken(_)))), "{refused:?}");
}

#[test]
fn a_key_of_a_finished_run_is_answered_with_that_run() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.settle();
    for _ in 0..2 {
        let second = environment.execute_keyed("a", &[P0, P1]);
        assert!(matches!(environment.reply(second.token), Some(Reply::See(id)) if *id == first.id));
    }
    assert!(environment.flights.is_empty() && environment.coordinator.is_empty());
}

#[test]
fn a_key_of_a_recovered_run_is_joined() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.crash();
    let second = environment.execute_keyed("a", &[P0, P1]);
    assert_eq!(environment.answer(second.token).id, first.id);
    assert_eq!(environment.outcome(second), Outcome::Committed);
}

#[test]
fn a_retry_after_a_crash_before_the_decision_is_a_new_run() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.exchange();
    environment.crash();
    environment.connect_all();
    let second = environment.execute_keyed("a", &[P0, P1]);
    environment.settle();
    assert_eq!(environment.outcome(second), Outcome::Committed);
    assert!(
        environment.is_rolled_back_at(P0, first.id) && environment.is_committed_at(P0, second.id)
    );
}

#[test]
fn an_interactive_begin_that_is_repeated_gets_the_same_transaction() {
    let mut environment = Environment::new();
    let begin = |environment: &mut Environment| {
        let run = environment.execute_with(&[], |begin| {
            begin.interactive = true;
            begin.key = keyed("a", 1);
        });
        environment.answer_lookups();
        run
    };
    let first = begin(&mut environment);
    let second = begin(&mut environment);
    environment.sync();
    let third = begin(&mut environment);
    for run in [first, second, third] {
        assert!(matches!(environment.reply(run.token), Some(Reply::Begun(id)) if *id == first.id));
    }
}

#[test]
fn a_key_that_cannot_be_read_refuses_those_that_name_it_and_nobody_else() {
    let mut environment = Environment::new();
    let first = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let same = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let rival = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    let other = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("b", 1));
    let why = String::from("table request_keys, row 'a'");
    environment.event(Event::KeyUnreadable { id: first.id, why: why.clone() });
    for run in [first, same, rival] {
        let reply = environment.reply(run.token);
        let refused =
            matches!(reply, Some(Reply::Refused(Refused::KeyUnreadable(it))) if *it == why);
        assert!(refused, "{reply:?}");
    }
    environment.lookups.pop_front();
    environment.answer_lookups();
    environment.settle();
    assert!(environment.answer(other.token).committed);
    let again = environment.execute_keyed("a", &[P0, P1]);
    environment.settle();
    assert!(environment.answer(again.token).committed, "the key is free in memory");
}

/// A request that was judged against as new work.
fn not_admitted(environment: &mut Environment, key: &str, body: u8) -> Run {
    environment.execute_with(&BRANCHES, |begin| {
        (begin.key, begin.admitted) = (keyed(key, body), false);
    })
}

#[test]
fn a_repeat_that_would_not_be_admitted_as_new_work_gets_the_first_outcome() {
    let mut environment = Environment::new();
    let first = environment.execute_keyed("a", &[P0, P1]);
    environment.answer_lookups();
    let running = not_admitted(&mut environment, "a", 1);
    environment.settle();
    assert_eq!(environment.answer(running.token).id, first.id, "while the first runs");
    for (body, expected) in [(1, true), (2, false)] {
        let finished = not_admitted(&mut environment, "a", body);
        assert!(environment.reply(finished.token).is_none(), "the journal is asked first");
        environment.answer_lookups();
        match (environment.reply(finished.token), expected) {
            (Some(Reply::See(id)), true) => assert_eq!(*id, first.id),
            (Some(Reply::Refused(Refused::KeyTaken(_))), false) => {}
            (other, _) => panic!("body {body}: {other:?}"),
        }
    }
    environment.crash();
    let recovered = not_admitted(&mut environment, "a", 1);
    environment.answer_lookups();
    assert!(matches!(environment.reply(recovered.token), Some(Reply::See(id)) if *id == first.id));
}

#[test]
fn a_request_that_is_not_admitted_and_repeats_nothing_leaves_its_key_free() {
    let mut environment = Environment::new();
    let refused = not_admitted(&mut environment, "a", 1);
    // While the journal is asked for it, the same comes again, and may be begun.
    let admitted = environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let late = not_admitted(&mut environment, "a", 1);
    environment.answer_lookups();
    assert!(matches!(environment.reply(refused.token), Some(Reply::NoRepeat)));
    environment.settle();
    assert_eq!(environment.outcome(admitted), Outcome::Committed);
    assert_eq!(environment.answer(late.token).id, admitted.id, "a repeat of what has begun");
}

#[test]
fn requests_that_are_only_looked_for_are_bounded() {
    let mut environment = Environment::new();
    let refused = |environment: &mut Environment| {
        let run = not_admitted(environment, "a", 1);
        matches!(environment.reply(run.token), Some(Reply::Refused(Refused::TooManyRepeats { .. })))
    };
    assert_eq!((0..65_537).filter(|_| refused(&mut environment)).count(), 1);
    environment.answer_lookups();
    assert!(!refused(&mut environment), "there is room again");
}

#[test]
fn a_key_says_which_run_in_memory_has_it() {
    let mut environment = Environment::new();
    let key = || keyed("a", 1).expect("a key").0;
    let run = environment.execute_keyed("a", &[P0, P1]);
    assert_eq!(environment.coordinator.user_of(&key()), Some(run.id));
    environment.settle();
    assert_eq!(environment.coordinator.user_of(&key()), None, "it has ended");
    environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    assert_eq!(environment.coordinator.user_of(&key()), None, "the journal is being asked");
}

#[test]
fn one_who_needs_an_id_that_is_good_for_asking_gets_it_from_the_one_that_begins() {
    let mut environment = Environment::new();
    not_admitted(&mut environment, "a", 1);
    environment.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    environment.execute_with(&BRANCHES, |begin| {
        (begin.key, begin.id_may_be_known) = (keyed("a", 1), true);
    });
    environment.answer_lookups();
    assert!(environment.flights.is_empty(), "its begin record goes first");
    environment.sync();
    assert_eq!(environment.flights.len(), 2);
}
