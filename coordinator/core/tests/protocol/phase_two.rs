//! From the decision until nothing is owed.

use dtc_core::{
    Acknowledgement, AnswerAt, BranchState, Config, Event, Failure, Message, Outcome, TrailKind,
    TransactionState, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    environment::{Environment, P0, P1, P2, Run, millis, seconds},
    participant::{NO, YES, output_of},
};

/// Decided to commit, with the messages that say so lost.
fn committing(environment: &mut Environment) -> Run {
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.lose_all();
    run
}

/// Decided to abort by P2, with the rollbacks of P0 and P1 lost.
fn aborting(environment: &mut Environment) -> Run {
    let run = environment.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |_| {});
    environment.sync();
    environment.exchange();
    environment.lose_all();
    run
}

#[test]
fn commit_is_retried_with_growing_waits_up_to_the_cap() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    let mut waits = Vec::new();
    let mut last = environment.now;
    while waits.len() < 12 {
        let attempt = environment.coordinator.newest_attempt(run.id, 0).expect("an attempt");
        let (id, why) = (run.id, Failure::answered("overloaded"));
        environment.event(Event::Unreachable { participant: P0, id, branch: 0, attempt, why });
        while environment.take_flights().iter().all(|flight| flight.to != P0) {
            environment.now = environment.coordinator.next_timeout().expect("a timer");
            environment.event(Event::Tick);
        }
        waits.push(environment.now.since(last));
        last = environment.now;
    }
    assert!(waits[0] < millis(51) && waits[5] > waits[0]);
    assert!(waits.iter().all(|wait| *wait <= seconds(5)), "{waits:?}");
    assert!(waits[11] > seconds(2), "{waits:?}");
    environment.heal();
    assert!(environment.is_committed_at(P0, run.id) && environment.is_committed_at(P1, run.id));
}

#[test]
fn commit_is_sent_at_once_to_a_participant_that_is_back() {
    let mut environment = Environment::new();
    committing(&mut environment);
    environment.disconnect(P0);
    environment.advance(seconds(30));
    environment.take_flights();
    environment.connect(P0);
    assert_eq!(environment.on_the_way(), [(P0, "commit")]);
}

#[test]
fn branches_are_finished_independently() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.waiter.at = AnswerAt::Completion;
    });
    environment.exchange();
    environment.sync();
    environment.deliver_to(P1);
    environment.lose_all();
    environment.connect(P1);
    environment.exchange();
    let states: Vec<_> = environment.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::Committing, BranchState::Committed]);
    assert!(environment.reply(run.token).is_none());
    environment.advance(seconds(3));
    assert!(environment.flights.iter().all(|flight| flight.to == P0));
    environment.settle();
    assert_eq!(environment.answer(run.token).state, TransactionState::Committed);
}

#[test]
fn a_commit_that_failed_is_sent_again() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    environment.acknowledge(P0, run.id, 0, Acknowledgement::Failed("disk".into()));
    assert_eq!(environment.look(run.id).branches[0].state, BranchState::Committing);
    environment.advance(millis(50));
    assert_eq!(environment.on_the_way(), [(P0, "commit")]);
}

#[test]
fn a_message_that_could_not_be_handed_over_is_sent_again_after_a_wait() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    let attempt = environment.coordinator.newest_attempt(run.id, 0).expect("an attempt");
    let (id, why) = (run.id, Failure::lost("its queue is full"));
    environment.event(Event::Unreachable { participant: P0, id, branch: 0, attempt, why });
    environment.advance(millis(50));
    assert_eq!(environment.on_the_way(), [(P0, "commit")]);
}

#[test]
fn rollback_is_best_effort_where_the_participant_asks() {
    let mut environment = Environment::new();
    let run = aborting(&mut environment);
    let mut sent = 1;
    while environment.journal.end(run.id).is_none() {
        environment.advance(seconds(1));
        environment.sync();
        sent += environment.take_flights().iter().filter(|flight| flight.to == P0).count();
        assert!(sent < 10, "no end of it");
    }
    assert_eq!(sent, 5);
    let end = environment.journal.end(run.id).expect("an end");
    let left = BranchState::RollbackUnacknowledged;
    assert_eq!(end.branches, [left, left, BranchState::Refused]);
    environment.inquire(P0);
    environment.answer_lookups();
    assert!(environment.is_rolled_back_at(P0, run.id));
}

