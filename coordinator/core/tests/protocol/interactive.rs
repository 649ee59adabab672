//! A client that drives its transaction call by call.

use dtc_core::{AnswerAt, BranchState, Client, Outcome, Refused, Reply, TransactionState};

use crate::{
    participant::NO,
    world::{P0, P1, World, branch, millis, seconds},
};

fn wrong_state(world: &World, token: u64) -> Option<(TransactionState, &'static str)> {
    match world.reply(token) {
        Some(Reply::Refused(Refused::WrongState { state, call })) => Some((*state, call)),
        _ => None,
    }
}

fn prepared(world: &mut World) -> dtc_protocol::TransactionId {
    let id = world.begin();
    world.enlist(id, P0);
    world.enlist(id, P1);
    let token = world.prepare(id);
    world.settle();
    assert_eq!(world.answer(token).state, TransactionState::Prepared);
    id
}

#[test]
fn begin_enlist_prepare_commit() {
    let mut world = World::new();
    let id = world.begin();
    let (first, second) = (world.enlist(id, P0), world.enlist(id, P1));
    assert!(matches!(world.reply(first), Some(Reply::Enlisted(0))));
    assert!(matches!(world.reply(second), Some(Reply::Enlisted(1))));
    let token = world.prepare(id);
    assert!(world.flights.is_empty(), "the branches are written first");
    world.settle();
    assert_eq!(world.answer(token).state, TransactionState::Prepared);
    assert!(world.journal.decision(id).is_none() && world.flights.is_empty());
    let token = world.commit(id);
    world.settle();
    assert_eq!(world.answer(token).outcome, Outcome::Committed);
    assert!(world.is_committed_at(P0, id) && world.is_committed_at(P1, id));
}

#[test]
fn the_client_has_the_id_only_once_it_is_durable() {
    let mut world = World::new();
    let run = world.execute_with(&[], |begin| begin.interactive = true);
    assert!(world.reply(run.token).is_none());
    assert_eq!(world.forced, Some(true));
    let token = world.commit(run.id);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Active, "commit")));
    let token = world.prepare(run.id);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Active, "prepare")));
    world.sync();
    assert!(matches!(world.reply(run.token), Some(Reply::Begun(_))));
}

#[test]
fn commit_without_prepare_collects_the_votes_itself() {
    let mut world = World::new();
    let id = world.begin();
    world.enlist(id, P0);
    world.enlist(id, P1);
    let token = world.commit(id);
    world.settle();
    assert_eq!(world.answer(token).outcome, Outcome::Committed);
}

#[test]
fn commit_of_a_single_branch_is_in_one_phase() {
    let mut world = World::new();
    let id = world.begin();
    world.enlist(id, P0);
    let token = world.commit(id);
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "one phase")]);
    world.settle();
    assert_eq!(world.answer(token).outcome, Outcome::Committed);
}

#[test]
fn commit_of_nothing_commits() {
    let mut world = World::new();
    let id = world.begin();
    let token = world.commit(id);
    world.settle();
    assert_eq!(world.answer(token).outcome, Outcome::Committed);
    assert!(world.coordinator.is_empty());
}

#[test]
fn commit_while_votes_are_collected_decides_when_they_are_in() {
    let mut world = World::new();
    let id = world.begin();
    world.enlist(id, P0);
    world.enlist(id, P1);
    let first = world.prepare(id);
    world.sync();
    let second = world.commit(id);
    world.settle();
    assert!(world.answer(first).committed && world.answer(second).committed);
}

#[test]
fn repeated_calls_get_the_same_answer() {
    let mut world = World::new();
    let id = prepared(&mut world);
    let again = world.prepare(id);
    assert_eq!(world.answer(again).state, TransactionState::Prepared);
    let (first, second) = (world.commit(id), world.commit(id));
    world.sync();
    assert!(world.answer(first).committed && world.answer(second).committed);
    let id = world.begin();
    let (first, second) = (world.roll_back(id), world.roll_back(id));
    assert_eq!(world.answer(first).outcome, Outcome::Aborted);
    assert_eq!(world.answer(second).outcome, Outcome::Aborted);
}

