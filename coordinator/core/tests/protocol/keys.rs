//! A client's request key: one key, one outcome.

use dtc_core::{
    BranchState, Event, Outcome, ParticipantId, Refused, Reply, TrailKind, TransactionState,
};

use crate::{
    participant::{NO, YES},
    world::{P0, P1, Run, World, keyed},
};

const BRANCHES: [(ParticipantId, u8); 2] = [(P0, YES), (P1, YES)];

#[test]
fn nothing_is_sent_before_the_journal_was_asked_for_the_key() {
    let mut world = World::new();
    world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    assert!(world.flights.is_empty() && world.coordinator.is_empty());
    world.answer_lookups();
    assert_eq!(world.flights.len(), 2);
}

#[test]
fn an_abort_with_a_key_is_told_only_once_durable() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, NO), (P1, YES)], |begin| begin.key = keyed("a", 1));
    world.answer_lookups();
    world.exchange();
    world.exchange();
    assert_eq!(world.journal.pending.len(), 2, "the abort and the end");
    assert!(world.reply(run.token).is_none());
    let view = world.look(run.id);
    assert_eq!((view.outcome, view.decided_at, view.reason), (Outcome::Pending, None, None));
    assert_eq!(view.state, TransactionState::Preparing);
    let told = |kind| matches!(kind, TrailKind::DecidedAbort | TrailKind::Ended);
    assert!(!view.trail.iter().any(|event| told(event.kind)), "{:?}", view.trail);
    assert!(view.trail.iter().any(|event| event.kind == TrailKind::VotedAbort), "{:?}", view.trail);
    assert!(view.branches.iter().all(|it| it.state != BranchState::RolledBack));
    // Who watches is told no sooner.
    assert!(!world.happened.iter().any(|(_, event)| told(event.kind)), "{:?}", world.happened);
    world.sync_some(1);
    assert_eq!(world.outcome(run), Outcome::Aborted);
    assert_eq!(world.happened.iter().filter(|(_, event)| told(event.kind)).count(), 2);
}

#[test]
fn an_abort_record_with_a_key_is_forced() {
    let mut world = World::new();
    world.execute_with(&[(P0, NO), (P1, YES)], |begin| begin.key = keyed("a", 1));
    world.answer_lookups();
    world.exchange();
    assert_eq!(world.forced, Some(true));
}

#[test]
fn a_second_request_with_a_key_joins_the_run_of_the_first() {
    let mut world = World::new();
    let first = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let parked = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    world.answer_lookups();
    let running = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    world.settle();
    for run in [first, parked, running] {
        assert_eq!(world.answer(run.token).id, first.id);
        assert_eq!(world.outcome(run), Outcome::Committed);
    }
}

#[test]
fn a_key_with_another_body_is_refused() {
    let mut world = World::new();
    world.execute_keyed("a", &[P0, P1]);
    let refused = |world: &mut World| {
        let run = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
        world.answer_lookups();
        matches!(world.reply(run.token), Some(Reply::Refused(Refused::KeyTaken(key))) if &**key == "a")
    };
    assert!(refused(&mut world));
    world.settle();
    assert!(world.coordinator.is_empty());
    assert!(refused(&mut world), "after its end, too");
    assert!(refused(&mut world), "and the refused run does not hold the key");
}

#[test]
fn a_request_that_will_be_refused_does_not_take_the_key_from_its_owner() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.settle();
    // While the journal is asked whose the key is, its owner's request comes again.
    let other = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    let again = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    assert!(world.reply(again.token).is_none());
    world.answer_lookups();
    world.answer_lookups();
    let refused = world.reply(other.token);
    assert!(matches!(refused, Some(Reply::Refused(Refused::KeyTaken(_)))), "{refused:?}");
    let told = world.reply(again.token);
    assert!(matches!(told, Some(Reply::See(id)) if *id == first.id), "{told:?}");
    assert!(world.flights.is_empty() && world.coordinator.is_empty());
}

#[test]
fn of_two_bodies_with_a_new_key_the_first_has_it() {
    let mut world = World::new();
    let first = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let second = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    world.settle();
    assert_eq!(world.outcome(first), Outcome::Committed);
    let refused = world.reply(second.token);
    assert!(matches!(refused, Some(Reply::Refused(Refused::KeyTaken(_)))), "{refused:?}");
}

#[test]
fn a_key_of_a_finished_run_is_answered_with_that_run() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.settle();
    for _ in 0..2 {
        let second = world.execute_keyed("a", &[P0, P1]);
        assert!(matches!(world.reply(second.token), Some(Reply::See(id)) if *id == first.id));
    }
    assert!(world.flights.is_empty() && world.coordinator.is_empty());
}

#[test]
fn a_key_of_a_recovered_run_is_joined() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.exchange();
    world.sync();
    world.crash();
    let second = world.execute_keyed("a", &[P0, P1]);
    assert_eq!(world.answer(second.token).id, first.id);
    assert_eq!(world.outcome(second), Outcome::Committed);
}

#[test]
fn a_retry_after_a_crash_before_the_decision_is_a_new_run() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.exchange();
    world.crash();
    world.connect_all();
    let second = world.execute_keyed("a", &[P0, P1]);
    world.settle();
    assert_eq!(world.outcome(second), Outcome::Committed);
    assert!(world.is_rolled_back_at(P0, first.id) && world.is_committed_at(P0, second.id));
}

