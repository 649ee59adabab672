//! What an operator resolved is asserted until its participant has acknowledged it, and
//! its participant is notified without anybody waiting.

use dtc_core::{
    AnswerAt, BranchOutcome, BranchState, Client, CommitPolicy, Config, InterventionAction,
    Outcome, TransactionState, View, Vote,
};
use dtc_protocol::JournalId;

use crate::{
    environment::{Environment, P0, P1, P2, Run, seconds},
    participant::{NO, YES},
    resolved::{by_operator, is_refused, resolve, stuck},
};

fn abandon(environment: &mut Environment, run: Run, branch: Option<u32>) -> u64 {
    let intervention = by_operator(environment, InterventionAction::Abandon, branch);
    let until = environment.now + seconds(60);
    environment.call(run.id, Client::Abandon { intervention, until })
}

/// Committed at P0, resolved to commit at P1, which is away: it has ended for clients.
fn asserted(environment: &mut Environment) -> Run {
    let run = stuck(environment);
    resolve(environment, run, true, None);
    environment.sync();
    let record = environment.journal.decision(run.id).unwrap();
    assert!(record.branches.iter().all(|it| !it.notify), "it is still waited for");
    environment.advance(seconds(30));
    environment.sync();
    assert!(is_asserted(&environment.look(run.id), 1));
    run
}

fn is_asserted(view: &View, branch: usize) -> bool {
    let branch = &view.branches[branch];
    branch.state == BranchState::Asserted && branch.notification_owed
}

#[test]
fn a_notification_is_owed_across_restarts_until_it_is_acknowledged() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    for _ in 0..3 {
        environment.lose_all();
        environment.crash();
        let view = environment.look(run.id);
        assert_eq!((view.state, view.outcome), (TransactionState::Committed, Outcome::Committed));
        assert!(is_asserted(&view, 1) && view.ended_at.is_some());
        assert_eq!(environment.coordinator.notifying(), 1);
        let record = environment.journal.decision(run.id).unwrap();
        assert_eq!(record.branches.iter().map(|it| it.notify).collect::<Vec<_>>(), [false, true]);
        assert_eq!(view.branches[0].state, BranchState::Committed);
        environment.advance(seconds(60));
    }
    environment.connect(P1);
    assert_eq!(environment.on_the_way(), [(P1, "commit")], "at once when it is back");
    environment.exchange();
    assert!(environment.is_committed_at(P1, run.id));
    environment.sync();
    let end = environment.journal.end(run.id).unwrap();
    assert_eq!(end.branches, [BranchState::Committed; 2]);
    assert!(end.kept && !end.heuristic);
}

#[test]
fn a_participant_that_cannot_ask_is_notified_of_a_rollback_too() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = environment.execute_with(&[(P0, YES), (P2, NO)], |_| {});
    environment.sync();
    environment.exchange();
    environment.lose_all();
    environment.disconnect(P0);
    let token = resolve(&mut environment, run, false, Some(0));
    environment.sync();
    environment.advance(seconds(30));
    let view = environment.answer(token).clone();
    assert_eq!((view.state, view.outcome), (TransactionState::Aborted, Outcome::Aborted));
    assert!(is_asserted(&view, 0));
    environment.sync();
    environment.crash();
    environment.connect(P0);
    environment.settle();
    assert!(environment.is_rolled_back_at(P0, run.id), "its reservation is kept");
    assert_eq!(environment.journal.end(run.id).unwrap().branches[0], BranchState::RolledBack);
}

#[test]
fn an_inquiry_is_answered_with_what_was_resolved() {
    for commit in [true, false] {
        let mut environment = Environment::new();
        let run = stuck(&mut environment);
        resolve(&mut environment, run, commit, Some(1));
        environment.sync();
        environment.advance(seconds(30));
        environment.sync();
        let expected = match commit {
            true => BranchOutcome::Committed { number: 2, output: Some([1, 1].into()) },
            false => BranchOutcome::Aborted { number: 2 },
        };
        assert_eq!(environment.ask(run.id, 1), Some(expected));
        // The answer may be lost: it is owed until the participant has acknowledged.
        assert!(environment.look(run.id).branches[1].notification_owed);
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
        let mut environment = Environment::new();
        let run = asserted(&mut environment);
        let journal = Some(environment.participant(P1).journal);
        let answered = Event::Acknowledged {
            from: P1,
            journal,
            id: run.id,
            branch: 1,
            number: 2,
            acknowledgement: answer,
        };
        environment.event(answered.clone());
        assert_eq!(environment.look(run.id).outcome, outcome);
        // It comes twice.
        environment.event(answered.clone());
        environment.sync();
        environment.event(answered);
        let end = environment.journal.end(run.id).unwrap();
        assert_eq!(end.heuristic, outcome != Outcome::Committed);
    }
}

