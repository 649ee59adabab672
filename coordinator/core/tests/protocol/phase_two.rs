//! From the decision until nothing is owed.

use dtc_core::{
    Acknowledgement, AnswerAt, BranchState, Config, Event, Failure, Message, Outcome, TrailKind,
    TransactionState, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    participant::{NO, YES, output_of},
    world::{P0, P1, P2, Run, World, millis, seconds},
};

/// Decided to commit, with the messages that say so lost.
fn committing(world: &mut World) -> Run {
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    world.lose_all();
    run
}

/// Decided to abort by P2, with the rollbacks of P0 and P1 lost.
fn aborting(world: &mut World) -> Run {
    let run = world.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |_| {});
    world.sync();
    world.exchange();
    world.lose_all();
    run
}

#[test]
fn commit_is_retried_with_growing_waits_up_to_the_cap() {
    let mut world = World::new();
    let run = committing(&mut world);
    let mut waits = Vec::new();
    let mut last = world.now;
    while waits.len() < 12 {
        let attempt = world.coordinator.newest_attempt(run.id, 0).expect("an attempt");
        let (id, why) = (run.id, Failure::answered("overloaded"));
        world.event(Event::Unreachable { participant: P0, id, branch: 0, attempt, why });
        while world.take_flights().iter().all(|flight| flight.to != P0) {
            world.now = world.coordinator.next_timeout().expect("a timer");
            world.event(Event::Tick);
        }
        waits.push(world.now.since(last));
        last = world.now;
    }
    assert!(waits[0] < millis(51) && waits[5] > waits[0]);
    assert!(waits.iter().all(|wait| *wait <= seconds(5)), "{waits:?}");
    assert!(waits[11] > seconds(2), "{waits:?}");
    world.heal();
    assert!(world.is_committed_at(P0, run.id) && world.is_committed_at(P1, run.id));
}

#[test]
fn commit_is_sent_at_once_to_a_participant_that_is_back() {
    let mut world = World::new();
    committing(&mut world);
    world.disconnect(P0);
    world.advance(seconds(30));
    world.take_flights();
    world.connect(P0);
    assert_eq!(world.on_the_way(), [(P0, "commit")]);
}

#[test]
fn branches_are_finished_independently() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.waiter.at = AnswerAt::Completion;
    });
    world.exchange();
    world.sync();
    world.deliver_to(P1);
    world.lose_all();
    world.connect(P1);
    world.exchange();
    let states: Vec<_> = world.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::Committing, BranchState::Committed]);
    assert!(world.reply(run.token).is_none());
    world.advance(seconds(3));
    assert!(world.flights.iter().all(|flight| flight.to == P0));
    world.settle();
    assert_eq!(world.answer(run.token).state, TransactionState::Committed);
}

#[test]
fn a_commit_that_failed_is_sent_again() {
    let mut world = World::new();
    let run = committing(&mut world);
    world.acknowledge(P0, run.id, 0, Acknowledgement::Failed("disk".into()));
    assert_eq!(world.look(run.id).branches[0].state, BranchState::Committing);
    world.advance(millis(50));
    assert_eq!(world.on_the_way(), [(P0, "commit")]);
}

#[test]
fn a_message_that_could_not_be_handed_over_is_sent_again_after_a_wait() {
    let mut world = World::new();
    let run = committing(&mut world);
    let attempt = world.coordinator.newest_attempt(run.id, 0).expect("an attempt");
    let (id, why) = (run.id, Failure::lost("its queue is full"));
    world.event(Event::Unreachable { participant: P0, id, branch: 0, attempt, why });
    world.advance(millis(50));
    assert_eq!(world.on_the_way(), [(P0, "commit")]);
}

#[test]
fn rollback_is_best_effort_where_the_participant_asks() {
    let mut world = World::new();
    let run = aborting(&mut world);
    let mut sent = 1;
    while world.journal.end(run.id).is_none() {
        world.advance(seconds(1));
        world.sync();
        sent += world.take_flights().iter().filter(|flight| flight.to == P0).count();
        assert!(sent < 10, "no end of it");
    }
    assert_eq!(sent, 5);
    let end = world.journal.end(run.id).expect("an end");
    let left = BranchState::LeftToAsk;
    assert_eq!(end.branches, [left, left, BranchState::Refused]);
    world.inquire(P0);
    world.answer_lookups();
    assert!(world.is_rolled_back_at(P0, run.id));
}

