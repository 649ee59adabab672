//! A commit that keeps failing is undone everywhere, where its client asked for that.

use dtc_core::{
    Acknowledgement, AnswerAt, BranchOutcome, BranchState, CommitPolicy, Outcome, TrailKind,
    TransactionState,
};

use crate::{
    environment::{Environment, P0, P1, Run, seconds},
    participant::YES,
    resolved::resolve,
};

const ATTEMPTS: u32 = 3;

/// Begins one that may be compensated.
fn execute(environment: &mut Environment) -> Run {
    environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = CommitPolicy::Compensate { after: ATTEMPTS };
    })
}

/// Committed at P0; P1 gets nothing, until the turning is asked for.
fn turning(environment: &mut Environment) -> Run {
    let run = execute(environment);
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    assert!(environment.is_committed_at(P0, run.id));
    fail_until_asked(environment);
    run
}

fn fail_until_asked(environment: &mut Environment) {
    for _ in 0..20 {
        environment.lose_all();
        if !environment.journal.pending.is_empty() {
            return;
        }
        environment.advance(seconds(3));
    }
    panic!("it was not compensated");
}

/// What came of it: undone everywhere, and told so.
fn is_undone(environment: &mut Environment, run: Run) {
    environment.heal();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
    assert_eq!(environment.journal.commits(run.id), Some(false));
    assert!(!environment.journal.end(run.id).expect("it has ended").heuristic);
}

#[test]
fn a_commit_that_keeps_failing_is_undone_everywhere_and_told_at_the_end() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    assert!(environment.reply(run.token).is_none(), "told before its end");
    environment.sync();
    assert_eq!(environment.on_the_way(), [(P0, "compensate"), (P1, "compensate")]);
    environment.exchange();
    assert!(environment.is_rolled_back_at(P0, run.id) && environment.is_rolled_back_at(P1, run.id));
    let view = environment.answer(run.token).clone();
    assert_eq!((view.outcome, view.committed), (Outcome::Aborted, false));
    let reason = view.reason.expect("a reason");
    assert_eq!((&*reason.code, reason.participant), ("COMMIT_FAILED", Some(P1)));
    assert!(reason.message.contains("branch 1 did not commit in 3 attempts"), "{reason:?}");
    is_undone(&mut environment, run);
    assert_eq!(environment.count(run.id, TrailKind::CompensationDecided), 1);
}

#[test]
fn every_attempt_of_a_commit_that_may_be_compensated_is_on_record() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.sync();
    let trail = &environment.journal.decision(run.id).expect("a decision").trail;
    let of = |kind| trail.iter().filter(|it| it.kind == kind && it.branch == Some(1)).count();
    assert_eq!((of(TrailKind::Retried), of(TrailKind::Unreachable)), (2, 3));
    assert_eq!(trail.last().map(|it| it.kind), Some(TrailKind::CompensationDecided));
}

#[test]
fn a_client_hears_nothing_at_the_decision_and_of_a_commit_at_the_end() {
    let mut environment = Environment::new();
    let run = execute(&mut environment);
    environment.exchange();
    environment.sync();
    let view = environment.look(run.id);
    assert_eq!((view.state, view.outcome), (TransactionState::Committing, Outcome::Pending));
    assert!(!view.committed && environment.reply(run.token).is_none());
    environment.exchange();
    // A crash would find it undone in part, and compensate it.
    assert!(environment.reply(run.token).is_none(), "told before its end is durable");
    assert_eq!(environment.look(run.id).state, TransactionState::Committing);
    assert_eq!(environment.count(run.id, TrailKind::Ended), 0, "a watcher sees it no sooner");
    assert_eq!(environment.sync, Some(true), "somebody waits for the end");
    environment.sync();
    assert_eq!(environment.outcome(run), Outcome::Committed);
    assert_eq!(environment.count(run.id, TrailKind::Ended), 1);
}

#[test]
fn who_says_while_it_votes_that_it_cannot_undo_a_commit_aborts() {
    let mut environment = Environment::new();
    let run = execute(&mut environment);
    environment.participant(P1).compensates = false;
    environment.connect(P1);
    environment.exchange();
    environment.sync();
    let reason = environment.answer(run.token).reason.clone().expect("a reason");
    assert_eq!((&*reason.code, reason.participant), ("CANNOT_COMPENSATE", Some(P1)));
}

#[test]
fn what_an_operator_has_resolved_is_not_compensated() {
    let mut environment = Environment::new();
    let run = execute(&mut environment);
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.lose_all();
    resolve(&mut environment, run, true, Some(1));
    environment.sync();
    for _ in 0..60 {
        environment.lose_all();
        environment.advance(seconds(1));
        environment.sync();
    }
    assert_eq!(environment.count(run.id, TrailKind::CompensationDecided), 0);
    assert_eq!(environment.look(run.id).branches[1].state, BranchState::Asserted);
    // Its outcome is known, after a crash too.
    assert_eq!(environment.outcome(run), Outcome::Committed);
    environment.crash();
    assert_eq!(environment.look(run.id).outcome, Outcome::Committed);
}

