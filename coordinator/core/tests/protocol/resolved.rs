//! What operators resolve.

use dtc_core::{
    Acknowledgement, AnswerAt, BranchOutcome, BranchState, Client, CommitPolicy, Intervention,
    InterventionAction, Outcome, Refused, Reply, TransactionState,
};

use crate::{
    environment::{Environment, P0, P1, P2, Run, locks, seconds},
    participant::{NO, YES},
};

pub(crate) fn by_operator(
    environment: &Environment,
    action: InterventionAction,
    branch: Option<u32>,
) -> Intervention {
    let (reason, caller) = ("the disk is in the river".into(), "ada".into());
    Intervention { at: environment.now, action, branch, reason, caller }
}

pub(crate) fn resolve(
    environment: &mut Environment,
    run: Run,
    commit: bool,
    branch: Option<u32>,
) -> u64 {
    let action = match commit {
        true => InterventionAction::Commit,
        false => InterventionAction::Rollback,
    };
    let (intervention, until) =
        (by_operator(environment, action, branch), environment.now + seconds(60));
    environment.call(run.id, Client::Resolve { intervention, until })
}

pub(crate) fn is_refused(environment: &Environment, token: u64) -> bool {
    matches!(environment.reply(token), Some(Reply::Refused(Refused::WrongState { .. })))
}

/// Committed at P0; P1 cannot be reached any more.
pub(crate) fn stuck(environment: &mut Environment) -> Run {
    let run = environment.execute(&[P0, P1]);
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.lose_all();
    environment.disconnect(P1);
    run
}

#[test]
fn a_branch_that_is_rolled_back_by_force_against_its_commit_is_a_hazard_until_it_says_so() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    let token = resolve(&mut environment, run, false, Some(1));
    assert_eq!(environment.look(run.id).state, TransactionState::Committing, "not durable yet");
    assert_eq!(
        environment.ask(run.id, 1),
        Some(BranchOutcome::Committed { number: 1, output: Some([1, 1].into()) }),
        "told before it is durable"
    );
    environment.sync();
    environment.advance(seconds(30));
    let view = environment.answer(token).clone();
    assert_eq!((view.state, view.outcome), (TransactionState::Committed, Outcome::HeuristicHazard));
    assert_eq!(view.interventions.len(), 1);
    assert_eq!((&*view.interventions[0].caller, view.interventions[0].branch), ("ada", Some(1)));
    assert_eq!(view.branches[1].state, BranchState::Hazard);
    assert_eq!(view.branches[1].resolution, Some(false));
    assert!(view.branches[1].notification_owed && !view.branches[0].notification_owed);
    environment.sync();
    assert!(environment.journal.end(run.id).is_none(), "its participant was not notified");
    // When it is back, it does what was forced, and that is known.
    environment.connect(P1);
    environment.inquire(P1);
    environment.settle();
    assert!(environment.is_rolled_back_at(P1, run.id) && environment.is_committed_at(P0, run.id));
    let end = environment.journal.end(run.id).unwrap();
    assert!(end.heuristic && end.kept);
    assert_eq!(end.branches[1], BranchState::Heuristic);
}

#[test]
fn one_that_can_be_reached_says_what_became_of_it() {
    for (answer, outcome) in [
        (Acknowledgement::RolledBack, Outcome::HeuristicMixed),
        (Acknowledgement::Committed, Outcome::Committed),
        (Acknowledgement::Unknown, Outcome::HeuristicHazard),
    ] {
        let mut environment = Environment::new();
        let run = stuck(&mut environment);
        environment.connect(P1);
        environment.lose_all();
        let token = resolve(&mut environment, run, false, None);
        environment.sync();
        assert_eq!(environment.on_the_way(), [(P1, "rollback")]);
        let journal = Some(environment.participant(P1).journal);
        // A late answer to the commit says nothing about the rollback.
        environment.acknowledge(P1, run.id, 1, Acknowledgement::Committed);
        assert!(environment.reply(token).is_none());
        environment.event(dtc_core::Event::Acknowledged {
            from: P1,
            journal,
            id: run.id,
            branch: 1,
            number: 2,
            acknowledgement: answer,
        });
        assert_eq!(environment.answer(token).outcome, outcome);
        environment.sync();
        assert!(environment.journal.end(run.id).unwrap().kept, "until somebody has looked");
    }
}