#[test]
fn rollback_is_possible_until_the_decision() {
    let mut world = World::new();
    let active = world.begin();
    let preparing = world.begin();
    for id in [active, preparing] {
        world.enlist(id, P0);
        world.enlist(id, P1);
    }
    world.prepare(preparing);
    world.sync();
    world.deliver_all();
    let prepared = prepared(&mut world);
    for id in [active, preparing, prepared] {
        let token = world.roll_back(id);
        assert_eq!(world.answer(token).outcome, Outcome::Aborted);
        let token = world.commit(id);
        assert!(!world.answer(token).committed, "commit comes too late");
    }
    world.settle();
    assert!(world.branch_at(P0, active).is_none(), "it was sent nothing");
    assert!(world.is_rolled_back_at(P0, prepared) && world.is_rolled_back_at(P1, preparing));
}

#[test]
fn rollback_after_the_decision_is_refused() {
    let mut world = World::new();
    let id = prepared(&mut world);
    world.commit(id);
    let token = world.roll_back(id);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Preparing, "rollback")));
    world.sync();
    let token = world.roll_back(id);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Committing, "rollback")));
    world.exchange();
    let token = world.roll_back(id);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Committed, "rollback")));
}

#[test]
fn rollback_of_a_one_phase_that_was_sent_is_refused() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    let token = world.roll_back(run.id);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Preparing, "rollback")));
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
}

#[test]
fn branches_are_added_to_an_active_transaction_only() {
    let mut world = World::new();
    let id = prepared(&mut world);
    let token = world.enlist(id, P0);
    assert_eq!(wrong_state(&world, token), Some((TransactionState::Prepared, "enlist")));
}

#[test]
fn a_refusal_aborts_before_the_client_commits() {
    let mut world = World::new();
    let id = world.begin();
    world.enlist(id, P0);
    world.call(id, Client::Enlist { branch: Some(branch(P1, NO)), key: None });
    let token = world.prepare(id);
    world.settle();
    assert_eq!(world.answer(token).outcome, Outcome::Aborted);
    assert_eq!(world.answer(token).branches[1].state, BranchState::Refused);
    assert!(world.is_rolled_back_at(P0, id));
}

#[test]
fn a_client_that_vanishes_is_rolled_back_after_its_idle_limit() {
    let mut world = World::new();
    let id = world.begin();
    world.advance(seconds(50));
    world.enlist(id, P0);
    world.advance(seconds(59));
    assert_eq!(world.look(id).state, TransactionState::Active, "a call starts it anew");
    world.advance(seconds(1));
    world.settle();
    assert!(world.coordinator.is_empty());
    let reason = world.journal.decision(id).and_then(|it| it.reason.clone()).expect("a reason");
    assert_eq!(reason.code, "IDLE_TIMEOUT");
    let id = prepared(&mut world);
    world.advance(seconds(60));
    world.settle();
    assert!(world.is_rolled_back_at(P0, id) && world.is_rolled_back_at(P1, id));
}

#[test]
fn calls_about_a_transaction_that_is_not_in_memory_are_for_the_journal() {
    let mut world = World::new();
    let id = world.begin();
    world.roll_back(id);
    world.settle();
    for token in [world.commit(id), world.roll_back(id), world.call(id, Client::Get)] {
        assert!(matches!(world.reply(token), Some(Reply::NotHere)));
    }
}

#[test]
fn a_call_that_waits_for_completion_is_answered_at_the_end() {
    let mut world = World::new();
    let id = prepared(&mut world);
    let until = world.now + seconds(60);
    let token = world.call(id, Client::Rollback { at: AnswerAt::Completion, until });
    assert!(world.reply(token).is_none());
    world.advance(millis(10));
    world.exchange();
    assert_eq!(world.answer(token).state, TransactionState::Aborted);
}

#[test]
fn calls_that_wait_are_answered_at_once_where_their_waits_end() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    let id = world.begin();
    world.enlist(id, P0);
    let prepared = world.prepare(id);
    world.end_waits();
    for token in [run.token, prepared] {
        assert_eq!(world.answer(token).state, TransactionState::Preparing);
    }
    // What they waited for goes on.
    world.settle();
    assert_eq!(world.look(id).state, TransactionState::Prepared);
}
