//! One branch, one phase.

use std::sync::Arc;

use dtc_core::{
    Acknowledgement, BranchState, Config, Event, Message, Opaque, Outcome, Reason, TrailKind,
    TransactionState, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    participant::{NO, READ_ONLY, YES},
    world::{P0, P1, World, keyed, seconds},
};

#[test]
fn a_single_branch_is_committed_in_one_call() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    assert_eq!(world.on_the_way(), [(P0, "one phase")]);
    world.exchange();
    assert!(world.reply(run.token).is_none());
    world.sync();
    assert_eq!(world.outcome(run), Outcome::Committed);
    assert!(world.flights.is_empty(), "no phase two");
    assert_eq!(world.coordinator.len(), 1, "its end is not durable");
    world.sync();
    assert!(world.coordinator.is_empty());
}

#[test]
fn a_participant_that_only_promises_is_told_to_commit() {
    let mut world = World::new();
    world.participant(P0).commits_at_once = false;
    let run = world.execute(&[P0]);
    world.exchange();
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "commit")]);
    world.settle();
    assert!(world.is_committed_at(P0, run.id));
}

#[test]
fn a_refusal_or_a_reader_ends_it() {
    let mut world = World::new();
    let refused = world.execute_with(&[(P0, NO)], |_| {});
    let read = world.execute_with(&[(P0, READ_ONLY)], |_| {});
    world.settle();
    assert_eq!(world.outcome(refused), Outcome::Aborted);
    assert_eq!(world.outcome(read), Outcome::Committed);
}

#[test]
fn a_readers_vote_that_comes_after_the_question_decides_nothing() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, READ_ONLY)], |_| {});
    world.deliver_all();
    let vote = world.answers.pop_front().expect("a vote");
    world.advance(seconds(6));
    // The question leaves a tombstone, and its answer is 'rolled back'.
    world.deliver_all();
    world.event(vote);
    world.settle();
    assert!(world.is_rolled_back_at(P0, run.id));
    assert_eq!(world.outcome(run), Outcome::Aborted);
    assert_eq!(world.journal.commits(run.id), Some(false));
}

#[test]
fn a_lost_answer_is_settled_as_committed_if_it_was() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    world.deliver_all();
    world.answers.clear();
    world.disconnect(P0);
    world.advance(seconds(30));
    assert!(world.reply(run.token).is_none(), "it is not known what became of it");
    assert_eq!(world.look(run.id).state, TransactionState::Preparing);
    world.connect(P0);
    assert_eq!(world.on_the_way(), [(P0, "rollback")]);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
}

#[test]
fn a_lost_prepare_is_settled_as_aborted_and_cannot_come_late() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    let late = world.take_flights();
    world.disconnect(P0);
    world.advance(seconds(30));
    world.connect(P0);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Aborted);
    world.deliver(&late[0]);
    assert!(world.is_rolled_back_at(P0, run.id));
}

#[test]
fn what_was_never_sent_is_aborted_at_the_deadline() {
    let mut world = World::new();
    world.disconnect(P0);
    let run = world.execute(&[P0]);
    world.advance(seconds(5));
    assert_eq!(world.outcome(run), Outcome::Aborted);
}

#[test]
fn while_it_is_being_settled_a_promise_is_too_late_and_a_commit_is_not() {
    let mut world = World::new();
    world.participant(P0).commits_at_once = false;
    let run = world.execute(&[P0]);
    let prepare = world.take_flights();
    world.advance(seconds(5));
    let rollback = world.take_flights().pop().expect("the rollback that asks");
    world.deliver(&prepare[0]);
    world.hear_all();
    assert!(world.journal.pending.is_empty(), "the rollback is on its way");
    world.deliver(&rollback);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Aborted);

    let mut world = World::new();
    let run = world.execute(&[P0]);
    let prepare = world.take_flights();
    world.advance(seconds(5));
    world.deliver(&prepare[0]);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
    assert!(world.is_committed_at(P0, run.id));
}

#[test]
fn a_keyed_one_is_settled_after_a_restart() {
    for delivered in [true, false] {
        let mut world = World::new();
        let run = world.execute_keyed("a", &[P0]);
        assert!(world.flights.is_empty(), "its begin record comes first");
        world.sync();
        if delivered {
            world.deliver_all();
        }
        world.lose_all();
        world.crash();
        let again = world.execute_with(&[(P0, 0)], |begin| begin.key = keyed("a", 1));
        assert!(world.reply(again.token).is_none());
        world.connect(P0);
        world.settle();
        let expected = if delivered { Outcome::Committed } else { Outcome::Aborted };
        assert_eq!((world.answer(again.token).id, world.outcome(again)), (run.id, expected));
        assert_eq!(world.is_committed_at(P0, run.id), delivered);
    }
}