#[test]
fn another_journal_than_the_one_that_voted_acknowledges_nothing_that_was_asserted() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    environment.participant(P1).journal = JournalId::from_bytes([99; 16]);
    environment.connect(P1);
    environment.exchange();
    assert_eq!(environment.look(run.id).outcome, Outcome::HeuristicHazard);
}

#[test]
fn an_operator_says_that_it_never_will_be_notified() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    let refused = abandon(&mut environment, run, Some(0));
    assert!(is_refused(&environment, refused), "it has acknowledged");
    let token = abandon(&mut environment, run, None);
    assert!(environment.reply(token).is_none(), "told before it is durable");
    assert!(environment.look(run.id).branches[1].notification_owed);
    environment.sync();
    let view = environment.answer(token).clone();
    assert_eq!(view.branches[1].state, BranchState::Asserted, "dressed up as acknowledged");
    assert!(!view.branches[1].notification_owed);
    assert_eq!(view.interventions.last().unwrap().action, InterventionAction::Abandon);
    environment.sync();
    let end = environment.journal.end(run.id).unwrap();
    assert_eq!(end.branches, [BranchState::Committed, BranchState::Asserted]);
    assert!(end.kept);
    let interventions = &environment.journal.decision(run.id).unwrap().interventions;
    assert_eq!(interventions.len(), 2);
    environment.connect(P1);
    assert!(environment.on_the_way().is_empty(), "notified all the same");
}

#[test]
fn a_crash_before_the_word_of_the_operator_is_durable_leaves_it_owed() {
    for durable in [false, true] {
        let mut environment = Environment::new();
        let run = asserted(&mut environment);
        abandon(&mut environment, run, Some(1));
        if durable {
            // The word, and not the end that follows from it.
            environment.sync_some(1);
        }
        environment.crash();
        environment.sync();
        environment.connect(P1);
        environment.settle();
        assert_eq!(environment.is_committed_at(P1, run.id), !durable);
        assert!(environment.journal.end(run.id).is_some());
    }
}

#[test]
fn one_that_answers_while_its_notification_is_abandoned_has_answered() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    environment.connect(P1);
    abandon(&mut environment, run, None);
    environment.exchange();
    environment.settle();
    assert_eq!(environment.journal.end(run.id).unwrap().branches, [BranchState::Committed; 2]);
}

#[test]
fn a_retry_notifies_at_once() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    environment.connect(P1);
    environment.lose_all();
    environment.advance(seconds(120));
    environment.lose_all();
    let intervention = by_operator(&environment, InterventionAction::Retry, None);
    environment.call(run.id, Client::Retry { intervention });
    assert_eq!(environment.on_the_way(), [(P1, "commit")]);
}

#[test]
fn a_notification_counts_for_no_bound_and_holds_no_lock() {
    let mut environment =
        Environment::with(Config { max_in_flight: 1, max_per_participant: 1, ..Config::default() });
    let first = asserted(&mut environment);
    // Both bounds are of one.
    let second = environment.execute(&[P0, P2]);
    environment.settle();
    assert_eq!(environment.outcome(second), Outcome::Committed);
    assert_eq!(
        environment.coordinator.unfinished_at(P0),
        0,
        "it may forget what it has acknowledged"
    );
    assert_eq!(environment.coordinator.unfinished_at(P1), 1, "it may not");
    assert_eq!(environment.coordinator.notifying(), 1);
    assert!(is_asserted(&environment.look(first.id), 1));
    environment.heal();
    assert_eq!(environment.coordinator.notifying(), 0);
}

