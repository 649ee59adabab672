//! From the client's word to the decision.

use std::sync::Arc;

use dtc_core::{
    AnswerAt, BranchState, Client, Message, Outcome, Reason, Record, Time, TransactionState, Vote,
};

use crate::{
    participant::{NO, READ_ONLY, YES, output_of},
    world::{P0, P1, P2, World, keyed, millis, seconds},
};

#[test]
fn commit_is_neither_sent_nor_told_before_its_record_is_durable() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    assert!(matches!(&world.journal.pending[0].1, Record::Decision(it) if it.commit));
    assert_eq!(world.forced, Some(true));
    world.advance(seconds(60));
    assert!(world.flights.is_empty() && world.reply(run.token).is_none());
    assert!(!world.look(run.id).committed);
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "commit"), (P1, "commit")]);
    assert_eq!(world.outcome(run), Outcome::Committed);
    world.settle();
    assert!(world.is_committed_at(P0, run.id) && world.is_committed_at(P1, run.id));
    assert!(world.coordinator.is_empty());
}

#[test]
fn both_phases_go_to_all_branches_at_once() {
    let mut world = World::new();
    world.execute(&[P0, P1, P2]);
    assert_eq!(world.on_the_way(), [(P0, "prepare"), (P1, "prepare"), (P2, "prepare")]);
    world.exchange();
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "commit"), (P1, "commit"), (P2, "commit")]);
}

#[test]
fn a_participant_that_is_away_delays_only_those_that_name_it() {
    let mut world = World::new();
    world.disconnect(P2);
    let slow = world.execute(&[P0, P2]);
    let quick = world.execute(&[P0, P1]);
    world.settle();
    assert_eq!(world.outcome(quick), Outcome::Committed);
    assert!(world.reply(slow.token).is_none());
    world.connect(P2);
    world.settle();
    assert_eq!(world.outcome(slow), Outcome::Committed);
}

#[test]
fn one_refusal_aborts_all_and_is_the_reason() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, NO), (P2, YES)], |_| {});
    world.deliver_to(P0);
    world.deliver_to(P1);
    world.hear_all();
    assert_eq!(world.outcome(run), Outcome::Aborted);
    let view = world.answer(run.token);
    assert_eq!(view.reason.as_ref().map(|it| it.code.as_str()), Some("OUT_OF_STOCK"));
    assert_eq!(view.branches[1].state, BranchState::Refused);
    // The one that refused is owed nothing; the one that may have heard is.
    assert_eq!(world.on_the_way(), [(P2, "prepare"), (P0, "rollback"), (P2, "rollback")]);
    world.settle();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P2, run.id));
}

#[test]
fn a_late_promise_after_the_abort_is_told_once_more() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, NO), (P1, YES), (P2, YES)], |_| {});
    world.deliver_to(P0);
    let late = world.take_flights();
    world.disconnect(P1);
    world.hear_all();
    world.lose_all();
    assert_eq!(world.look(run.id).branches[1].state, BranchState::LeftToAsk);
    world.connect(P1);
    let late = late.iter().find(|flight| flight.to == P1).expect("a prepare");
    world.deliver(late);
    world.hear_all();
    assert_eq!(world.on_the_way(), [(P1, "rollback")]);
    world.exchange();
    assert!(world.is_rolled_back_at(P1, run.id));
}

#[test]
fn a_refusal_of_one_attempt_among_several_is_rolled_back() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.lose_all();
    world.advance(seconds(2));
    let second = world.take_flights();
    let reason = Reason { code: "DISK_FULL".into(), message: String::new(), participant: None };
    world.vote(P0, run.id, 0, Vote::Abort(Arc::new(reason)));
    // The second attempt was under way, and finds room.
    let second = second.iter().find(|flight| flight.to == P0).expect("a prepare");
    world.deliver(second);
    assert_eq!(world.on_the_way()[0], (P0, "rollback"));
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Aborted);
    assert!(world.is_rolled_back_at(P0, run.id));
}

#[test]
fn silence_until_the_deadline_is_a_vote_to_abort() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.deliver_to(P0);
    world.hear_all();
    world.lose_all();
    world.advance(millis(4999));
    assert!(world.reply(run.token).is_none());
    world.advance(millis(1));
    assert_eq!(world.outcome(run), Outcome::Aborted);
    let reason = world.answer(run.token).reason.clone().expect("a reason");
    assert_eq!((reason.code.as_str(), reason.participant), ("PREPARE_TIMEOUT", Some(P1)));
    world.settle();
    assert!(world.is_rolled_back_at(P0, run.id));
}

