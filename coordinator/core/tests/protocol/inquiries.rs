//! In doubt means ask.

use dtc_core::{Action, BranchOutcome, Event, Found, FoundBranch, Inquirer};
use dtc_protocol::TransactionId;

use crate::{
    participant::{NO, YES, output_of},
    world::{P0, P1, World, seconds},
};

const ABORTED: Option<BranchOutcome> = Some(BranchOutcome::Aborted { number: 1 });
const PENDING: Option<BranchOutcome> = Some(BranchOutcome::Pending);

fn committed() -> Option<BranchOutcome> {
    Some(BranchOutcome::Committed { number: 1, output: Some(output_of(P0, 0)) })
}

#[test]
fn the_answer_is_pending_until_the_decision_is_durable() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    assert_eq!(world.ask(run.id, 0), PENDING, "preparing");
    world.exchange();
    assert!(!world.journal.pending.is_empty());
    assert_eq!(world.ask(run.id, 0), PENDING, "deciding");
    world.sync();
    assert_eq!(world.ask(run.id, 0), committed(), "committing");
    world.exchange();
    assert_eq!(world.ask(run.id, 0), committed(), "ended, not durably");
    world.sync();
    assert_eq!(world.ask(run.id, 0), None, "the journal is asked");
    world.answer_lookups();
    assert_eq!(world.told.last().map(|told| told.3.clone()), committed());
}

#[test]
fn interactive_states_are_pending_too() {
    let mut world = World::new();
    let id = world.begin();
    world.enlist(id, P0);
    assert_eq!(world.ask(id, 0), PENDING, "active");
    world.prepare(id);
    assert_eq!(world.ask(id, 0), PENDING, "logging");
    world.settle();
    assert_eq!(world.ask(id, 0), PENDING, "prepared");
}

#[test]
fn an_aborted_transaction_is_told_at_once_key_or_not() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    world.exchange();
    assert_eq!(world.ask(run.id, 0), ABORTED, "aborting");
    world.exchange();
    assert_eq!(world.ask(run.id, 0), ABORTED, "ended");
    world.sync();
    world.ask(run.id, 0);
    world.answer_lookups();
    assert_eq!(world.told.last().map(|told| told.3.clone()), ABORTED);
}

#[test]
fn one_phase_that_is_being_settled_is_pending() {
    let mut world = World::new();
    world.participant(P0).commits_at_once = false;
    let run = world.execute(&[P0]);
    world.deliver_all();
    world.answers.clear();
    world.disconnect(P0);
    world.advance(seconds(6));
    assert_eq!(world.ask(run.id, 0), PENDING);
}

#[test]
fn an_unknown_transaction_is_aborted_only_once_the_journal_was_asked() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.deliver_all();
    world.crash();
    world.connect_all();
    assert_eq!(world.lookups.len(), 2);
    assert!(matches!(&world.lookups[0],
        Action::Lookup { from: Inquirer::Link(P0), id, branch: 0, .. } if *id == run.id));
    assert!(world.told.is_empty());
    world.answer_lookups();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
}

#[test]
fn what_the_journal_may_have_forgotten_is_neither_aborted_nor_committed() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.deliver_all();
    world.crash();
    world.has_forgotten = true;
    world.connect_all();
    world.answer_lookups();
    assert!(world.told.iter().all(|told| told.3 == BranchOutcome::NotMine), "{:?}", world.told);
    assert_eq!(world.told.len(), 2);
    assert!(!world.is_rolled_back_at(P0, run.id) && !world.is_rolled_back_at(P1, run.id));
}

#[test]
fn a_branch_that_the_transaction_does_not_have_is_not_ours() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    assert_eq!(world.ask(run.id, 2), Some(BranchOutcome::NotMine));
    world.settle();
    world.ask(run.id, 2);
    world.answer_lookups();
    assert_eq!(world.told.last().map(|told| told.3.clone()), Some(BranchOutcome::NotMine));
}

#[test]
fn the_answer_of_the_journal_is_the_decision_or_the_later_one_of_an_operator() {
    let mut world = World::new();
    let output = || Some(output_of(P0, 0));
    let committed = |number| BranchOutcome::Committed { number, output: output() };
    let aborted = |number| BranchOutcome::Aborted { number };
    for (commit, forced, expected) in [
        (true, None, committed(3)),
        (false, None, aborted(3)),
        (true, Some(true), committed(4)),
        (true, Some(false), aborted(4)),
        (false, Some(true), committed(4)),
        (false, Some(false), aborted(4)),
    ] {
        let found = FoundBranch { commit, number: 3, output: output(), known: true, forced };
        let id = TransactionId::from_bytes([3; 16]);
        let (to, found) = (Inquirer::Link(P0), Found::Branch(found));
        let mut actions = Vec::new();
        let event = Event::Found { to, id, branch: 0, found };
        world.coordinator.handle(world.now, event, &mut actions);
        let [Action::Answer { outcome, .. }] = &actions[..] else {
            panic!("no single answer: {actions:?}");
        };
        assert_eq!(*outcome, expected, "commit {commit}, forced {forced:?}");
    }
}
