//! After a restart the coordinator goes on from what is durable.

use dtc_core::{AnswerAt, Begin, BranchState, Outcome, Record, TrailKind, TransactionState};
use dtc_protocol::TransactionId;

use crate::{
    environment::{Environment, P0, P1, P2, keyed, seconds},
    participant::{NO, YES},
};

#[test]
fn an_undecided_run_that_all_can_ask_about_leaves_nothing() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.crash();
    assert!(environment.coordinator.is_empty());
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn a_begin_record_is_rolled_back_by_the_coordinator() {
    let mut environment = Environment::new();
    environment.cannot_ask(P1);
    let run = environment.execute(&[P0, P1]);
    environment.sync();
    environment.deliver_all();
    environment.crash();
    let view = environment.look(run.id);
    assert_eq!(view.state, TransactionState::Aborting);
    assert_eq!(view.reason.expect("a reason").code, "COORDINATOR_RESTARTED");
    environment.advance(seconds(600));
    environment.connect(P1);
    assert_eq!(environment.on_the_way(), [(P1, "rollback")]);
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn an_interactive_transaction_is_rolled_back_by_the_coordinator() {
    let mut environment = Environment::new();
    let empty = environment.begin();
    let id = environment.begin();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    environment.prepare(id);
    environment.sync();
    environment.exchange();
    environment.crash();
    for id in [empty, id] {
        let token = environment.commit(id);
        assert_eq!(environment.answer(token).outcome, Outcome::Aborted);
    }
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, id) && environment.is_rolled_back_at(P1, id));
}

#[test]
fn a_durable_commit_is_told_to_all_whoever_was_told_before() {
    for told in 0..4 {
        let mut environment = Environment::new();
        let run = environment.execute(&[P0, P1, P2]);
        environment.exchange();
        environment.sync();
        (0..told).for_each(|_| environment.deliver_at(0));
        environment.hear_all();
        environment.lose_all();
        environment.crash();
        assert!(environment.flights.is_empty(), "nobody is connected");
        assert_eq!(environment.look(run.id).outcome, Outcome::Committed);
        environment.connect_all();
        let commits = environment.on_the_way().iter().filter(|it| it.1 == "commit").count();
        assert_eq!(commits, 3);
        environment.heal();
        assert!([P0, P1, P2].into_iter().all(|it| environment.is_committed_at(it, run.id)));
    }
}

#[test]
fn a_commit_that_was_not_durable_is_no_commit() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    assert!(matches!(&environment.journal.pending[0].1, Record::Decision(_)));
    environment.crash();
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id));
    assert!(environment.reply(run.token).is_none());
}

#[test]
fn a_durable_abort_goes_on() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = environment.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |_| {});
    environment.sync();
    environment.exchange();
    environment.sync();
    environment.lose_all();
    environment.crash();
    let states: Vec<_> = environment.look(run.id).branches.iter().map(|it| it.state).collect();
    let unacknowledged = BranchState::RollbackUnacknowledged;
    assert_eq!(states, [BranchState::RollingBack, unacknowledged, BranchState::Refused]);
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn what_ended_is_not_taken_up_again() {
    let mut environment = Environment::new();
    environment.execute(&[P0, P1]);
    environment.execute(&[P0]);
    environment.execute_with(&[(P0, NO), (P1, YES)], |_| {});
    environment.settle();
    environment.crash();
    assert!(environment.coordinator.is_empty() && environment.flights.is_empty());
    assert!(environment.journal.pending.is_empty());
}

#[test]
fn a_decision_that_owes_nothing_only_lacks_its_end() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    environment.exchange();
    environment.sync_some(1);
    environment.crash();
    environment.sync();
    assert!(environment.coordinator.is_empty() && environment.flights.is_empty());
    assert_eq!(environment.journal.end(run.id).expect("an end").branches, [BranchState::Committed]);
}

#[test]
fn recovery_itself_may_be_cut_short_again_and_again() {
    let mut environment = Environment::new();
    environment.cannot_ask(P1);
    let begun = environment.execute(&[P0, P1]);
    let decided = environment.execute(&[P0, P2]);
    environment.sync();
    environment.exchange();
    environment.sync_some(1);
    for _ in 0..5 {
        environment.crash();
        environment.advance(seconds(3));
    }
    environment.heal();
    for (run, others) in [(begun, P1), (decided, P2)] {
        let here = environment.is_committed_at(P0, run.id);
        assert_eq!(here, environment.is_committed_at(others, run.id));
    }
}

#[test]
fn what_was_decided_is_taken_up_as_it_was_recorded() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    environment.cannot_ask(P1);
    let age = TransactionId::from_bytes([0; 16]);
    let run = environment.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |begin| {
        (begin.key, begin.age) = (keyed("a", 1), age);
    });
    environment.answer_lookups();
    environment.sync();
    environment.exchange();
    environment.sync();
    environment.lose_all();
    let before = environment.look(run.id);
    environment.advance(seconds(1));
    environment.lose_all();
    environment.crash();
    let after = environment.look(run.id);
    assert_eq!((after.age, &after.key), (age, &before.key));
    assert!(after.reason.is_some() && after.branches[2].refusal.is_some());
    assert_eq!((after.state, &after.reason), (before.state, &before.reason));
    assert_eq!((after.begun_at, after.decided_at), (before.begun_at, before.decided_at));
    for (after, before) in after.branches.iter().zip(&before.branches) {
        assert_eq!((after.state, &after.refusal), (before.state, &before.refusal));
    }
    // It was sent before, to whom it is sent again.
    environment.connect_all();
    let trail = environment.look(run.id).trail;
    let since = trail.iter().position(|event| event.kind == TrailKind::Recovered).unwrap();
    assert!(trail[..since].iter().any(|event| event.kind == TrailKind::DecidedAbort));
    assert!(trail[since..].iter().all(|event| event.kind != TrailKind::PrepareSent));
}

#[test]
fn what_was_begun_is_taken_up_as_it_was_recorded() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let age = TransactionId::from_bytes([0; 16]);
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.age = age;
        begin.options.commit_attempt_timeout = seconds(7);
    });
    environment.sync();
    environment.crash();
    let view = environment.look(run.id);
    assert_eq!(view.age, age);
    assert_eq!(view.trail.first().map(|event| event.kind), Some(TrailKind::Begun));
    environment.sync();
    let record = environment.journal.decision(run.id).expect("a decision");
    assert_eq!((record.age, record.attempt_timeout), (age, Some(seconds(7))));
    // The one that asks is not waited for.
    environment.advance(seconds(600));
    let states: Vec<_> = environment.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::RollingBack, BranchState::RollbackUnacknowledged]);
}

#[test]
fn a_run_whose_outcome_only_its_participant_knows_is_known_after_a_crash() {
    let mut environment = Environment::new();
    let request = |begin: &mut Begin| {
        (begin.key, begin.id_may_be_known) = (keyed("a", 1), true);
        begin.waiter.at = AnswerAt::Begun;
    };
    let run = environment.execute_with(&[(P0, YES)], request);
    environment.answer_lookups();
    environment.sync();
    environment.lose_all();
    environment.crash();
    let again = environment.execute_with(&[(P0, YES)], request);
    assert_eq!(environment.answer(again.token).id, run.id);
}

#[test]
fn that_nobody_is_linked_at_a_start_is_no_news() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.exchange();
    environment.sync();
    environment.lose_all();
    environment.crash();
    assert_eq!(environment.count(run.id, TrailKind::Unreachable), 0);
    environment.advance(seconds(2));
    assert!(
        environment.count(run.id, TrailKind::Unreachable) > 1,
        "that it still is not linked is"
    );
}
