//! One branch, one phase.

use std::sync::Arc;

use dtc_core::{
    Acknowledgement, BranchState, Config, Event, Message, Opaque, Outcome, Reason, TrailKind,
    TransactionState, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    environment::{Environment, P0, P1, keyed, seconds},
    participant::{NO, READ_ONLY, YES},
};

#[test]
fn a_single_branch_is_committed_in_one_call() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    assert_eq!(environment.on_the_way(), [(P0, "one phase")]);
    environment.exchange();
    assert!(environment.reply(run.token).is_none());
    environment.sync();
    assert_eq!(environment.outcome(run), Outcome::Committed);
    assert!(environment.flights.is_empty(), "no phase two");
    assert_eq!(environment.coordinator.len(), 1, "its end is not durable");
    environment.sync();
    assert!(environment.coordinator.is_empty());
}

#[test]
fn a_participant_that_only_promises_is_told_to_commit() {
    let mut environment = Environment::new();
    environment.participant(P0).commits_at_once = false;
    let run = environment.execute(&[P0]);
    environment.exchange();
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "commit")]);
    environment.settle();
    assert!(environment.is_committed_at(P0, run.id));
}

#[test]
fn a_refusal_or_a_reader_ends_it() {
    let mut environment = Environment::new();
    let refused = environment.execute_with(&[(P0, NO)], |_| {});
    let read = environment.execute_with(&[(P0, READ_ONLY)], |_| {});
    environment.settle();
    assert_eq!(environment.outcome(refused), Outcome::Aborted);
    assert_eq!(environment.outcome(read), Outcome::Committed);
}

#[test]
fn a_readers_vote_that_comes_after_the_question_decides_nothing() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, READ_ONLY)], |_| {});
    environment.deliver_all();
    let vote = environment.answers.pop_front().expect("a vote");
    environment.advance(seconds(6));
    // The question leaves a tombstone, and its answer is 'rolled back'.
    environment.deliver_all();
    environment.event(vote);
    environment.settle();
    assert!(environment.is_rolled_back_at(P0, run.id));
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    assert_eq!(environment.journal.commits(run.id), Some(false));
}

#[test]
fn a_lost_answer_is_settled_as_committed_if_it_was() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    environment.deliver_all();
    environment.answers.clear();
    environment.disconnect(P0);
    environment.advance(seconds(30));
    assert!(environment.reply(run.token).is_none(), "it is not known what became of it");
    assert_eq!(environment.look(run.id).state, TransactionState::Preparing);
    environment.connect(P0);
    assert_eq!(environment.on_the_way(), [(P0, "rollback")]);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}

#[test]
fn a_lost_prepare_is_settled_as_aborted_and_cannot_come_late() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    let late = environment.take_flights();
    environment.disconnect(P0);
    environment.advance(seconds(30));
    environment.connect(P0);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    environment.deliver(&late[0]);
    assert!(environment.is_rolled_back_at(P0, run.id));
}

#[test]
fn what_was_never_sent_is_aborted_at_the_deadline() {
    let mut environment = Environment::new();
    environment.disconnect(P0);
    let run = environment.execute(&[P0]);
    environment.advance(seconds(5));
    assert_eq!(environment.outcome(run), Outcome::Aborted);
}

#[test]
fn while_it_is_being_settled_a_promise_is_too_late_and_a_commit_is_not() {
    let mut environment = Environment::new();
    environment.participant(P0).commits_at_once = false;
    let run = environment.execute(&[P0]);
    let prepare = environment.take_flights();
    environment.advance(seconds(5));
    let rollback = environment.take_flights().pop().expect("the rollback that asks");
    environment.deliver(&prepare[0]);
    environment.hear_all();
    assert!(environment.journal.pending.is_empty(), "the rollback is on its way");
    environment.deliver(&rollback);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Aborted);

    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    let prepare = environment.take_flights();
    environment.advance(seconds(5));
    environment.deliver(&prepare[0]);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
    assert!(environment.is_committed_at(P0, run.id));
}

#[test]
fn a_keyed_one_is_settled_after_a_restart() {
    for delivered in [true, false] {
        let mut environment = Environment::new();
        let run = environment.execute_keyed("a", &[P0]);
        assert!(environment.flights.is_empty(), "its begin record comes first");
        environment.sync();
        if delivered {
            environment.deliver_all();
        }
        environment.lose_all();
        environment.crash();
        let again = environment.execute_with(&[(P0, 0)], |begin| begin.key = keyed("a", 1));
        assert!(environment.reply(again.token).is_none());
        environment.connect(P0);
        environment.settle();
        let expected = if delivered { Outcome::Committed } else { Outcome::Aborted };
        assert_eq!(
            (environment.answer(again.token).id, environment.outcome(again)),
            (run.id, expected)
        );
        assert_eq!(environment.is_committed_at(P0, run.id), delivered);
    }
}

