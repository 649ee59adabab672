//! What an operator resolved is asserted until its participant has acknowledged it, and
//! its participant is notified without anybody waiting.

use dtc_core::{
    AnswerAt, BranchOutcome, BranchState, Client, CommitPolicy, Config, InterventionAction,
    Outcome, TransactionState, View, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    forced::{by_hand, is_refused, resolve, stuck},
    participant::{NO, YES},
    world::{P0, P1, P2, Run, World, seconds},
};

fn abandon(world: &mut World, run: Run, branch: Option<u32>) -> u64 {
    let intervention = by_hand(world, InterventionAction::Abandon, branch);
    let until = world.now + seconds(60);
    world.call(run.id, Client::Abandon { intervention, until })
}

/// Committed at P0, resolved to commit at P1, which is away: it has ended for clients.
fn asserted(world: &mut World) -> Run {
    let run = stuck(world);
    resolve(world, run, true, None);
    world.sync();
    let record = world.journal.decision(run.id).unwrap();
    assert!(record.branches.iter().all(|it| !it.notify), "it is still waited for");
    world.advance(seconds(30));
    world.sync();
    assert!(is_asserted(&world.look(run.id), 1));
    run
}

fn is_asserted(view: &View, branch: usize) -> bool {
    let branch = &view.branches[branch];
    branch.state == BranchState::Asserted && branch.notification_owed
}

#[test]
fn a_notification_is_owed_across_restarts_until_it_is_acknowledged() {
    let mut world = World::new();
    let run = asserted(&mut world);
    for _ in 0..3 {
        world.lose_all();
        world.crash();
        let view = world.look(run.id);
        assert_eq!((view.state, view.outcome), (TransactionState::Committed, Outcome::Committed));
        assert!(is_asserted(&view, 1) && view.ended_at.is_some());
        assert_eq!(world.coordinator.notifying(), 1);
        let record = world.journal.decision(run.id).unwrap();
        assert_eq!(record.branches.iter().map(|it| it.notify).collect::<Vec<_>>(), [false, true]);
        assert_eq!(view.branches[0].state, BranchState::Committed);
        world.advance(seconds(60));
    }
    world.connect(P1);
    assert_eq!(world.on_the_way(), [(P1, "commit")], "at once when it is back");
    world.exchange();
    assert!(world.is_committed_at(P1, run.id));
    world.sync();
    let end = world.journal.end(run.id).unwrap();
    assert_eq!(end.branches, [BranchState::Committed; 2]);
    assert!(end.kept && !end.heuristic);
}

#[test]
fn a_participant_that_cannot_ask_is_notified_of_a_rollback_too() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = world.execute_with(&[(P0, YES), (P2, NO)], |_| {});
    world.sync();
    world.exchange();
    world.lose_all();
    world.disconnect(P0);
    let token = resolve(&mut world, run, false, Some(0));
    world.sync();
    world.advance(seconds(30));
    let view = world.answer(token).clone();
    assert_eq!((view.state, view.outcome), (TransactionState::Aborted, Outcome::Aborted));
    assert!(is_asserted(&view, 0));
    world.sync();
    world.crash();
    world.connect(P0);
    world.settle();
    assert!(world.is_rolled_back_at(P0, run.id), "its reservation is kept");
    assert_eq!(world.journal.end(run.id).unwrap().branches[0], BranchState::RolledBack);
}

#[test]
fn an_inquiry_is_answered_with_what_was_resolved() {
    for commit in [true, false] {
        let mut world = World::new();
        let run = stuck(&mut world);
        resolve(&mut world, run, commit, Some(1));
        world.sync();
        world.advance(seconds(30));
        world.sync();
        let expected = match commit {
            true => BranchOutcome::Committed { number: 2, output: Some([1, 1].into()) },
            false => BranchOutcome::Aborted { number: 2 },
        };
        assert_eq!(world.ask(run.id, 1), Some(expected));
        // The answer may be lost: it is owed until the participant has acknowledged.
        assert!(world.look(run.id).branches[1].notification_owed);
    }
}

