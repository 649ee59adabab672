//! In doubt means ask.

use dtc_core::{Action, BranchOutcome, Event, Found, FoundBranch, Inquirer};
use dtc_protocol::TransactionId;

use crate::{
    environment::{Environment, P0, P1, seconds},
    participant::{NO, YES, output_of},
};

const ABORTED: Option<BranchOutcome> = Some(BranchOutcome::Aborted { number: 1 });
const PENDING: Option<BranchOutcome> = Some(BranchOutcome::Pending);

fn committed() -> Option<BranchOutcome> {
    Some(BranchOutcome::Committed { number: 1, output: Some(output_of(P0, 0)) })
}

#[test]
fn the_answer_is_pending_until_the_decision_is_durable() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    assert_eq!(environment.ask(run.id, 0), PENDING, "preparing");
    environment.exchange();
    assert!(!environment.journal.pending.is_empty());
    assert_eq!(environment.ask(run.id, 0), PENDING, "deciding");
    environment.sync();
    assert_eq!(environment.ask(run.id, 0), committed(), "committing");
    environment.exchange();
    assert_eq!(environment.ask(run.id, 0), committed(), "ended, not durably");
    environment.sync();
    assert_eq!(environment.ask(run.id, 0), None, "the journal is asked");
    environment.answer_lookups();
    assert_eq!(environment.told.last().map(|told| told.3.clone()), committed());
}

#[test]
fn interactive_states_are_pending_too() {
    let mut environment = Environment::new();
    let id = environment.begin();
    environment.enlist(id, P0);
    assert_eq!(environment.ask(id, 0), PENDING, "active");
    environment.prepare(id);
    assert_eq!(environment.ask(id, 0), PENDING, "logging");
    environment.settle();
    assert_eq!(environment.ask(id, 0), PENDING, "prepared");
}

#[test]
fn an_aborted_transaction_is_told_at_once_key_or_not() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    environment.exchange();
    assert_eq!(environment.ask(run.id, 0), ABORTED, "aborting");
    environment.exchange();
    assert_eq!(environment.ask(run.id, 0), ABORTED, "ended");
    environment.sync();
    environment.ask(run.id, 0);
    environment.answer_lookups();
    assert_eq!(environment.told.last().map(|told| told.3.clone()), ABORTED);
}

#[test]
fn one_phase_that_is_being_settled_is_pending() {
    let mut environment = Environment::new();
    environment.participant(P0).commits_at_once = false;
    let run = environment.execute(&[P0]);
    environment.deliver_all();
    environment.answers.clear();
    environment.disconnect(P0);
    environment.advance(seconds(6));
    assert_eq!(environment.ask(run.id, 0), PENDING);
}

#[test]
fn an_unknown_transaction_is_aborted_only_once_the_journal_was_asked() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.deliver_all();
    environment.crash();
    environment.connect_all();
    assert_eq!(environment.lookups.len(), 2);
    assert!(matches!(&environment.lookups[0],
        Action::Lookup { from: Inquirer::Link(P0), id, branch: 0, .. } if *id == run.id));
    assert!(environment.told.is_empty());
    environment.answer_lookups();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn what_the_journal_may_have_forgotten_is_neither_aborted_nor_committed() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.deliver_all();
    environment.crash();
    environment.has_forgotten = true;
    environment.connect_all();
    environment.answer_lookups();
    assert!(
        environment.told.iter().all(|told| told.3 == BranchOutcome::NotMine),
        "{:?}",
        environment.told
    );
    assert_eq!(environment.told.len(), 2);
    assert!(
        !environment.is_rolled_back_at(P0, run.id) && !environment.is_rolled_back_at(P1, run.id)
    );
}

#[test]
fn a_branch_that_the_transaction_does_not_have_is_not_ours() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    assert_eq!(environment.ask(run.id, 2), Some(BranchOutcome::NotMine));
    environment.settle();
    environment.ask(run.id, 2);
    environment.answer_lookups();
    assert_eq!(environment.told.last().map(|told| told.3.clone()), Some(BranchOutcome::NotMine));
}

#[test]
fn the_answer_of_the_journal_is_the_decision_or_the_later_one_of_an_operator() {
    let mut environment = Environment::new();
    let output = || Some(output_of(P0, 0));
    let committed = |number| BranchOutcome::Committed { number, output: output() };
    let aborted = |number| BranchOutcome::Aborted { number };
    for (commit, resolved, expected) in [
        (true, None, committed(3)),
        (false, None, aborted(3)),
        (true, Some(true), committed(4)),
        (true, Some(false), aborted(4)),
        (false, Some(true), committed(4)),
        (false, Some(false), aborted(4)),
    ] {
        let found = FoundBranch { commit, number: 3, output: output(), known: true, resolved };
        let id = TransactionId::from_bytes([3; 16]);
        let (to, found) = (Inquirer::Link(P0), Found::Branch(found));
        let mut actions = Vec::new();
        let event = Event::Found { to, id, branch: 0, found };
        environment.coordinator.handle(environment.now, event, &mut actions);
        let [Action::Answer { outcome, .. }] = &actions[..] else {
            panic!("no single answer: {actions:?}");
        };
        assert_eq!(*outcome, expected, "commit {commit}, resolved {resolved:?}");
    }
}
