//! What participants are told that they may forget.

use dtc_core::{Ended, Event, Outcome, ParticipantId, Vote};
use dtc_protocol::{JournalId, TransactionId};

use crate::{
    environment::{Environment, P0, P1, P2, Run, keyed, seconds},
    participant::YES,
    resolved::resolve,
};

const NEXT: TransactionId = TransactionId::from_bytes([255; 16]);

fn decided(environment: &mut Environment, at: &[ParticipantId]) -> Run {
    let run = environment.execute(at);
    environment.exchange();
    environment.sync();
    environment.lose_all();
    run
}

fn ended(environment: &Environment, at: ParticipantId, old: TransactionId) -> Ended {
    environment.coordinator.endings(old, NEXT).of(at).expect("its journal is known")
}

/// Before which all has ended, with none of them so old that it is an exception.
fn before(environment: &Environment, at: ParticipantId) -> TransactionId {
    let Ended { before, except } = ended(environment, at, TransactionId::from_bytes([0; 16]));
    assert_eq!(except, []);
    before
}

fn link(environment: &mut Environment, name: ParticipantId, journal: JournalId) {
    let journal = Some(journal);
    environment.event(Event::Connected {
        participant: name,
        supports_inquiry: true,
        compensates: true,
        journal,
    });
}

#[test]
fn all_before_the_oldest_unfinished_has_ended() {
    let mut environment = Environment::new();
    let first = decided(&mut environment, &[P0, P1]);
    let second = environment.execute(&[P1]);
    environment.settle();
    assert_eq!((before(&environment, P0), before(&environment, P2)), (first.id, NEXT));
    let Ended { before: until, except } = ended(&environment, P0, second.id);
    assert_eq!((until, except), (NEXT, vec![first.id..=first.id]));
    environment.heal();
    assert_eq!(before(&environment, P0), NEXT);
}

#[test]
fn a_second_name_of_a_participant_is_told_the_same_as_the_first() {
    let mut environment = Environment::new();
    let run = decided(&mut environment, &[P0]);
    let journal = environment.participant(P0).journal;
    link(&mut environment, P2, journal);
    assert_eq!((before(&environment, P0), before(&environment, P2)), (run.id, run.id));
    // The first name's link is lost; its branch is where it was.
    environment.disconnect(P0);
    assert_eq!(before(&environment, P2), run.id);
    // The name goes to another.
    link(&mut environment, P0, JournalId::from_bytes([77; 16]));
    assert_eq!(before(&environment, P2), run.id);
    environment.connect_all();
    link(&mut environment, P2, journal);
    environment.heal();
    assert_eq!(before(&environment, P2), NEXT);
}

#[test]
fn what_was_sent_to_a_name_and_not_answered_may_be_at_any_journal_that_it_had() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |_| {});
    let journal = environment.participant(P0).journal;
    environment.lose_all();
    environment.disconnect(P0);
    assert_eq!(before(&environment, P2), run.id, "P0 may come back as this one");
    link(&mut environment, P0, JournalId::from_bytes([77; 16]));
    assert_eq!(before(&environment, P2), NEXT);
    link(&mut environment, P2, journal);
    assert_eq!(before(&environment, P2), run.id);
}

#[test]
fn a_dead_participants_promises_hold_back_nobody_else() {
    let mut environment = Environment::new();
    let run = decided(&mut environment, &[P0, P1]);
    environment.disconnect(P0);
    assert_eq!((before(&environment, P1), before(&environment, P2)), (run.id, NEXT));
}

#[test]
fn one_that_may_still_get_branches_counts_for_all() {
    let mut environment = Environment::new();
    let id = environment.begin();
    assert_eq!(before(&environment, P2), id);
    environment.enlist(id, P0);
    assert_eq!(before(&environment, P2), id);
    environment.prepare(id);
    assert_eq!((before(&environment, P0), before(&environment, P2)), (id, NEXT));

    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES)], |begin| begin.key = keyed("a", 1));
    environment.execute_with(&[(P0, YES)], |begin| begin.key = keyed("a", 2));
    assert_eq!(before(&environment, P2), run.id, "its key is being looked up");
    environment.answer_lookups();
    assert_eq!((before(&environment, P0), before(&environment, P2)), (run.id, NEXT));
}