#[test]
fn rollback_that_fails_is_best_effort_too_where_the_participant_asks() {
    let mut environment = Environment::new();
    let run = aborting(&mut environment);
    for _ in 0..20 {
        for branch in [0, 1] {
            let participant = [P0, P1][branch as usize];
            environment.acknowledge(
                participant,
                run.id,
                branch,
                Acknowledgement::Failed("no".into()),
            );
        }
        environment.advance(millis(1500));
        environment.take_flights();
        environment.sync();
    }
    assert!(environment.journal.end(run.id).is_some());
}

#[test]
fn rollback_is_driven_to_the_end_where_the_participant_cannot_ask() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = aborting(&mut environment);
    assert!(!environment.is_rolled_back_at(P0, run.id));
    environment.advance(seconds(600));
    environment.lose_all();
    assert_eq!(environment.look(run.id).branches[0].state, BranchState::RollingBack);
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id));
    assert_eq!(
        environment.journal.end(run.id).expect("an end").branches[0],
        BranchState::RolledBack
    );
}

#[test]
fn a_decision_retried_for_long_is_stalled_and_nothing_else_changes() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    environment.deliver_all();
    environment.advance(seconds(10));
    assert!(!environment.look(run.id).stalled);
    environment.disconnect(P0);
    environment.disconnect(P1);
    environment.advance(seconds(600));
    environment.lose_all();
    let view = environment.look(run.id);
    assert!(view.stalled && view.committed && view.outcome == Outcome::Committed);
    assert_eq!(environment.count(run.id, TrailKind::Stalled), 1);
    environment.heal();
    assert!(environment.is_committed_at(P0, run.id));
}

#[test]
fn output_goes_with_the_decision_and_into_its_record() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    let record = environment.journal.decision(run.id).expect("a decision");
    assert_eq!(record.branches[1].output, Some(output_of(P1, 1)));
    let message = Message::Commit { number: 1, output: Some(output_of(P1, 1)) };
    assert_eq!(environment.flights[1].message, message);
    environment.crash();
    environment.take_flights();
    environment.connect(P1);
    assert_eq!(environment.flights[0].message, message, "after a restart, too");
    let mut environment = Environment::new();
    environment.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    environment.exchange();
    let message =
        Message::Rollback { number: 1, output: Some(output_of(P0, 0)), compensate: false };
    assert_eq!(environment.flights[0].message, message);
}

#[test]
fn an_unknown_branch_is_a_hazard_and_not_a_success() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    environment.participant(P0).lose_disk();
    environment.heal();
    let end = environment.journal.end(run.id).expect("an end");
    assert!(end.heuristic);
    assert_eq!(end.branches, [BranchState::Hazard, BranchState::Committed]);
}

#[test]
fn only_the_journal_that_voted_may_acknowledge() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.waiter.at = AnswerAt::Completion;
    });
    environment.exchange();
    environment.sync();
    environment.deliver_all();
    for answer in &mut environment.answers {
        if let Event::Acknowledged { from, journal, .. } = answer
            && *from == P0
        {
            *journal = Some(JournalId::from_bytes([99; 16]));
        }
    }
    environment.settle();
    assert_eq!(environment.outcome(run), Outcome::HeuristicHazard);
    assert!(environment.journal.end(run.id).expect("an end").heuristic);
}

#[test]
fn a_participant_that_did_the_opposite_makes_the_outcome_mixed() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    environment.acknowledge(P0, run.id, 0, Acknowledgement::RolledBack);
    assert_eq!(environment.look(run.id).outcome, Outcome::HeuristicMixed);
    let run = aborting(&mut environment);
    environment.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    assert_eq!(environment.look(run.id).outcome, Outcome::HeuristicMixed);
}

#[test]
fn duplicate_acknowledgements_change_nothing() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    environment.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    environment.acknowledge(P0, run.id, 0, Acknowledgement::RolledBack);
    environment.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    environment.acknowledge(P0, run.id, 1, Acknowledgement::Committed);
    let states: Vec<_> = environment.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::Committed, BranchState::Committing]);
    assert_eq!(environment.count(run.id, TrailKind::CommitAcknowledged), 1);
}

#[test]
fn acknowledgements_of_another_decision_are_ignored() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    let journal = Some(environment.participant(P0).journal);
    for number in [0, 2] {
        environment.event(Event::Acknowledged {
            from: P0,
            journal,
            id: run.id,
            branch: 0,
            number,
            acknowledgement: Acknowledgement::Committed,
        });
    }
    assert_eq!(environment.look(run.id).branches[0].state, BranchState::Committing);
}