#[test]
fn prepare_is_repeated_after_its_own_timeout_and_a_wait() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.lose_all();
    world.advance(seconds(1));
    assert!(world.flights.is_empty(), "the wait has not begun");
    world.advance(millis(50));
    let again = world.on_the_way();
    assert!(again.len() == 2 && again.iter().all(|it| it.1 == "prepare"), "{again:?}");
    world.settle();
    assert_eq!(world.outcome(run), Outcome::Committed);
}

#[test]
fn the_set_number_of_attempts_without_a_vote_aborts() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.prepare_attempts = 2;
        begin.options.prepare_timeout = seconds(600);
    });
    world.lose_all();
    world.connect(P0);
    world.deliver_to(P0);
    world.hear_all();
    world.advance(millis(1100));
    assert_eq!(world.on_the_way(), [(P1, "prepare")], "the second attempt");
    world.connect(P1);
    assert_eq!(world.on_the_way(), [(P1, "prepare")], "a new link is no third attempt");
    world.take_flights();
    world.advance(seconds(1));
    assert_eq!(world.outcome(run), Outcome::Aborted);
    let reason = world.answer(run.token).reason.clone().expect("a reason");
    assert_eq!(reason.code, "PREPARE_ATTEMPTS");
}

#[test]
fn the_first_vote_of_a_branch_counts_and_only_its_participant_casts_it() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    let vote = Vote::Commit { output: Some(output_of(P0, 0)), committed: false };
    world.vote(P0, run.id, 0, vote.clone());
    world.vote(P0, run.id, 0, Vote::Commit { output: None, committed: false });
    world.vote(P0, run.id, 0, Vote::ReadOnly);
    world.vote(P0, run.id, 1, vote.clone());
    world.vote(P0, run.id, 7, vote);
    assert_eq!(world.look(run.id).state, TransactionState::Preparing);
    assert!(world.journal.pending.is_empty(), "one participant is not all");
    world.vote(P1, run.id, 1, Vote::ReadOnly);
    world.sync();
    let message = Message::Commit { number: 1, output: Some(output_of(P0, 0)) };
    let commit = world.take_flights().pop().map(|flight| (flight.to, flight.message));
    assert_eq!(commit, Some((P0, message)));
}

#[test]
fn a_branch_committed_without_being_asked_decides_nothing() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.vote(P1, run.id, 1, Vote::Commit { output: None, committed: true });
    assert!(world.journal.pending.is_empty());
    assert_eq!(world.look(run.id).state, TransactionState::Preparing);
}

#[test]
fn readers_leave_early_with_no_phase_two() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, READ_ONLY), (P1, YES), (P2, YES)], |_| {});
    world.exchange();
    world.sync();
    assert_eq!(world.on_the_way(), [(P1, "commit"), (P2, "commit")]);
    world.settle();
    assert_eq!(world.journal.end(run.id).expect("an end").branches[0], BranchState::ReadOnly);
    let run = world.execute_with(&[(P0, READ_ONLY), (P1, NO)], |_| {});
    world.exchange();
    assert_eq!(world.outcome(run), Outcome::Aborted);
    assert!(world.flights.is_empty(), "a reader is owed no rollback");
}

#[test]
fn a_transaction_of_readers_alone_commits_with_no_phase_two() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, READ_ONLY), (P1, READ_ONLY)], |begin| {
        begin.waiter.at = AnswerAt::Completion;
    });
    world.exchange();
    world.sync();
    assert!(world.flights.is_empty());
    assert_eq!(world.answer(run.token).state, TransactionState::Committed);
}

#[test]
fn nothing_is_written_before_the_decision_where_all_can_ask() {
    let mut world = World::new();
    world.execute(&[P0, P1]);
    assert!(world.journal.pending.is_empty());
    assert_eq!(world.on_the_way().len(), 2);
}

#[test]
fn a_begin_record_is_durable_before_prepare_goes_to_one_that_cannot_ask() {
    let mut world = World::new();
    world.cannot_ask(P1);
    let run = world.execute(&[P0, P1]);
    assert!(world.flights.is_empty());
    assert_eq!(world.forced, Some(true));
    world.sync();
    let begin = world.journal.begin(run.id).expect("a begin record");
    assert_eq!(begin.branches.iter().map(|it| it.asks).collect::<Vec<_>>(), [true, false]);
    assert_eq!(world.on_the_way(), [(P0, "prepare"), (P1, "prepare")]);
}

