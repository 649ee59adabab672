//! After a restart the coordinator goes on from what is durable.

use dtc_core::{AnswerAt, Begin, BranchState, Outcome, Record, TrailKind, TransactionState};
use dtc_protocol::TransactionId;

use crate::{
    participant::{NO, YES},
    world::{P0, P1, P2, World, keyed, seconds},
};

#[test]
fn an_undecided_run_that_all_can_ask_about_leaves_nothing() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.crash();
    assert!(world.coordinator.is_empty());
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
}

#[test]
fn a_begin_record_is_rolled_back_by_the_coordinator() {
    let mut world = World::new();
    world.cannot_ask(P1);
    let run = world.execute(&[P0, P1]);
    world.sync();
    world.deliver_all();
    world.crash();
    let view = world.look(run.id);
    assert_eq!(view.state, TransactionState::Aborting);
    assert_eq!(view.reason.expect("a reason").code, "COORDINATOR_RESTARTED");
    world.advance(seconds(600));
    world.connect(P1);
    assert_eq!(world.on_the_way(), [(P1, "rollback")]);
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
}

#[test]
fn an_interactive_transaction_is_rolled_back_by_the_coordinator() {
    let mut world = World::new();
    let empty = world.begin();
    let id = world.begin();
    world.enlist(id, P0);
    world.enlist(id, P1);
    world.prepare(id);
    world.sync();
    world.exchange();
    world.crash();
    for id in [empty, id] {
        let token = world.commit(id);
        assert_eq!(world.answer(token).outcome, Outcome::Aborted);
    }
    world.heal();
    assert!(world.is_rolled_back_at(P0, id) && world.is_rolled_back_at(P1, id));
}

#[test]
fn a_durable_commit_is_told_to_all_whoever_was_told_before() {
    for told in 0..4 {
        let mut world = World::new();
        let run = world.execute(&[P0, P1, P2]);
        world.exchange();
        world.sync();
        (0..told).for_each(|_| world.deliver_at(0));
        world.hear_all();
        world.lose_all();
        world.crash();
        assert!(world.flights.is_empty(), "nobody is connected");
        assert_eq!(world.look(run.id).outcome, Outcome::Committed);
        world.connect_all();
        let commits = world.on_the_way().iter().filter(|it| it.1 == "commit").count();
        assert_eq!(commits, 3);
        world.heal();
        assert!([P0, P1, P2].into_iter().all(|it| world.is_committed_at(it, run.id)));
    }
}

#[test]
fn a_commit_that_was_not_durable_is_no_commit() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    assert!(matches!(&world.journal.pending[0].1, Record::Decision(_)));
    world.crash();
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id));
    assert!(world.reply(run.token).is_none());
}

#[test]
fn a_durable_abort_goes_on() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = world.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |_| {});
    world.sync();
    world.exchange();
    world.sync();
    world.lose_all();
    world.crash();
    let states: Vec<_> = world.look(run.id).branches.iter().map(|it| it.state).collect();
    let asks = BranchState::LeftToAsk;
    assert_eq!(states, [BranchState::RollingBack, asks, BranchState::Refused]);
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
}

#[test]
fn what_ended_is_not_taken_up_again() {
    let mut world = World::new();
    world.execute(&[P0, P1]);
    world.execute(&[P0]);
    world.execute_with(&[(P0, NO), (P1, YES)], |_| {});
    world.settle();
    world.crash();
    assert!(world.coordinator.is_empty() && world.flights.is_empty());
    assert!(world.journal.pending.is_empty());
}

#[test]
fn a_decision_that_owes_nothing_only_lacks_its_end() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    world.exchange();
    world.sync_some(1);
    world.crash();
    world.sync();
    assert!(world.coordinator.is_empty() && world.flights.is_empty());
    assert_eq!(world.journal.end(run.id).expect("an end").branches, [BranchState::Committed]);
}

#[test]
fn recovery_itself_may_be_cut_short_again_and_again() {
    let mut world = World::new();
    world.cannot_ask(P1);
    let begun = world.execute(&[P0, P1]);
    let decided = world.execute(&[P0, P2]);
    world.sync();
    world.exchange();
    world.sync_some(1);
    for _ in 0..5 {
        world.crash();
        world.advance(seconds(3));
    }
    world.heal();
    for (run, others) in [(begun, P1), (decided, P2)] {
        let here = world.is_committed_at(P0, run.id);
        assert_eq!(here, world.is_committed_at(others, run.id));
    }
}

#[test]
fn what_was_decided_is_taken_up_as_it_was_recorded() {
    let mut world = World::new();
    world.cannot_ask(P0);
    world.cannot_ask(P1);
    let age = TransactionId::from_bytes([0; 16]);
    let run = world.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |begin| {
        (begin.key, begin.age) = (keyed("a", 1), age);
    });
    world.answer_lookups();
    world.sync();
    world.exchange();
    world.sync();
    world.lose_all();
    let before = world.look(run.id);
    world.advance(seconds(1));
    world.lose_all();
    world.crash();
    let after = world.look(run.id);
    assert_eq!((after.age, &after.key), (age, &before.key));
    assert!(after.reason.is_some() && after.branches[2].refusal.is_some());
    assert_eq!((after.state, &after.reason), (before.state, &before.reason));
    assert_eq!((after.begun_at, after.decided_at), (before.begun_at, before.decided_at));
    for (after, before) in after.branches.iter().zip(&before.branches) {
        assert_eq!((after.state, &after.refusal), (before.state, &before.refusal));
    }
    // It was sent before, to whom it is sent again.
    world.connect_all();
    let trail = world.look(run.id).trail;
    let since = trail.iter().position(|event| event.kind == TrailKind::Recovered).unwrap();
    assert!(trail[..since].iter().any(|event| event.kind == TrailKind::DecidedAbort));
    assert!(trail[since..].iter().all(|event| event.kind != TrailKind::PrepareSent));
}

#[test]
fn what_was_begun_is_taken_up_as_it_was_recorded() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let age = TransactionId::from_bytes([0; 16]);
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.age = age;
        begin.options.commit_attempt_timeout = seconds(7);
    });
    world.sync();
    world.crash();
    let view = world.look(run.id);
    assert_eq!(view.age, age);
    assert_eq!(view.trail.first().map(|event| event.kind), Some(TrailKind::Begun));
    world.sync();
    let record = world.journal.decision(run.id).expect("a decision");
    assert_eq!((record.age, record.attempt_timeout), (age, Some(seconds(7))));
    // The one that asks is not waited for.
    world.advance(seconds(600));
    let states: Vec<_> = world.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::RollingBack, BranchState::LeftToAsk]);
}

#[test]
fn a_run_whose_outcome_only_its_participant_knows_is_known_after_a_crash() {
    let mut world = World::new();
    let request = |begin: &mut Begin| {
        (begin.key, begin.announced) = (keyed("a", 1), true);
        begin.waiter.at = AnswerAt::Begun;
    };
    let run = world.execute_with(&[(P0, YES)], request);
    world.answer_lookups();
    world.sync();
    world.lose_all();
    world.crash();
    let again = world.execute_with(&[(P0, YES)], request);
    assert_eq!(world.answer(again.token).id, run.id);
}

#[test]
fn that_nobody_is_linked_at_a_start_is_no_news() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.exchange();
    world.sync();
    world.lose_all();
    world.crash();
    assert_eq!(world.count(run.id, TrailKind::Unreachable), 0);
    world.advance(seconds(2));
    assert!(world.count(run.id, TrailKind::Unreachable) > 1, "that it still is not linked is");
}