#[test]
fn another_answer_than_was_asserted_is_shown() {
    use dtc_core::{Acknowledgement::*, Event};
    for (answer, outcome) in [
        (RolledBack, Outcome::HeuristicMixed),
        (Unknown, Outcome::HeuristicHazard),
        (Committed, Outcome::Committed),
    ] {
        let mut world = World::new();
        let run = asserted(&mut world);
        let journal = Some(world.participant(P1).journal);
        let answered = Event::Acknowledged {
            from: P1,
            journal,
            id: run.id,
            branch: 1,
            number: 2,
            acknowledgement: answer,
        };
        world.event(answered.clone());
        assert_eq!(world.look(run.id).outcome, outcome);
        // It comes twice.
        world.event(answered.clone());
        world.sync();
        world.event(answered);
        let end = world.journal.end(run.id).unwrap();
        assert_eq!(end.heuristic, outcome != Outcome::Committed);
    }
}

#[test]
fn another_journal_than_the_one_that_voted_acknowledges_nothing_that_was_asserted() {
    let mut world = World::new();
    let run = asserted(&mut world);
    world.participant(P1).journal = JournalId::from_bytes([99; 16]);
    world.connect(P1);
    world.exchange();
    assert_eq!(world.look(run.id).outcome, Outcome::HeuristicHazard);
}

#[test]
fn an_operator_says_that_it_never_will_be_notified() {
    let mut world = World::new();
    let run = asserted(&mut world);
    let refused = abandon(&mut world, run, Some(0));
    assert!(is_refused(&world, refused), "it has acknowledged");
    let token = abandon(&mut world, run, None);
    assert!(world.reply(token).is_none(), "told before it is durable");
    assert!(world.look(run.id).branches[1].notification_owed);
    world.sync();
    let view = world.answer(token).clone();
    assert_eq!(view.branches[1].state, BranchState::Asserted, "dressed up as acknowledged");
    assert!(!view.branches[1].notification_owed);
    assert_eq!(view.interventions.last().unwrap().action, InterventionAction::Abandon);
    world.sync();
    let end = world.journal.end(run.id).unwrap();
    assert_eq!(end.branches, [BranchState::Committed, BranchState::Asserted]);
    assert!(end.kept);
    let interventions = &world.journal.decision(run.id).unwrap().interventions;
    assert_eq!(interventions.len(), 2);
    world.connect(P1);
    assert!(world.on_the_way().is_empty(), "notified all the same");
}

#[test]
fn a_crash_before_the_word_of_the_operator_is_durable_leaves_it_owed() {
    for durable in [false, true] {
        let mut world = World::new();
        let run = asserted(&mut world);
        abandon(&mut world, run, Some(1));
        if durable {
            // The word, and not the end that follows from it.
            world.sync_some(1);
        }
        world.crash();
        world.sync();
        world.connect(P1);
        world.settle();
        assert_eq!(world.is_committed_at(P1, run.id), !durable);
        assert!(world.journal.end(run.id).is_some());
    }
}

#[test]
fn one_that_answers_while_its_notification_is_abandoned_has_answered() {
    let mut world = World::new();
    let run = asserted(&mut world);
    world.connect(P1);
    abandon(&mut world, run, None);
    world.exchange();
    world.settle();
    assert_eq!(world.journal.end(run.id).unwrap().branches, [BranchState::Committed; 2]);
}

#[test]
fn a_retry_notifies_at_once() {
    let mut world = World::new();
    let run = asserted(&mut world);
    world.connect(P1);
    world.lose_all();
    world.advance(seconds(120));
    world.lose_all();
    let intervention = by_hand(&world, InterventionAction::Retry, None);
    world.call(run.id, Client::Retry { intervention });
    assert_eq!(world.on_the_way(), [(P1, "commit")]);
}

#[test]
fn a_notification_counts_for_no_bound_and_holds_no_lock() {
    let mut world =
        World::with(Config { max_in_flight: 1, max_per_participant: 1, ..Config::default() });
    let first = asserted(&mut world);
    // Both bounds are of one.
    let second = world.execute(&[P0, P2]);
    world.settle();
    assert_eq!(world.outcome(second), Outcome::Committed);
    assert_eq!(world.coordinator.unfinished_at(P0), 0, "it may forget what it has acknowledged");
    assert_eq!(world.coordinator.unfinished_at(P1), 1, "it may not");
    assert_eq!(world.coordinator.notifying(), 1);
    assert!(is_asserted(&world.look(first.id), 1));
    world.heal();
    assert_eq!(world.coordinator.notifying(), 0);
}

