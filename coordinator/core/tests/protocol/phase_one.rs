//! From the client's word to the decision.

use std::sync::Arc;

use dtc_core::{
    AnswerAt, BranchState, Client, Message, Outcome, Reason, Record, Time, TransactionState, Vote,
};

use crate::{
    environment::{Environment, P0, P1, P2, keyed, millis, seconds},
    participant::{NO, READ_ONLY, YES, output_of},
};

#[test]
fn commit_is_neither_sent_nor_told_before_its_record_is_durable() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    assert!(matches!(&environment.journal.pending[0].1, Record::Decision(it) if it.commit));
    assert_eq!(environment.sync, Some(true));
    environment.advance(seconds(60));
    assert!(environment.flights.is_empty() && environment.reply(run.token).is_none());
    assert!(!environment.look(run.id).committed);
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "commit"), (P1, "commit")]);
    assert_eq!(environment.outcome(run), Outcome::Committed);
    environment.settle();
    assert!(environment.is_committed_at(P0, run.id) && environment.is_committed_at(P1, run.id));
    assert!(environment.coordinator.is_empty());
}

#[test]
fn both_phases_go_to_all_branches_at_once() {
    let mut environment = Environment::new();
    environment.execute(&[P0, P1, P2]);
    assert_eq!(environment.on_the_way(), [(P0, "prepare"), (P1, "prepare"), (P2, "prepare")]);
    environment.exchange();
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "commit"), (P1, "commit"), (P2, "commit")]);
}

#[test]
fn a_participant_that_is_away_delays_only_those_that_name_it() {
    let mut environment = Environment::new();
    environment.disconnect(P2);
    let slow = environment.execute(&[P0, P2]);
    let quick = environment.execute(&[P0, P1]);
    environment.settle();
    assert_eq!(environment.outcome(quick), Outcome::Committed);
    assert!(environment.reply(slow.token).is_none());
    environment.connect(P2);
    environment.settle();
    assert_eq!(environment.outcome(slow), Outcome::Committed);
}

#[test]
fn one_refusal_aborts_all_and_is_the_reason() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, NO), (P2, YES)], |_| {});
    environment.deliver_to(P0);
    environment.deliver_to(P1);
    environment.hear_all();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    let view = environment.answer(run.token);
    assert_eq!(view.reason.as_ref().map(|it| it.code.as_str()), Some("OUT_OF_STOCK"));
    assert_eq!(view.branches[1].state, BranchState::Refused);
    // The one that refused is owed nothing; the one that may have heard is.
    assert_eq!(environment.on_the_way(), [(P2, "prepare"), (P0, "rollback"), (P2, "rollback")]);
    environment.settle();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P2, run.id));
}

#[test]
fn a_late_promise_after_the_abort_is_told_once_more() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, NO), (P1, YES), (P2, YES)], |_| {});
    environment.deliver_to(P0);
    let late = environment.take_flights();
    environment.disconnect(P1);
    environment.hear_all();
    environment.lose_all();
    assert_eq!(environment.look(run.id).branches[1].state, BranchState::RollbackUnacknowledged);
    environment.connect(P1);
    let late = late.iter().find(|flight| flight.to == P1).expect("a prepare");
    environment.deliver(late);
    environment.hear_all();
    assert_eq!(environment.on_the_way(), [(P1, "rollback")]);
    environment.exchange();
    assert!(environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn a_refusal_of_one_attempt_among_several_is_rolled_back() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.lose_all();
    environment.advance(seconds(2));
    let second = environment.take_flights();
    let reason = Reason { code: "DISK_FULL".into(), message: String::new(), participant: None };
    environment.vote(P0, run.id, 0, Vote::Abort(Arc::new(reason)));
    // The second attempt was under way, and finds room.
    let second = second.iter().find(|flight| flight.to == P0).expect("a prepare");
    environment.deliver(second);
    assert_eq!(environment.on_the_way()[0], (P0, "rollback"));
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    assert!(environment.is_rolled_back_at(P0, run.id));
}

#[test]
fn silence_until_the_deadline_is_a_vote_to_abort() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.deliver_to(P0);
    environment.hear_all();
    environment.lose_all();
    environment.advance(millis(4999));
    assert!(environment.reply(run.token).is_none());
    environment.advance(millis(1));
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    let reason = environment.answer(run.token).reason.clone().expect("a reason");
    assert_eq!((reason.code.as_str(), reason.participant), ("PREPARE_TIMEOUT", Some(P1)));
    environment.settle();
    assert!(environment.is_rolled_back_at(P0, run.id));
}