#[test]
fn acknowledgements_before_a_decision_is_durable_are_ignored() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    for (participant, branch) in [(P0, 0), (P1, 1)] {
        environment.acknowledge(participant, run.id, branch, Acknowledgement::Failed("odd".into()));
        environment.advance(seconds(1));
        assert!(environment.flights.is_empty(), "nothing may be sent: {:?}", environment.flights);
        environment.acknowledge(participant, run.id, branch, Acknowledgement::Committed);
    }
    environment.settle();
    assert!(environment.is_committed_at(P0, run.id) && environment.is_committed_at(P1, run.id));
}

#[test]
fn a_transaction_stays_in_memory_until_its_end_is_durable() {
    let mut environment = Environment::new();
    let run = committing(&mut environment);
    environment.connect_all();
    environment.exchange();
    assert_eq!(environment.look(run.id).state, TransactionState::Committed);
    assert_eq!((environment.coordinator.len(), environment.coordinator.unfinished_at(P0)), (1, 1));
    assert_eq!(environment.sync, Some(false));
    environment.sync();
    assert_eq!((environment.coordinator.len(), environment.coordinator.unfinished_at(P0)), (0, 0));
}

#[test]
fn a_participant_that_is_back_gets_a_window_and_then_one_for_each_answer() {
    let mut environment = Environment::with(Config { recovery_window: 2, ..Config::default() });
    let runs: Vec<_> = (0..6).map(|_| environment.execute(&[P0, P1])).collect();
    environment.exchange();
    environment.sync();
    environment.lose_all();
    environment.disconnect(P0);
    environment.connect(P0);
    assert_eq!(environment.on_the_way(), [(P0, "commit"); 2]);
    let new = environment.execute(&[P0, P2]);
    assert_eq!(environment.flights[2].id, new.id, "new work is not last");
    environment.deliver_at(0);
    environment.hear_at(0);
    let commits = |environment: &Environment| {
        environment.on_the_way().iter().filter(|it| it.1 == "commit").count()
    };
    assert_eq!(commits(&environment), 2);
    environment.settle();
    assert!(runs.iter().all(|run| environment.is_committed_at(P0, run.id)));
    assert_eq!(environment.outcome(new), Outcome::Committed);
}

#[test]
fn a_timer_does_not_send_before_its_turn_and_silence_gives_the_turn_on() {
    let mut environment = Environment::with(Config { recovery_window: 2, ..Config::default() });
    let runs: Vec<_> = (0..6).map(|_| environment.execute(&[P0, P1])).collect();
    environment.exchange();
    environment.sync();
    environment.disconnect(P0);
    environment.advance(seconds(10));
    environment.take_flights();
    environment.connect(P0);
    environment.advance(seconds(1));
    assert_eq!(environment.on_the_way(), [(P0, "commit"); 2]);
    // The first two are never answered.
    let first = environment.take_flights();
    environment.advance(seconds(1));
    let others = environment.take_flights();
    let again = |id| first.iter().any(|flight| flight.id == id);
    assert_eq!(others.iter().filter(|it| it.to == P0 && !again(it.id)).count(), 2);
    environment.heal();
    assert!(runs.iter().all(|run| environment.is_committed_at(P0, run.id)));
}

#[test]
fn a_late_promise_does_not_hurry_what_waits_for_its_next_attempt() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = environment.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    environment.sync();
    environment.deliver_to(P1);
    environment.hear_all();
    environment.fail_all_at(P0, &Failure::answered("UNAVAILABLE: overloaded"));
    environment.lose_all();
    environment.vote(P0, run.id, 0, Vote::Commit { output: None, committed: false });
    assert!(environment.flights.is_empty(), "{:?}", environment.flights);
}

#[test]
fn a_participant_that_is_away_at_the_decision_is_news_at_once() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.disconnect(P1);
    environment.sync();
    assert_eq!(environment.count(run.id, TrailKind::Unreachable), 1);
    environment.exchange();
    // Attempts are shown of what is owed, as it is after a restart.
    let attempts: Vec<_> = environment.look(run.id).branches.iter().map(|it| it.attempts).collect();
    assert_eq!(attempts, [0, 1]);
}