#[test]
fn rollback_that_fails_is_best_effort_too_where_the_participant_asks() {
    let mut world = World::new();
    let run = aborting(&mut world);
    for _ in 0..20 {
        for branch in [0, 1] {
            let participant = [P0, P1][branch as usize];
            world.acknowledge(participant, run.id, branch, Acknowledgement::Failed("no".into()));
        }
        world.advance(millis(1500));
        world.take_flights();
        world.sync();
    }
    assert!(world.journal.end(run.id).is_some());
}

#[test]
fn rollback_is_driven_to_the_end_where_the_participant_cannot_ask() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = aborting(&mut world);
    assert!(!world.is_rolled_back_at(P0, run.id));
    world.advance(seconds(600));
    world.lose_all();
    assert_eq!(world.look(run.id).branches[0].state, BranchState::RollingBack);
    world.heal();
    assert!(world.is_rolled_back_at(P0, run.id));
    assert_eq!(world.journal.end(run.id).expect("an end").branches[0], BranchState::RolledBack);
}

#[test]
fn a_decision_retried_for_long_is_stalled_and_nothing_else_changes() {
    let mut world = World::new();
    let run = committing(&mut world);
    world.deliver_all();
    world.advance(seconds(10));
    assert!(!world.look(run.id).stalled);
    world.disconnect(P0);
    world.disconnect(P1);
    world.advance(seconds(600));
    world.lose_all();
    let view = world.look(run.id);
    assert!(view.stalled && view.committed && view.outcome == Outcome::Committed);
    assert_eq!(world.count(run.id, TrailKind::Stalled), 1);
    world.heal();
    assert!(world.is_committed_at(P0, run.id));
}

#[test]
fn output_goes_with_the_decision_and_into_its_record() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.sync();
    let record = world.journal.decision(run.id).expect("a decision");
    assert_eq!(record.branches[1].output, Some(output_of(P1, 1)));
    let message = Message::Commit { number: 1, output: Some(output_of(P1, 1)) };
    assert_eq!(world.flights[1].message, message);
    world.crash();
    world.take_flights();
    world.connect(P1);
    assert_eq!(world.flights[0].message, message, "after a restart, too");
    let mut world = World::new();
    world.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    world.exchange();
    let message =
        Message::Rollback { number: 1, output: Some(output_of(P0, 0)), compensate: false };
    assert_eq!(world.flights[0].message, message);
}

#[test]
fn an_unknown_branch_is_a_hazard_and_not_a_success() {
    let mut world = World::new();
    let run = committing(&mut world);
    world.participant(P0).lose_disk();
    world.heal();
    let end = world.journal.end(run.id).expect("an end");
    assert!(end.heuristic);
    assert_eq!(end.branches, [BranchState::Hazard, BranchState::Committed]);
}

#[test]
fn only_the_journal_that_voted_may_acknowledge() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.waiter.at = AnswerAt::Completion;
    });
    world.exchange();
    world.sync();
    world.deliver_all();
    for answer in &mut world.answers {
        if let Event::Acknowledged { from, journal, .. } = answer
            && *from == P0
        {
            *journal = Some(JournalId::from_bytes([99; 16]));
        }
    }
    world.settle();
    assert_eq!(world.outcome(run), Outcome::HeuristicHazard);
    assert!(world.journal.end(run.id).expect("an end").heuristic);
}

#[test]
fn a_participant_that_did_the_opposite_makes_the_outcome_mixed() {
    let mut world = World::new();
    let run = committing(&mut world);
    world.acknowledge(P0, run.id, 0, Acknowledgement::RolledBack);
    assert_eq!(world.look(run.id).outcome, Outcome::HeuristicMixed);
    let run = aborting(&mut world);
    world.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    assert_eq!(world.look(run.id).outcome, Outcome::HeuristicMixed);
}

#[test]
fn duplicate_acknowledgements_change_nothing() {
    let mut world = World::new();
    let run = committing(&mut world);
    world.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    world.acknowledge(P0, run.id, 0, Acknowledgement::RolledBack);
    world.acknowledge(P0, run.id, 0, Acknowledgement::Committed);
    world.acknowledge(P0, run.id, 1, Acknowledgement::Committed);
    let states: Vec<_> = world.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::Committed, BranchState::Committing]);
    assert_eq!(world.count(run.id, TrailKind::CommitAcknowledged), 1);
}