#[test]
fn nobody_is_told_of_the_compensation_before_its_record_is_durable() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.connect(P0);
    environment.connect(P1);
    environment.advance(seconds(60));
    assert!(environment.flights.is_empty(), "{:?}", environment.flights);
    assert_eq!(environment.ask(run.id, 1), Some(BranchOutcome::Pending));
    let view = environment.look(run.id);
    assert_eq!((view.state, view.reason), (TransactionState::Committing, None));
    assert!(view.branches.iter().all(|it| it.state == BranchState::Committing));
    environment.sync();
    assert_eq!(environment.ask(run.id, 1), Some(BranchOutcome::Aborted { number: 2 }));
    is_undone(&mut environment, run);
}

#[test]
fn a_crash_before_the_record_is_durable_leaves_the_first_decision() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.crash();
    assert_eq!(environment.journal.commits(run.id), Some(true));
    environment.heal();
    assert!(environment.is_committed_at(P0, run.id) && environment.is_committed_at(P1, run.id));
}

#[test]
fn a_crash_before_the_record_is_durable_and_no_commit_after_it_turns_round_later() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.crash();
    environment.connect(P0);
    environment.exchange();
    fail_until_asked(&mut environment);
    environment.sync();
    is_undone(&mut environment, run);
}

#[test]
fn a_crash_after_the_record_is_durable_undoes_it_all_again() {
    for told in [&[][..], &[P0], &[P1], &[P0, P1]] {
        let mut environment = Environment::new();
        let run = turning(&mut environment);
        environment.sync();
        told.iter().for_each(|to| environment.deliver_to(*to));
        if told.len() == 2 {
            environment.hear_all();
        }
        environment.flights.clear();
        environment.crash();
        is_undone(&mut environment, run);
    }
}

#[test]
fn a_late_commit_of_the_first_decision_does_nothing() {
    let mut environment = Environment::new();
    let run = execute(&mut environment);
    environment.exchange();
    environment.sync();
    let late = environment.take_flights();
    fail_until_asked(&mut environment);
    environment.sync();
    environment.exchange();
    late.iter().for_each(|flight| environment.deliver(flight));
    assert!(environment.answers.is_empty());
    is_undone(&mut environment, run);
}

#[test]
fn a_branch_that_is_undone_is_told_until_it_acknowledges_though_it_asks() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.sync();
    for _ in 0..20 {
        environment.lose_all();
        environment.advance(seconds(6));
    }
    let states: Vec<_> = environment.look(run.id).branches.iter().map(|it| it.state).collect();
    assert_eq!(states, [BranchState::RollingBack; 2]);
    is_undone(&mut environment, run);
}

#[test]
fn one_that_will_not_undo_its_commit_makes_the_outcome_mixed() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.sync();
    environment.deliver_to(P1);
    environment.lose_all();
    let journal = Some(environment.participant(P0).journal);
    environment.event(dtc_core::Event::Acknowledged {
        from: P0,
        journal,
        id: run.id,
        branch: 0,
        number: 2,
        acknowledgement: Acknowledgement::Committed,
    });
    environment.heal();
    assert_eq!(environment.outcome(run), Outcome::HeuristicMixed);
    assert!(environment.journal.end(run.id).expect("it has ended").heuristic);
}

#[test]
fn a_journal_that_is_gone_cannot_say_that_its_commit_is_undone() {
    let mut environment = Environment::new();
    let run = turning(&mut environment);
    environment.participant(P0).lose_disk();
    environment.sync();
    environment.heal();
    assert_eq!(environment.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn all_that_vote_have_to_be_able_to_undo_their_commit() {
    let mut environment = Environment::new();
    environment.participant(P1).compensates = false;
    environment.connect(P1);
    let run = execute(&mut environment);
    assert!(environment.flights.is_empty(), "asked one that can't");
    let view = environment.answer(run.token);
    let reason = view.reason.clone().expect("a reason");
    assert_eq!((&*reason.code, reason.participant), ("CANNOT_COMPENSATE", Some(P1)));

    // Not known before it is there.
    let mut environment = Environment::new();
    environment.crash();
    environment.participant(P1).compensates = false;
    let run = execute(&mut environment);
    environment.sync();
    environment.connect_all();
    environment.exchange();
    assert_eq!(environment.outcome(run), Outcome::Aborted);
    environment.heal();
    assert!(environment.branch_at(P0, run.id).is_none(), "nobody was asked before it was known");
}

#[test]
fn one_that_says_it_rolled_back_is_at_one_with_the_others_after_the_turn() {
    let mut environment = Environment::new();
    let run =
        environment.execute_with(&[(P0, YES), (P1, YES), (crate::environment::P2, YES)], |begin| {
            begin.options.commit_policy = CommitPolicy::Compensate { after: ATTEMPTS };
            begin.waiter.at = AnswerAt::Completion;
        });
    environment.exchange();
    environment.sync();
    environment.lose_all();
    environment.acknowledge(P0, run.id, 0, Acknowledgement::RolledBack);
    fail_until_asked(&mut environment);
    environment.sync();
    is_undone(&mut environment, run);
    assert_eq!(environment.outcome(run), Outcome::Aborted);
}