#[test]
fn a_begin_record_that_is_not_durable_by_the_deadline_is_the_reason_to_abort() {
    let mut world = World::new();
    world.cannot_ask(P1);
    let run = world.execute(&[P0, P1]);
    world.advance(seconds(5));
    let reason = world.answer(run.token).reason.clone().expect("a reason");
    assert!(reason.message.contains("begin record"), "{}", reason.message);
    world.settle();
    assert!(world.coordinator.is_empty() && world.branch_at(P0, run.id).is_none());
}

#[test]
fn an_abort_without_a_key_is_told_at_once_and_not_forced() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, NO), (P1, YES)], |_| {});
    world.exchange();
    assert_eq!(world.outcome(run), Outcome::Aborted);
    assert!(!world.journal.pending.is_empty());
    assert_eq!(world.forced, Some(false));
}

#[test]
fn a_wait_that_ends_is_answered_with_what_is_so() {
    let mut world = World::new();
    let until = world.now + millis(500);
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.waiter.until = until;
        begin.waiter.at = AnswerAt::Completion;
    });
    world.deliver_all();
    world.advance(millis(500));
    let view = world.answer(run.token);
    assert_eq!((view.state, view.committed), (TransactionState::Preparing, false));
    world.hear_all();
    world.sync();
    let until = world.now + millis(100);
    let at = AnswerAt::Completion;
    let token = world.call(run.id, Client::Commit { at, until });
    world.lose_all();
    world.advance(millis(100));
    let view = world.answer(token);
    assert_eq!((view.state, view.committed), (TransactionState::Committing, true));
}

#[test]
fn an_announced_transaction_is_known_after_a_crash_from_its_first_answer_on() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.announced = true;
        begin.waiter.at = AnswerAt::Begun;
        begin.waiter.until = Time::default();
    });
    assert!(world.on_the_way().is_empty(), "nothing is sent before the begin record is durable");
    world.advance(millis(10));
    assert!(
        world.reply(run.token).is_none(),
        "its wait is over, but its id is good for nothing yet"
    );
    world.sync();
    assert_eq!(world.outcome(run), Outcome::Pending);
    assert_eq!(world.on_the_way().len(), 2);
    world.exchange();
    world.crash();
    world.connect_all();
    world.settle();
    assert!(world.is_rolled_back_at(P0, run.id) && world.is_rolled_back_at(P1, run.id));
}

#[test]
fn one_who_needs_an_id_that_is_good_for_asking_may_join_a_run_that_promised_none() {
    let mut world = World::new();
    let request = |announced, at| {
        move |begin: &mut dtc_core::Begin| {
            begin.key = keyed("key", 1);
            begin.announced = announced;
            begin.waiter.at = at;
            begin.waiter.until = Time::default();
        }
    };
    let branches = [(P0, YES), (P1, YES)];
    world.execute_with(&branches, request(false, AnswerAt::Completion));
    world.answer_lookups();
    // It is being prepared, and nothing of it is durable.
    let second = world.execute_with(&branches, request(true, AnswerAt::Begun));
    world.advance(millis(10));
    assert!(world.reply(second.token).is_none(), "a crash would make the id unknown");
    world.exchange();
    world.sync();
    assert_eq!(world.outcome(second), Outcome::Committed);

    // Before the first has begun, both get what the second needs.
    let key = |announced, at| {
        move |begin: &mut dtc_core::Begin| {
            request(announced, at)(begin);
            begin.key = keyed("other", 1);
        }
    };
    world.execute_with(&branches, key(false, AnswerAt::Completion));
    let second = world.execute_with(&branches, key(true, AnswerAt::Begun));
    world.answer_lookups();
    assert!(world.on_the_way().iter().all(|it| it.1 != "prepare"), "the begin record goes first");
    world.sync();
    assert_eq!(world.outcome(second), Outcome::Pending);
}

#[test]
fn nothing_is_owed_to_a_branch_that_was_asked_nothing() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = world.execute(&[P0, P1]);
    // P1 goes while the begin record is being written.
    world.disconnect(P1);
    world.sync();
    assert_eq!(world.on_the_way(), [(P0, "prepare")]);
    world.lose_all();
    world.advance(seconds(60));
    let view = world.look(run.id);
    assert_eq!(view.outcome, Outcome::Aborted);
    assert_eq!(view.branches[1].state, BranchState::Enlisted);
    world.connect(P1);
    assert!(world.flights.iter().all(|flight| flight.to == P0), "{:?}", world.flights);
}

#[test]
fn a_refusal_aborts_at_once_after_several_attempts_too() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    world.lose_all();
    while world.on_the_way().iter().all(|(to, _)| *to != P1) {
        world.advance(millis(100));
    }
    world.deliver_to(P1);
    world.hear_all();
    assert_eq!(world.outcome(run), Outcome::Aborted);
}