#[test]
fn a_mere_promise_of_one_that_cannot_ask_is_taken_back_after_a_restart() {
    let mut world = World::new();
    world.cannot_ask(P1);
    world.participant(P1).commits_at_once = false;
    let run = world.execute(&[P1]);
    world.sync();
    world.deliver_all();
    world.crash();
    world.heal();
    assert!(world.is_rolled_back_at(P1, run.id));
}

/// A refusal that its participant did not record, as by one whose disk is full.
fn unrecorded_refusal() -> Vote {
    let reason = Reason { code: "DISK_FULL".into(), message: String::new(), participant: None };
    Vote::Abort(Arc::new(reason))
}

#[test]
fn a_refusal_of_one_attempt_is_not_taken_for_the_other() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    world.lose_all();
    world.advance(seconds(2));
    assert_eq!(world.look(run.id).branches[0].attempts, 2);
    world.vote(P0, run.id, 0, unrecorded_refusal());
    assert!(world.reply(run.token).is_none(), "the other attempt may yet commit");
    // It does, before the question arrives.
    let (prepares, questions): (Vec<_>, Vec<_>) = world
        .take_flights()
        .into_iter()
        .partition(|flight| matches!(flight.message, Message::Prepare { .. }));
    assert_eq!((prepares.len(), questions.len()), (1, 1));
    world.deliver(&prepares[0]);
    world.answers.clear();
    world.deliver(&questions[0]);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
    assert!(world.is_committed_at(P0, run.id));
}

#[test]
fn a_refusal_without_a_tombstone_is_no_answer_to_a_prepare_that_comes_twice() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    let prepare = world.take_flights().remove(0);
    world.vote(P0, run.id, 0, unrecorded_refusal());
    assert!(world.reply(run.token).is_none(), "the repeated prepare may yet commit");
    world.deliver(&prepare);
    world.answers.clear();
    world.deliver_all();
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
    assert!(world.is_committed_at(P0, run.id));
}

#[test]
fn a_lost_answer_of_a_journal_that_is_gone_is_a_hazard_and_not_an_abort() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    world.deliver_all();
    world.answers.clear();
    world.disconnect(P0);
    world.advance(seconds(30));
    world.participant(P0).lose_disk();
    world.connect(P0);
    world.settle();
    assert_eq!(world.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn a_refusal_by_another_journal_than_was_asked_is_a_hazard_and_not_an_abort() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    world.deliver_all();
    assert!(world.is_committed_at(P0, run.id));
    world.answers.clear();
    world.participant(P0).lose_disk();
    world.vote(P0, run.id, 0, unrecorded_refusal());
    world.settle();
    assert_eq!(world.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn settling_goes_on_until_there_is_an_answer() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    world.lose_all();
    world.advance(seconds(600));
    world.lose_all();
    for answer in [Acknowledgement::Unknown, Acknowledgement::Failed("busy".into())] {
        world.acknowledge(P0, run.id, 0, answer);
        assert_eq!(world.look(run.id).branches[0].state, BranchState::Preparing);
    }
    assert!(world.look(run.id).stalled);
    let shown = world.happened.iter().any(|(_, event)| event.kind == TrailKind::Stalled);
    assert!(shown, "{:?}", world.happened);
    world.heal();
    assert_eq!(world.outcome(run), Outcome::Aborted);
}

#[test]
fn a_participant_that_cannot_commit_in_one_call_is_asked_in_two_phases() {
    let mut world = World::new();
    world.cannot_ask(P0);
    world.disconnect(P0);
    world.connect(P0);
    let run = world.execute_with(&[(P0, YES)], |begin| begin.branches[0].one_phase = false);
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "prepare")]);
    world.lose_all();
    world.advance(seconds(6));
    // Silence is no question of what it did: it is rolled back, and that is decided.
    assert_eq!(world.outcome(run), Outcome::Aborted);
}

#[test]
fn an_output_that_is_too_large_aborts_nothing_that_may_yet_commit() {
    let mut world = World::with(Config { max_output: 1, ..Config::default() });
    let run = world.execute(&[P0]);
    let output = Some(Opaque::from([1, 2]));
    world.vote(P0, run.id, 0, Vote::Commit { output, committed: false });
    assert_eq!(world.on_the_way(), [(P0, "one phase"), (P0, "rollback")]);
    assert_eq!(world.look(run.id).outcome, Outcome::Pending);
    // Another attempt came first.
    world.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    world.sync();
    assert_eq!(world.outcome(run), Outcome::Committed);
}

#[test]
fn the_journal_that_says_committed_is_the_one_on_record() {
    let mut world = World::new();
    let run = world.execute(&[P0]);
    let other = Some(JournalId::from_bytes([77; 16]));
    let vote = Vote::Commit { output: None, committed: true };
    world.event(Event::Voted { from: P0, journal: other, id: run.id, branch: 0, vote });
    world.sync();
    assert_eq!(world.outcome(run), Outcome::Committed);
    assert_eq!(world.journal.decision(run.id).unwrap().branches[0].journal, other);
}