#[test]
fn an_interactive_begin_that_is_repeated_gets_the_same_transaction() {
    let mut world = World::new();
    let begin = |world: &mut World| {
        let run = world.execute_with(&[], |begin| {
            begin.interactive = true;
            begin.key = keyed("a", 1);
        });
        world.answer_lookups();
        run
    };
    let first = begin(&mut world);
    let second = begin(&mut world);
    world.sync();
    let third = begin(&mut world);
    for run in [first, second, third] {
        assert!(matches!(world.reply(run.token), Some(Reply::Begun(id)) if *id == first.id));
    }
}

#[test]
fn a_key_that_cannot_be_read_refuses_those_that_name_it_and_nobody_else() {
    let mut world = World::new();
    let first = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let same = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let rival = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    let other = world.execute_with(&BRANCHES, |begin| begin.key = keyed("b", 1));
    let why = String::from("table request_keys, row 'a'");
    world.event(Event::KeyUnreadable { id: first.id, why: why.clone() });
    for run in [first, same, rival] {
        let reply = world.reply(run.token);
        let refused =
            matches!(reply, Some(Reply::Refused(Refused::KeyUnreadable(it))) if *it == why);
        assert!(refused, "{reply:?}");
    }
    world.lookups.pop_front();
    world.answer_lookups();
    world.settle();
    assert!(world.answer(other.token).committed);
    let again = world.execute_keyed("a", &[P0, P1]);
    world.settle();
    assert!(world.answer(again.token).committed, "the key is free in memory");
}

/// A request that was judged against as new work.
fn not_admitted(world: &mut World, key: &str, body: u8) -> Run {
    world.execute_with(&BRANCHES, |begin| {
        (begin.key, begin.admitted) = (keyed(key, body), false);
    })
}

#[test]
fn a_repeat_that_would_not_be_admitted_as_new_work_gets_the_first_outcome() {
    let mut world = World::new();
    let first = world.execute_keyed("a", &[P0, P1]);
    world.answer_lookups();
    let running = not_admitted(&mut world, "a", 1);
    world.settle();
    assert_eq!(world.answer(running.token).id, first.id, "while the first runs");
    for (body, expected) in [(1, true), (2, false)] {
        let finished = not_admitted(&mut world, "a", body);
        assert!(world.reply(finished.token).is_none(), "the journal is asked first");
        world.answer_lookups();
        match (world.reply(finished.token), expected) {
            (Some(Reply::See(id)), true) => assert_eq!(*id, first.id),
            (Some(Reply::Refused(Refused::KeyTaken(_))), false) => {}
            (other, _) => panic!("body {body}: {other:?}"),
        }
    }
    world.crash();
    let recovered = not_admitted(&mut world, "a", 1);
    world.answer_lookups();
    assert!(matches!(world.reply(recovered.token), Some(Reply::See(id)) if *id == first.id));
}

#[test]
fn a_request_that_is_not_admitted_and_repeats_nothing_leaves_its_key_free() {
    let mut world = World::new();
    let refused = not_admitted(&mut world, "a", 1);
    // While the journal is asked for it, the same comes again, and may be begun.
    let admitted = world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    let late = not_admitted(&mut world, "a", 1);
    world.answer_lookups();
    assert!(matches!(world.reply(refused.token), Some(Reply::NoRepeat)));
    world.settle();
    assert_eq!(world.outcome(admitted), Outcome::Committed);
    assert_eq!(world.answer(late.token).id, admitted.id, "a repeat of what has begun");
}

#[test]
fn requests_that_are_only_looked_for_are_bounded() {
    let mut world = World::new();
    let refused = |world: &mut World| {
        let run = not_admitted(world, "a", 1);
        matches!(world.reply(run.token), Some(Reply::Refused(Refused::TooManyRepeats { .. })))
    };
    assert_eq!((0..65_537).filter(|_| refused(&mut world)).count(), 1);
    world.answer_lookups();
    assert!(!refused(&mut world), "there is room again");
}

#[test]
fn a_key_says_which_run_in_memory_has_it() {
    let mut world = World::new();
    let key = || keyed("a", 1).expect("a key").0;
    let run = world.execute_keyed("a", &[P0, P1]);
    assert_eq!(world.coordinator.user_of(&key()), Some(run.id));
    world.settle();
    assert_eq!(world.coordinator.user_of(&key()), None, "it has ended");
    world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 2));
    assert_eq!(world.coordinator.user_of(&key()), None, "the journal is being asked");
}

#[test]
fn one_who_needs_an_id_that_is_good_for_asking_gets_it_from_the_one_that_begins() {
    let mut world = World::new();
    not_admitted(&mut world, "a", 1);
    world.execute_with(&BRANCHES, |begin| begin.key = keyed("a", 1));
    world.execute_with(&BRANCHES, |begin| {
        (begin.key, begin.announced) = (keyed("a", 1), true);
    });
    world.answer_lookups();
    assert!(world.flights.is_empty(), "its begin record goes first");
    world.sync();
    assert_eq!(world.flights.len(), 2);
}