#[test]
fn what_a_run_before_left_counts_where_it_was_promised_whatever_the_name_is_now() {
    let mut environment = Environment::new();
    let run = decided(&mut environment, &[P0]);
    let journal = environment.participant(P0).journal;
    environment.crash();
    // Nobody has the name any more; the participant is known by its address.
    link(&mut environment, P2, journal);
    link(&mut environment, P1, JournalId::from_bytes([77; 16]));
    assert_eq!((before(&environment, P2), before(&environment, P1)), (run.id, NEXT));
    // The name is another's.
    link(&mut environment, P0, JournalId::from_bytes([78; 16]));
    assert_eq!((before(&environment, P2), before(&environment, P1)), (run.id, NEXT));
}

#[test]
fn what_a_run_before_left_undecided_may_be_anywhere() {
    let mut environment = Environment::new();
    environment.cannot_ask(P0);
    let run = environment.execute(&[P0, P1]);
    environment.sync();
    environment.crash();
    environment.connect(P2);
    assert_eq!(before(&environment, P2), run.id);
    environment.connect_all();
    environment.heal();
    environment.advance(seconds(1));
    assert_eq!(before(&environment, P2), NEXT);
}

#[test]
fn a_branch_that_is_lost_is_not_taken_for_compensated() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = dtc_core::CommitPolicy::Compensate { after: 3 };
    });
    environment.exchange();
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    while environment.journal.pending.is_empty() {
        environment.lose_all();
        environment.advance(seconds(3));
    }
    environment.sync();
    environment.participant(P0).branches.clear();
    environment.heal();
    assert_eq!(environment.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn what_waits_for_a_first_link_is_nowhere_else() {
    let mut environment = Environment::new();
    let new = ParticipantId(3);
    let run = environment.execute_with(&[(new, YES)], |_| {});
    assert_eq!(before(&environment, P2), run.id, "its journal is not known");
    link(&mut environment, new, JournalId::from_bytes([77; 16]));
    assert_eq!((before(&environment, new), before(&environment, P2)), (run.id, NEXT));
}

#[test]
fn what_was_sent_to_a_journal_without_an_id_may_be_anywhere() {
    let mut environment = Environment::new();
    let silent = |journal| Event::Connected {
        participant: P0,
        supports_inquiry: false,
        compensates: true,
        journal,
    };
    environment.event(silent(None));
    let run = environment.execute(&[P0, P1]);
    environment.sync();
    assert_eq!(before(&environment, P2), run.id);
    environment.event(silent(Some(JournalId::from_bytes([77; 16]))));
    assert_eq!(before(&environment, P2), run.id, "the one before may come back under another name");
}

#[test]
fn a_notification_to_a_journal_without_an_id_holds_back_nobody() {
    let mut environment = Environment::new();
    let (supports_inquiry, compensates) = (false, true);
    environment.event(Event::Connected {
        participant: P1,
        supports_inquiry,
        compensates,
        journal: None,
    });
    let run = environment.execute(&[P0, P1]);
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    let vote = Vote::Commit { output: None, committed: false };
    environment.event(Event::Voted { from: P1, journal: None, id: run.id, branch: 1, vote });
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.disconnect(P1);
    assert_eq!(before(&environment, P2), run.id);
    resolve(&mut environment, run, true, Some(1));
    environment.sync();
    environment.advance(seconds(60));
    environment.sync();
    assert_eq!(environment.coordinator.notifying(), 1);
    assert_eq!(before(&environment, P2), NEXT);
}

#[test]
fn a_participant_that_is_forgotten_is_told_nothing_unless_work_names_it() {
    let mut environment = Environment::new();
    decided(&mut environment, &[P0]);
    for participant in [P0, P1] {
        environment.coordinator.forget_participant(participant);
    }
    let endings = environment.coordinator.endings(NEXT, NEXT);
    assert!(endings.of(P0).is_some(), "it is owed a decision");
    assert_eq!(endings.of(P1), None);
}