#[test]
fn what_is_resolved_as_it_was_decided_is_shown_as_asserted_until_it_is_acknowledged() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    let token = resolve(&mut environment, run, true, None);
    environment.sync();
    environment.advance(seconds(30));
    let view = environment.answer(token).clone();
    assert_eq!((view.state, view.outcome), (TransactionState::Committed, Outcome::Committed));
    assert_eq!(view.branches[1].state, BranchState::Asserted);
    assert_eq!(view.branches[1].resolution, Some(true));
    assert!(view.branches[1].notification_owed);
    assert!(view.ended_at.is_some());
    environment.connect(P1);
    environment.exchange();
    assert_eq!(environment.look(run.id).branches[1].state, BranchState::Committed);
    environment.settle();
    assert!(environment.is_committed_at(P1, run.id));
    let end = environment.journal.end(run.id).unwrap();
    assert!(!end.heuristic && end.kept, "somebody intervened");
    assert_eq!(end.branches, [BranchState::Committed; 2]);
}

#[test]
fn a_crash_before_the_record_is_durable_leaves_the_decision_and_one_after_it_what_was_forced() {
    for durable in [false, true] {
        let mut environment = Environment::new();
        let run = stuck(&mut environment);
        resolve(&mut environment, run, false, Some(1));
        if durable {
            environment.sync();
        }
        environment.lose_all();
        environment.crash();
        environment.heal();
        assert_eq!(environment.is_committed_at(P1, run.id), !durable);
        assert!(environment.is_committed_at(P0, run.id));
        let end = environment.journal.end(run.id).unwrap();
        assert_eq!((end.heuristic, end.kept), (durable, durable));
    }
}

#[test]
fn an_undecided_transaction_may_be_rolled_back_by_hand_and_committed_once_all_have_voted() {
    let mut environment = Environment::new();
    let run = environment.execute(&[P0, P1]);
    let refused = resolve(&mut environment, run, true, None);
    assert!(is_refused(&environment, refused), "not all have voted");
    let refused = resolve(&mut environment, run, false, Some(0));
    assert!(is_refused(&environment, refused), "a branch alone");
    let token = resolve(&mut environment, run, false, None);
    assert!(environment.reply(token).is_none(), "told before it is on record");
    environment.heal();
    let view = environment.answer(token);
    assert_eq!(
        (view.outcome, &*view.reason.as_ref().unwrap().code),
        (Outcome::Aborted, "RESOLVED")
    );
    assert!(environment.journal.end(run.id).unwrap().kept);

    let id = environment.begin();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    environment.prepare(id);
    environment.sync();
    environment.exchange();
    let run = Run { id, token: 0 };
    for commit in [true, false] {
        let refused = resolve(&mut environment, run, commit, Some(0));
        assert!(is_refused(&environment, refused), "a branch alone, which would decide for all");
    }
    let token = resolve(&mut environment, run, true, None);
    environment.heal();
    assert_eq!(environment.answer(token).outcome, Outcome::Committed);
}