#[test]
fn locks_are_free_while_a_notification_is_owed_and_after_a_crash_too() {
    let mut world = World::new();
    let run = world.execute_locked("A", &[P0, P1]);
    world.sync();
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.lose_all();
    world.disconnect(P1);
    resolve(&mut world, run, true, None);
    world.sync();
    world.advance(seconds(30));
    world.sync();
    world.crash();
    let next = world.execute_locked("A", &[P0, P2]);
    world.connect(P0);
    world.connect(P2);
    world.settle();
    assert!(world.is_committed_at(P2, next.id));
    assert!(is_asserted(&world.look(run.id), 1));
}

#[test]
fn what_was_compensated_and_resolved_is_a_hazard_until_it_says_that_it_is_undone() {
    for comes_back in [true, false] {
        let mut world = World::new();
        let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
            begin.options.commit_policy = CommitPolicy::Compensate { after: 1 };
            begin.waiter.at = AnswerAt::Completion;
        });
        world.exchange();
        world.sync();
        // Committed, which nobody hears of.
        world.deliver_to(P0);
        world.lose_all();
        world.disconnect(P0);
        while world.journal.pending.is_empty() {
            world.advance(seconds(3));
        }
        world.sync();
        world.lose_all();
        let token = resolve(&mut world, run, false, Some(0));
        world.sync();
        for _ in 0..10 {
            world.advance(seconds(3));
            world.exchange();
        }
        let view = world.answer(token).clone();
        assert_eq!(view.outcome, Outcome::HeuristicHazard, "dressed up as rolled back");
        assert!(view.branches[0].notification_owed && world.is_committed_at(P0, run.id));
        world.sync();
        world.crash();
        if comes_back {
            world.connect(P0);
            assert_eq!(world.on_the_way(), [(P0, "compensate")]);
            world.settle();
            assert!(world.is_rolled_back_at(P0, run.id));
            assert!(!world.journal.end(run.id).unwrap().heuristic);
        } else {
            abandon(&mut world, run, None);
            world.sync();
            world.sync();
            assert!(world.journal.end(run.id).unwrap().heuristic);
        }
    }
}

#[test]
fn nobody_hears_of_the_attempts_of_a_notification() {
    let mut world = World::new();
    let run = asserted(&mut world);
    let before = world.look(run.id).trail.len();
    let told = world.happened.len();
    world.connect(P1);
    for _ in 0..100 {
        world.lose_all();
        world.advance(seconds(30));
    }
    assert_eq!(world.look(run.id).trail.len(), before);
    assert_eq!(world.happened.len(), told);
}

#[test]
fn nothing_is_abandoned_while_the_transaction_is_waited_for() {
    let mut world = World::new();
    let run = world.execute(&[P0, P1, P2]);
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.lose_all();
    [P1, P2].into_iter().for_each(|it| world.disconnect(it));
    resolve(&mut world, run, true, Some(1));
    world.sync();
    world.advance(seconds(30));
    assert!(is_asserted(&world.look(run.id), 1));
    let early = abandon(&mut world, run, Some(1));
    assert!(is_refused(&world, early), "another branch is still owed its commit");
}

#[test]
fn one_that_was_recovered_and_resolved_only_notifies_too() {
    let mut world = World::new();
    let run = stuck(&mut world);
    world.crash();
    resolve(&mut world, run, true, None);
    world.sync();
    world.advance(seconds(30));
    world.sync();
    assert_eq!(world.coordinator.notifying(), 1);
    world.heal();
    assert!(world.is_committed_at(P1, run.id));
}

#[test]
fn a_late_promise_is_notified_at_once_and_another_vote_is_not() {
    let mut world = World::new();
    let run = asserted(&mut world);
    world.connect(P1);
    world.lose_all();
    // The attempt is over, and the next one is far away.
    world.advance(seconds(2));
    world.lose_all();
    world.vote(P1, run.id, 1, Vote::ReadOnly);
    assert!(world.flights.is_empty());
    world.vote(P1, run.id, 1, Vote::Commit { output: None, committed: false });
    assert_eq!(world.on_the_way(), [(P1, "commit")]);
}