#[test]
fn acknowledgements_of_another_decision_are_ignored() {
    let mut world = World::new();
    let run = committing(&mut world);
    let journal = Some(world.participant(P0).journal);
    for number in [0, 2] {
        world.event(Event::Acknowledged {
            from: P0,
            journal,
            id: run.id,
            branch: 0,
            number,
            acknowledgement: Acknowledgement::Committed,
        });
    }
    assert_eq!(world.look(run.id).branches[0].state, BranchState::Committing);
}

#[test]
fn acknowledgements_before_a_decision_is_durable_are_ignored() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    for (participant, branch) in [(P0, 0), (P1, 1)] {
        world.acknowledge(participant, run.id, branch, Acknowledgement::Failed("odd".into()));
        world.advance(seconds(1));
        assert!(world.flights.is_empty(), "nothing may be sent: {:?}", world.flights);
        world.acknowledge(participant, run.id, branch, Acknowledgement::Committed);
    }
    world.settle();
    assert!(world.is_committed_at(P0, run.id) && world.is_committed_at(P1, run.id));
}

#[test]
fn a_transaction_stays_in_memory_until_its_end_is_durable() {
    let mut world = World::new();
    let run = committing(&mut world);
    world.connect_all();
    world.exchange();
    assert_eq!(world.look(run.id).state, TransactionState::Committed);
    assert_eq!((world.coordinator.len(), world.coordinator.unfinished_at(P0)), (1, 1));
    assert_eq!(world.forced, Some(false));
    world.sync();
    assert_eq!((world.coordinator.len(), world.coordinator.unfinished_at(P0)), (0, 0));
}

#[test]
fn a_participant_that_is_back_gets_a_window_and_then_one_for_each_answer() {
    let mut world = World::with(Config { recovery_window: 2, ..Config::default() });
    let runs: Vec<_> = (0..6).map(|_| world.execute(&[P0, P1])).collect();
    world.exchange();
    world.sync();
    world.lose_all();
    world.disconnect(P0);
    world.connect(P0);
    assert_eq!(world.on_the_way(), [(P0, "commit"); 2]);
    let new = world.execute(&[P0, P2]);
    assert_eq!(world.flights[2].id, new.id, "new work is not last");
    world.deliver_at(0);
    world.hear_at(0);
    let commits = |world: &World| world.on_the_way().iter().filter(|it| it.1 == "commit").count();
    assert_eq!(commits(&world), 2);
    world.settle();
    assert!(runs.iter().all(|run| world.is_committed_at(P0, run.id)));
    assert_eq!(world.outcome(new), Outcome::Committed);
}

#[test]
fn a_timer_does_not_send_before_its_turn_and_silence_gives_the_turn_on() {
    let mut world = World::with(Config { recovery_window: 2, ..Config::default() });
    let runs: Vec<_> = (0..6).map(|_| world.execute(&[P0, P1])).collect();
    world.exchange();
    world.sync();
    world.disconnect(P0);
    world.advance(seconds(10));
    world.take_flights();
    world.connect(P0);
    world.advance(seconds(1));
    assert_eq!(world.on_the_way(), [(P0, "commit"); 2]);
    // The first two are never answered.
    let first = world.take_flights();
    world.advance(seconds(1));
    let others = world.take_flights();
    let again = |id| first.iter().any(|flight| flight.id == id);
    assert_eq!(others.iter().filter(|it| it.to == P0 && !again(it.id)).count(), 2);
    world.heal();
    assert!(runs.iter().all(|run| world.is_committed_at(P0, run.id)));
}

#[test]
fn a_late_promise_does_not_hurry_what_waits_for_its_next_attempt() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = world.execute_with(&[(P0, YES), (P1, NO)], |_| {});
    world.sync();
    world.deliver_to(P1);
    world.hear_all();
    world.fail_all_at(P0, &Failure::answered("UNAVAILABLE: overloaded"));
    world.lose_all();
    world.vote(P0, run.id, 0, Vote::Commit { output: None, committed: false });
    assert!(world.flights.is_empty(), "{:?}", world.flights);
}

#[test]
fn a_participant_that_is_away_at_the_decision_is_news_at_once() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1]);
    world.exchange();
    world.disconnect(P1);
    world.sync();
    assert_eq!(world.count(run.id, TrailKind::Unreachable), 1);
    world.exchange();
    // Attempts are shown of what is owed, as it is after a restart.
    let attempts: Vec<_> = world.look(run.id).branches.iter().map(|it| it.attempts).collect();
    assert_eq!(attempts, [0, 1]);
}