#[test]
fn what_cannot_be_settled_in_one_phase_is_ended_as_a_hazard() {
    for commit in [false, true] {
        let mut environment = Environment::new();
        let run = environment.execute(&[P0]);
        environment.lose_all();
        environment.disconnect(P0);
        environment.advance(seconds(20));
        let refused = resolve(&mut environment, run, commit, Some(1));
        assert!(is_refused(&environment, refused), "it has one branch");
        let token = resolve(&mut environment, run, commit, None);
        assert!(environment.reply(token).is_none(), "told before it is on record");
        environment.sync();
        environment.advance(seconds(30));
        assert_eq!(environment.answer(token).outcome, Outcome::HeuristicHazard);
        assert_eq!(environment.journal.commits(run.id), Some(commit));
        let branch = &environment.look(run.id).branches[0];
        assert_eq!((branch.state, branch.resolution), (BranchState::Hazard, Some(commit)));
        assert!(branch.notification_owed);
        // A crash does not make it more certain than it is.
        environment.crash();
        assert_eq!(environment.look(run.id).outcome, Outcome::HeuristicHazard);
    }
}

#[test]
fn nothing_is_forced_where_nothing_is_owed() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    let refused = resolve(&mut environment, run, false, Some(0));
    assert!(is_refused(&environment, refused), "it has acknowledged");
    let refused = resolve(&mut environment, run, false, Some(7));
    assert!(is_refused(&environment, refused), "there is no such branch");
    let first = resolve(&mut environment, run, false, Some(1));
    let refused = resolve(&mut environment, run, true, Some(1));
    assert!(is_refused(&environment, refused), "one at a time");
    environment.sync();
    environment.advance(seconds(30));
    assert!(environment.reply(first).is_some());
    let refused = resolve(&mut environment, run, true, Some(1));
    assert!(is_refused(&environment, refused), "it was resolved");
    environment.connect(P1);
    environment.settle();
    let gone = resolve(&mut environment, run, true, Some(1));
    assert!(matches!(environment.reply(gone), Some(Reply::NotHere)));
}

#[test]
fn a_rollback_that_cannot_be_told_may_be_forced_and_even_into_a_commit() {
    for commit in [false, true] {
        let mut environment = Environment::new();
        environment.cannot_ask(P0);
        let run = environment.execute_with(&[(P0, YES), (P2, NO)], |begin| {
            begin.waiter.at = AnswerAt::Completion;
        });
        environment.sync();
        environment.exchange();
        environment.lose_all();
        resolve(&mut environment, run, commit, Some(0));
        environment.sync();
        let expected = if commit { "commit" } else { "rollback" };
        assert_eq!(environment.on_the_way(), [(P0, expected)]);
        environment.exchange();
        let outcome = if commit { Outcome::HeuristicMixed } else { Outcome::Aborted };
        assert_eq!(environment.outcome(run), outcome);
        assert_eq!(environment.is_committed_at(P0, run.id), commit);
    }
}

#[test]
fn a_retry_by_hand_sends_at_once_and_is_on_record() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    environment.connect(P1);
    environment.lose_all();
    environment.advance(seconds(120));
    environment.take_flights();
    let action = InterventionAction::Retry;
    let intervention = by_operator(&environment, action, None);
    let token = environment.call(run.id, Client::Retry { intervention });
    assert_eq!(environment.on_the_way(), [(P1, "commit")]);
    assert_eq!(environment.answer(token).interventions[0].action, action);
    environment.exchange();
    environment.sync();
    assert_eq!(environment.journal.decision(run.id).unwrap().interventions.len(), 1);
    assert!(environment.journal.end(run.id).unwrap().kept);
    let states: Vec<_> = environment.journal.end(run.id).unwrap().branches.clone();
    assert_eq!(states, [BranchState::Committed; 2]);
}

#[test]
fn nothing_ends_while_something_is_about_to_be_forced() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P2, NO)], |_| {});
    environment.exchange();
    environment.lose_all();
    let token = resolve(&mut environment, run, true, Some(0));
    // The rollback is left to a participant that asks; the record is not durable yet.
    environment.disconnect(P0);
    environment.advance(seconds(20));
    assert!(environment.reply(token).is_none());
    environment.sync();
    environment.advance(seconds(20));
    assert_eq!(environment.answer(token).outcome, Outcome::HeuristicHazard);
}