#[test]
fn a_mere_promise_of_one_that_cannot_ask_is_taken_back_after_a_restart() {
    let mut environment = Environment::new();
    environment.cannot_ask(P1);
    environment.participant(P1).commits_at_once = false;
    let run = environment.execute(&[P1]);
    environment.sync();
    environment.deliver_all();
    environment.crash();
    environment.heal();
    assert!(environment.is_rolled_back_at(P1, run.id));
}

/// A refusal that its participant did not record, as by one whose disk is full.
fn unrecorded_refusal() -> Vote {
    let reason = Reason { code: "DISK_FULL".into(), message: String::new(), participant: None };
    Vote::Abort(Arc::new(reason))
}

#[test]
fn a_refusal_of_one_attempt_is_not_taken_for_the_other() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    environment.lose_all();
    environment.advance(seconds(2));
    assert_eq!(environment.look(run.id).branches[0].attempts, 2);
    environment.vote(P0, run.id, 0, unrecorded_refusal());
    assert!(environment.reply(run.token).is_none(), "the other attempt may yet commit");
    // It does, before the question arrives.
    let (prepares, questions): (Vec<_>, Vec<_>) = environment
        .take_flights()
        .into_iter()
        .partition(|flight| matches!(flight.message, Message::Prepare { .. }));
    assert_eq!((prepares.len(), questions.len()), (1, 1));
    environment.deliver(&prepares[0]);
    environment.answers.clear();
    environment.deliver(&questions[0]);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
    assert!(environment.is_committed_at(P0, run.id));
}

#[test]
fn a_refusal_without_a_tombstone_is_no_answer_to_a_prepare_that_comes_twice() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    let prepare = environment.take_flights().remove(0);
    environment.vote(P0, run.id, 0, unrecorded_refusal());
    assert!(environment.reply(run.token).is_none(), "the repeated prepare may yet commit");
    environment.deliver(&prepare);
    environment.answers.clear();
    environment.deliver_all();
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
    assert!(environment.is_committed_at(P0, run.id));
}

#[test]
fn a_lost_answer_of_a_journal_that_is_gone_is_a_hazard_and_not_an_abort() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    environment.deliver_all();
    environment.answers.clear();
    environment.disconnect(P0);
    environment.advance(seconds(30));
    environment.participant(P0).lose_disk();
    environment.connect(P0);
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn a_refusal_by_another_journal_than_was_asked_is_a_hazard_and_not_an_abort() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    environment.deliver_all();
    assert!(environment.is_committed_at(P0, run.id));
    environment.answers.clear();
    environment.participant(P0).lose_disk();
    environment.vote(P0, run.id, 0, unrecorded_refusal());
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn settling_goes_on_until_there_is_an_answer() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    environment.lose_all();
    environment.advance(seconds(600));
    environment.lose_all();
    for answer in [Acknowledgement::Unknown, Acknowledgement::Failed("busy".into())] {
        environment.acknowledge(P0, run.id, 0, answer);
        assert_eq!(environment.look(run.id).branches[0].state, BranchState::Preparing);
    }
    assert!(environment.look(run.id).stalled);
    let shown = environment.happened.iter().any(|(_, event)| event.kind == TrailKind::Stalled);
    assert!(shown, "{:?}", environment.happened);
    environment.heal();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
}

#[test]
fn a_participant_that_cannot_commit_in_one_call_is_asked_in_two_phases() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    environment.disconnect(P0);
    environment.connect(P0);
    let run = environment.execute_with(&[(P0, YES)], |begin| begin.branches[0].one_phase = false);
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "prepare")]);
    environment.lose_all();
    environment.advance(seconds(6));
    // Silence is no question of what it did: it is rolled back, and that is decided.
    assert_eq!(environment.outcome(run), Outcome::Aborted);
}

#[test]
fn an_output_that_is_too_large_aborts_nothing_that_may_yet_commit() {
    let mut environment = Environment::with(Config { max_output: 1, ..Config::default() });
    let run = environment.execute(&[P0]);
    let output = Some(Opaque::from([1, 2]));
    environment.vote(P0, run.id, 0, Vote::Commit { output, committed: false });
    assert_eq!(environment.on_the_way(), [(P0, "one phase"), (P0, "rollback")]);
    assert_eq!(environment.look(run.id).outcome, Outcome::Pending);
    // Another attempt came first.
    environment.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    environment.sync();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}

#[test]
fn the_journal_that_says_committed_is_the_one_on_record() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0]);
    let other = Some(JournalId::from_bytes([77; 16]));
    let vote = Vote::Commit { output: None, committed: true };
    environment.event(Event::Voted { from: P0, journal: other, id: run.id, branch: 0, vote });
    environment.sync();
    assert_eq!(environment.outcome(run), Outcome::Committed);
    assert_eq!(environment.journal.decision(run.id).unwrap().branches[0].journal, other);
}