#[test]
fn prepare_is_repeated_after_its_own_timeout_and_a_wait() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.lose_all();
    environment.advance(seconds(1));
    assert!(environment.flights.is_empty(), "the wait has not begun");
    environment.advance(millis(50));
    let again = environment.on_the_way();
    assert!(again.len() == 2 && again.iter().all(|it| it.1 == "prepare"), "{again:?}");
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}

#[test]
fn the_set_number_of_attempts_without_a_vote_aborts() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.prepare_attempts = 2;
        begin.options.prepare_timeout = seconds(600);
    });
    environment.lose_all();
    environment.connect(P0);
    environment.deliver_to(P0);
    environment.hear_all();
    environment.advance(millis(1100));
    assert_eq!(environment.on_the_way(), [(P1, "prepare")], "the second attempt");
    environment.connect(P1);
    assert_eq!(environment.on_the_way(), [(P1, "prepare")], "a new link is no third attempt");
    environment.take_flights();
    environment.advance(seconds(1));
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    let reason = environment.answer(run.token).reason.clone().expect("a reason");
    assert_eq!(reason.code, "PREPARE_ATTEMPTS");
}

#[test]
fn the_first_vote_of_a_branch_counts_and_only_its_participant_casts_it() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    let vote = Vote::Commit { output: Some(output_of(P0, 0)), committed: false };
    environment.vote(P0, run.id, 0, vote.clone());
    environment.vote(P0, run.id, 0, Vote::Commit { output: None, committed: false });
    environment.vote(P0, run.id, 0, Vote::ReadOnly);
    environment.vote(P0, run.id, 1, vote.clone());
    environment.vote(P0, run.id, 7, vote);
    assert_eq!(environment.look(run.id).state, TransactionState::Preparing);
    assert!(environment.journal.pending.is_empty(), "one participant is not all");
    environment.vote(P1, run.id, 1, Vote::ReadOnly);
    environment.sync();
    let message = Message::Commit { number: 1, output: Some(output_of(P0, 0)) };
    let commit = environment.take_flights().pop().map(|flight| (flight.to, flight.message));
    assert_eq!(commit, Some((P0, message)));
}

#[test]
fn a_branch_committed_without_being_asked_decides_nothing() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.vote(P1, run.id, 1, Vote::Commit { output: None, committed: true });
    assert!(environment.journal.pending.is_empty());
    assert_eq!(environment.look(run.id).state, TransactionState::Preparing);
}

#[test]
fn readers_leave_early_with_no_phase_two() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, READ_ONLY), (P1, YES), (P2, YES)], |_| {});
    environment.exchange();
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P1, "commit"), (P2, "commit")]);
    environment.settle();
    assert_eq!(environment.journal.end(run.id).expect("an end").branches[0], BranchState::ReadOnly);
    let run = environment.execute_with(&[(P0, READ_ONLY), (P1, NO)], |_| {});
    environment.exchange();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    assert!(environment.flights.is_empty(), "a reader is owed no rollback");
}

#[test]
fn a_transaction_of_readers_alone_commits_with_no_phase_two() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, READ_ONLY), (P1, READ_ONLY)], |begin| {
        begin.waiter.at = AnswerAt::Completion;
    });
    environment.exchange();
    environment.sync();
    assert!(environment.flights.is_empty());
    assert_eq!(environment.answer(run.token).state, TransactionState::Committed);
}

#[test]
fn nothing_is_written_before_the_decision_where_all_can_ask() {
    let mut environment = Environment::new();
    environment.execute(&[P0, P1]);
    assert!(environment.journal.pending.is_empty());
    assert_eq!(environment.on_the_way().len(), 2);
}

#[test]
fn a_begin_record_is_durable_before_prepare_goes_to_one_that_cannot_ask() {
    let mut environment = Environment::new();
    environment.cannot_ask(P1);
    let run = environment.execute(&[P0, P1]);
    assert!(environment.flights.is_empty());
    assert_eq!(environment.sync, Some(true));
    environment.sync();
    let begin = environment.journal.begin(run.id).expect("a begin record");
    assert_eq!(
        begin.branches.iter().map(|it| it.supports_inquiry).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(environment.on_the_way(), [(P0, "prepare"), (P1, "prepare")]);
}

#[test]
fn a_begin_record_that_is_not_durable_by_the_deadline_is_the_reason_to_abort() {
    let mut environment = Environment::new();
    environment.cannot_ask(P1);
    let run = environment.execute(&[P0, P1]);
    environment.advance(seconds(5));
    let reason = environment.answer(run.token).reason.clone().expect("a reason");
    assert!(reason.message.contains("begin record"), "{}", reason.message);
    environment.settle();
    assert!(environment.coordinator.is_empty() && environment.branch_at(P0, run.id).is_none());
}

#[test]
fn an_abort_without_a_key_is_told_at_once_and_not_forced() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, NO), (P1, YES)], |_| {});
    environment.exchange();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    assert!(!environment.journal.pending.is_empty());
    assert_eq!(environment.sync, Some(false));
}

