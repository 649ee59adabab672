//! A client that drives its transaction call by call.

use dtc_core::{AnswerAt, BranchState, Client, Outcome, Refused, Reply, TransactionState};

use crate::{
    environment::{Environment, P0, P1, branch, millis, seconds},
    participant::NO,
};

fn wrong_state(environment: &Environment, token: u64) -> Option<(TransactionState, &'static str)> {
    match environment.reply(token) {
        Some(Reply::Refused(Refused::WrongState { state, call })) => Some((*state, call)),
        _ => None,
    }
}

fn prepared(environment: &mut Environment) -> dtc_protocol::TransactionId {
    let id = environment.begin();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    let token = environment.prepare(id);
    environment.settle();
    assert_eq!(environment.answer(token).state, TransactionState::Prepared);
    id
}

#[test]
fn begin_enlist_prepare_commit() {
    let mut environment = Environment::new();
    let id = environment.begin();
    let (first, second) = (environment.enlist(id, P0), environment.enlist(id, P1));
    assert!(matches!(environment.reply(first), Some(Reply::Enlisted(0))));
    assert!(matches!(environment.reply(second), Some(Reply::Enlisted(1))));
    let token = environment.prepare(id);
    assert!(environment.flights.is_empty(), "the branches are written first");
    environment.settle();
    assert_eq!(environment.answer(token).state, TransactionState::Prepared);
    assert!(environment.journal.decision(id).is_none() && environment.flights.is_empty());
    let token = environment.commit(id);
    environment.settle();
    assert_eq!(environment.answer(token).outcome, Outcome::Committed);
    assert!(environment.is_committed_at(P0, id) && environment.is_committed_at(P1, id));
}

#[test]
fn the_client_has_the_id_only_once_it_is_durable() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[], |begin| begin.interactive = true);
    assert!(environment.reply(run.token).is_none());
    assert_eq!(environment.sync, Some(true));
    let token = environment.commit(run.id);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Active, "commit")));
    let token = environment.prepare(run.id);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Active, "prepare")));
    environment.sync();
    assert!(matches!(environment.reply(run.token), Some(Reply::Begun(_))));
}

#[test]
fn commit_without_prepare_collects_the_votes_itself() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    let token = environment.commit(id);
    environment.settle();
    assert_eq!(environment.answer(token).outcome, Outcome::Committed);
}

#[test]
fn commit_of_a_single_branch_is_in_one_phase() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.enlist(id, P0);
    let token = environment.commit(id);
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "one phase")]);
    environment.settle();
    assert_eq!(environment.answer(token).outcome, Outcome::Committed);
}

#[test]
fn commit_of_nothing_commits() {
    let mut environment = Environment::new();
    let id = environment.begin();
    let token = environment.commit(id);
    environment.settle();
    assert_eq!(environment.answer(token).outcome, Outcome::Committed);
    assert!(environment.coordinator.is_empty());
}

#[test]
fn commit_while_votes_are_collected_decides_when_they_are_in() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    let first = environment.prepare(id);
    environment.sync();
    let second = environment.commit(id);
    environment.settle();
    assert!(environment.answer(first).committed && environment.answer(second).committed);
}

#[test]
fn repeated_calls_get_the_same_answer() {
    let mut environment = Environment::new();
    let id = prepared(&mut environment);
    let again = environment.prepare(id);
    assert_eq!(environment.answer(again).state, TransactionState::Prepared);
    let (first, second) = (environment.commit(id), environment.commit(id));
    environment.sync();
    assert!(environment.answer(first).committed && environment.answer(second).committed);
    let id = environment.begin();
    let (first, second) = (environment.roll_back(id), environment.roll_back(id));
    assert_eq!(environment.answer(first).outcome, Outcome::Aborted);
    assert_eq!(environment.answer(second).outcome, Outcome::Aborted);
}