#[test]
fn locks_are_free_while_a_notification_is_owed_and_after_a_crash_too() {
    let mut environment = Environment::new();
    let run = environment.execute_locked("A", &[P0, P1]);
    environment.sync();
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.lose_all();
    environment.disconnect(P1);
    resolve(&mut environment, run, true, None);
    environment.sync();
    environment.advance(seconds(30));
    environment.sync();
    environment.crash();
    let next = environment.execute_locked("A", &[P0, P2]);
    environment.connect(P0);
    environment.connect(P2);
    environment.settle();
    assert!(environment.is_committed_at(P2, next.id));
    assert!(is_asserted(&environment.look(run.id), 1));
}

#[test]
fn what_was_compensated_and_resolved_is_a_hazard_until_it_says_that_it_is_undone() {
    for comes_back in [true, false] {
        let mut environment = Environment::new();
        let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
            begin.options.commit_policy = CommitPolicy::Compensate { after: 1 };
            begin.waiter.at = AnswerAt::Completion;
        });
        environment.exchange();
        environment.sync();
        // Committed, which nobody hears of.
        environment.deliver_to(P0);
        environment.lose_all();
        environment.disconnect(P0);
        while environment.journal.pending.is_empty() {
            environment.advance(seconds(3));
        }
        environment.sync();
        environment.lose_all();
        let token = resolve(&mut environment, run, false, Some(0));
        environment.sync();
        for _ in 0..10 {
            environment.advance(seconds(3));
            environment.exchange();
        }
        let view = environment.answer(token).clone();
        assert_eq!(view.outcome, Outcome::HeuristicHazard, "dressed up as rolled back");
        assert!(view.branches[0].notification_owed && environment.is_committed_at(P0, run.id));
        environment.sync();
        environment.crash();
        if comes_back {
            environment.connect(P0);
            assert_eq!(environment.on_the_way(), [(P0, "compensate")]);
            environment.settle();
            assert!(environment.is_rolled_back_at(P0, run.id));
            assert!(!environment.journal.end(run.id).unwrap().heuristic);
        } else {
            abandon(&mut environment, run, None);
            environment.sync();
            environment.sync();
            assert!(environment.journal.end(run.id).unwrap().heuristic);
        }
    }
}

#[test]
fn nobody_hears_of_the_attempts_of_a_notification() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    let before = environment.look(run.id).trail.len();
    let told = environment.happened.len();
    environment.connect(P1);
    for _ in 0..100 {
        environment.lose_all();
        environment.advance(seconds(30));
    }
    assert_eq!(environment.look(run.id).trail.len(), before);
    assert_eq!(environment.happened.len(), told);
}

#[test]
fn nothing_is_abandoned_while_the_transaction_is_waited_for() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1, P2]);
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.lose_all();
    [P1, P2].into_iter().for_each(|it| environment.disconnect(it));
    resolve(&mut environment, run, true, Some(1));
    environment.sync();
    environment.advance(seconds(30));
    assert!(is_asserted(&environment.look(run.id), 1));
    let early = abandon(&mut environment, run, Some(1));
    assert!(is_refused(&environment, early), "another branch is still owed its commit");
}

#[test]
fn one_that_was_recovered_and_resolved_only_notifies_too() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    environment.crash();
    resolve(&mut environment, run, true, None);
    environment.sync();
    environment.advance(seconds(30));
    environment.sync();
    assert_eq!(environment.coordinator.notifying(), 1);
    environment.heal();
    assert!(environment.is_committed_at(P1, run.id));
}

#[test]
fn a_late_promise_is_notified_at_once_and_another_vote_is_not() {
    let mut environment = Environment::new();
    let run = asserted(&mut environment);
    environment.connect(P1);
    environment.lose_all();
    // The attempt is over, and the next one is far away.
    environment.advance(seconds(2));
    environment.lose_all();
    environment.vote(P1, run.id, 1, Vote::ReadOnly);
    assert!(environment.flights.is_empty());
    environment.vote(P1, run.id, 1, Vote::Commit { output: None, committed: false });
    assert_eq!(environment.on_the_way(), [(P1, "commit")]);
}