#[test]
fn a_wait_that_ends_is_answered_with_what_is_so() {
    let mut environment = Environment::new();
    let until = environment.now + millis(500);
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.waiter.until = until;
        begin.waiter.at = AnswerAt::Completion;
    });
    environment.deliver_all();
    environment.advance(millis(500));
    let view = environment.answer(run.token);
    assert_eq!((view.state, view.committed), (TransactionState::Preparing, false));
    environment.hear_all();
    environment.sync();
    let until = environment.now + millis(100);
    let at = AnswerAt::Completion;
    let token = environment.call(run.id, Client::Commit { at, until });
    environment.lose_all();
    environment.advance(millis(100));
    let view = environment.answer(token);
    assert_eq!((view.state, view.committed), (TransactionState::Committing, true));
}

#[test]
fn an_announced_transaction_is_known_after_a_crash_from_its_first_answer_on() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.id_may_be_known = true;
        begin.waiter.at = AnswerAt::Begun;
        begin.waiter.until = Time::default();
    });
    assert!(
        environment.on_the_way().is_empty(),
        "nothing is sent before the begin record is durable"
    );
    environment.advance(millis(10));
    assert!(
        environment.reply(run.token).is_none(),
        "its wait is over, but its id is good for nothing yet"
    );
    environment.sync();
    assert_eq!(environment.outcome(run), Outcome::Pending);
    assert_eq!(environment.on_the_way().len(), 2);
    environment.exchange();
    environment.crash();
    environment.connect_all();
    environment.settle();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn one_who_needs_an_id_that_is_good_for_asking_may_join_a_run_that_promised_none() {
    let mut environment = Environment::new();
    let request = |id_may_be_known, at| {
        move |begin: &mut dtc_core::Begin| {
            begin.key = keyed("key", 1);
            begin.id_may_be_known = id_may_be_known;
            begin.waiter.at = at;
            begin.waiter.until = Time::default();
        }
    };
    let branches = [(P0, YES), (P1, YES)];
    environment.execute_with(&branches, request(false, AnswerAt::Completion));
    environment.answer_lookups();
    // It is being prepared, and nothing of it is durable.
    let second = environment.execute_with(&branches, request(true, AnswerAt::Begun));
    environment.advance(millis(10));
    assert!(environment.reply(second.token).is_none(), "a crash would make the id unknown");
    environment.exchange();
    environment.sync();
    assert_eq!(environment.outcome(second), Outcome::Committed);

    // Before the first has begun, both get what the second needs.
    let key = |id_may_be_known, at| {
        move |begin: &mut dtc_core::Begin| {
            request(id_may_be_known, at)(begin);
            begin.key = keyed("other", 1);
        }
    };
    environment.execute_with(&branches, key(false, AnswerAt::Completion));
    let second = environment.execute_with(&branches, key(true, AnswerAt::Begun));
    environment.answer_lookups();
    assert!(
        environment.on_the_way().iter().all(|it| it.1 != "prepare"),
        "the begin record goes first"
    );
    environment.sync();
    assert_eq!(environment.outcome(second), Outcome::Pending);
}

#[test]
fn nothing_is_owed_to_a_branch_that_was_asked_nothing() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = environment.execute(&[P0, P1]);
    // P1 goes while the begin record is being written.
    environment.disconnect(P1);
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "prepare")]);
    environment.lose_all();
    environment.advance(seconds(60));
    let view = environment.look(run.id);
    assert_eq!(view.outcome, Outcome::Aborted);
    assert_eq!(view.branches[1].state, BranchState::Enlisted);
    environment.connect(P1);
    assert!(environment.flights.iter().all(|flight| flight.to == P0), "{:?}", environment.flights);
}

#[test]
fn a_refusal_aborts_at_once_after_several_attempts_too() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    environment.lose_all();
    while environment.on_the_way().iter().all(|(to, _)| *to != P1) {
        environment.advance(millis(100));
    }
    environment.deliver_to(P1);
    environment.hear_all();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
}