#[test]
fn what_was_left_to_be_asked_for_and_forced_is_told_after_a_crash_too() {
    let mut environment = Environment::new();
    environment.cannot_ask(P1);
    let run = environment.execute_with(&[(P0, YES), (P1, YES), (P2, NO)], |_| {});
    environment.sync();
    environment.exchange();
    environment.disconnect(P0);
    environment.lose_all();
    environment.advance(seconds(60));
    assert_eq!(environment.look(run.id).branches[0].state, BranchState::RollbackUnacknowledged);
    resolve(&mut environment, run, true, Some(0));
    environment.sync();
    environment.lose_all();
    environment.crash();
    environment.heal();
    assert!(environment.is_committed_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
    assert!(environment.journal.end(run.id).unwrap().heuristic, "dressed up as aborted");
}

#[test]
fn a_retry_does_not_write_over_what_is_being_forced() {
    let mut environment = Environment::new();
    let run = stuck(&mut environment);
    resolve(&mut environment, run, false, Some(1));
    let intervention = by_operator(&environment, InterventionAction::Retry, None);
    environment.call(run.id, Client::Retry { intervention });
    environment.sync();
    environment.lose_all();
    assert_eq!(environment.journal.decision(run.id).unwrap().branches[1].resolved, Some(false));
    environment.crash();
    environment.heal();
    assert!(environment.is_rolled_back_at(P1, run.id));
}

#[test]
fn what_is_resolved_after_a_compensation_is_undone_too() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: 1 };
        begin.waiter.at = AnswerAt::Completion;
    });
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.lose_all();
    assert!(environment.is_committed_at(P0, run.id));
    while environment.journal.pending.is_empty() {
        environment.advance(seconds(3));
    }
    environment.sync();
    environment.lose_all();
    let token = resolve(&mut environment, run, false, None);
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "compensate"), (P1, "compensate")]);
    environment.exchange();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
    assert_eq!(environment.answer(token).outcome, Outcome::Aborted);
}

#[test]
fn locks_are_held_until_what_is_forced_has_ended() {
    let mut environment = Environment::new();
    let run = environment.execute_locked("A", &[P0, P1]);
    environment.sync();
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.lose_all();
    let next = environment.execute_locked("A", &[P0, P2]);
    resolve(&mut environment, run, false, Some(1));
    environment.sync();
    assert!(
        environment.flights.iter().all(|flight| flight.id == run.id),
        "it does not hold the lock"
    );
    environment.exchange();
    environment.sync();
    assert!(environment.flights.iter().any(|flight| flight.id == next.id), "nobody has the lock");
}

#[test]
fn locks_are_held_until_a_commit_is_undone() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: 1 };
        begin.locks = locks("A");
    });
    environment.sync();
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.lose_all();
    let next = environment.execute_locked("A", &[P0, P2]);
    while environment.journal.pending.is_empty() {
        environment.advance(seconds(3));
    }
    environment.sync();
    environment.lose_all();
    environment.crash();
    let late = environment.execute_locked("A", &[P0, P2]);
    environment.sync();
    environment.connect_all();
    assert!(
        environment.flights.iter().all(|flight| flight.id == run.id),
        "it does not hold the lock"
    );
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
    assert!(environment.is_committed_at(P2, late.id) && !environment.is_committed_at(P2, next.id));
}

#[test]
fn what_answers_before_its_force_is_durable_is_not_forced() {
    for (answer, state) in [
        (Acknowledgement::Committed, BranchState::Committed),
        (Acknowledgement::Unknown, BranchState::Hazard),
    ] {
        let mut environment = Environment::new();
        let run = environment.execute(&[P0, P1, P2]);
        environment.exchange();
        environment.sync();
        environment.lose_all();
        resolve(&mut environment, run, false, Some(1));
        environment.acknowledge(P1, run.id, 1, answer);
        environment.sync();
        let branch = &environment.look(run.id).branches[1];
        assert_eq!((branch.state, branch.resolution), (state, None));
        assert!(!branch.notification_owed && environment.flights.is_empty());
    }
}