#[test]
fn rollback_is_possible_until_the_decision() {
    let mut environment = Environment::new();
    let active = environment.begin();
    let preparing = environment.begin();
    for id in [active, preparing] {
        environment.enlist(id, P0);
        environment.enlist(id, P1);
    }
    environment.prepare(preparing);
    environment.sync();
    environment.deliver_all();
    let prepared = prepared(&mut environment);
    for id in [active, preparing, prepared] {
        let token = environment.roll_back(id);
        assert_eq!(environment.answer(token).outcome, Outcome::Aborted);
        let token = environment.commit(id);
        assert!(!environment.answer(token).committed, "commit comes too late");
    }
    environment.settle();
    assert!(environment.branch_at(P0, active).is_none(), "it was sent nothing");
    assert!(
        environment.is_rolled_back_at(P0, prepared) && environment.is_rolled_back_at(P1, preparing)
    );
}

#[test]
fn rollback_after_the_decision_is_refused() {
    let mut environment = Environment::new();
    let id = prepared(&mut environment);
    environment.commit(id);
    let token = environment.roll_back(id);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Preparing, "rollback")));
    environment.sync();
    let token = environment.roll_back(id);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Committing, "rollback")));
    environment.exchange();
    let token = environment.roll_back(id);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Committed, "rollback")));
}

#[test]
fn rollback_of_a_one_phase_that_was_sent_is_refused() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    let token = environment.roll_back(run.id);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Preparing, "rollback")));
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}

#[test]
fn branches_are_added_to_an_active_transaction_only() {
    let mut environment = Environment::new();
    let id = prepared(&mut environment);
    let token = environment.enlist(id, P0);
    assert_eq!(wrong_state(&environment, token), Some((TransactionState::Prepared, "enlist")));
}

#[test]
fn a_refusal_aborts_before_the_client_commits() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.enlist(id, P0);
    environment.call(id, Client::Enlist { branch: Some(branch(P1, NO)), key: None });
    let token = environment.prepare(id);
    environment.settle();
    assert_eq!(environment.answer(token).outcome, Outcome::Aborted);
    assert_eq!(environment.answer(token).branches[1].state, BranchState::Refused);
    assert!(environment.is_rolled_back_at(P0, id));
}

#[test]
fn a_client_that_vanishes_is_rolled_back_after_its_idle_limit() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.advance(seconds(50));
    environment.enlist(id, P0);
    environment.advance(seconds(59));
    assert_eq!(environment.look(id).state, TransactionState::Active, "a call starts it anew");
    environment.advance(seconds(1));
    environment.settle();
    assert!(environment.coordinator.is_empty());
    let reason =
        environment.journal.decision(id).and_then(|it| it.reason.clone()).expect("a reason");
    assert_eq!(reason.code, "IDLE_TIMEOUT");
    let id = prepared(&mut environment);
    environment.advance(seconds(60));
    environment.settle();
    assert!(environment.is_rolled_back_at(P0, id) && environment.is_rolled_back_at(P1, id));
}

#[test]
fn calls_about_a_transaction_that_is_not_in_memory_are_for_the_journal() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.roll_back(id);
    environment.settle();
    for token in
        [environment.commit(id), environment.roll_back(id), environment.call(id, Client::Get)]
    {
        assert!(matches!(environment.reply(token), Some(Reply::NotHere)));
    }
}

#[test]
fn a_call_that_waits_for_completion_is_answered_at_the_end() {
    let mut environment = Environment::new();
    let id = prepared(&mut environment);
    let until = environment.now + seconds(60);
    let token = environment.call(id, Client::Rollback { at: AnswerAt::Completion, until });
    assert!(environment.reply(token).is_none());
    environment.advance(millis(10));
    environment.exchange();
    assert_eq!(environment.answer(token).state, TransactionState::Aborted);
}

#[test]
fn calls_that_wait_are_answered_at_once_where_their_waits_end() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    let id = environment.begin();
    environment.enlist(id, P0);
    let prepared = environment.prepare(id);
    environment.end_waits();
    for token in [run.token, prepared] {
        assert_eq!(environment.answer(token).state, TransactionState::Preparing);
    }
    // What they waited for goes on.
    environment.settle();
    assert_eq!(environment.look(id).state, TransactionState::Prepared);
}
