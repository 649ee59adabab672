//! What participants are told that they may forget.

use dtc_core::{Ended, Event, Outcome, ParticipantId, Vote};
use dtc_protocol::{JournalId, TransactionId};

use crate::{
    forced::resolve,
    participant::YES,
    world::{P0, P1, P2, Run, World, keyed, seconds},
};

const NEXT: TransactionId = TransactionId::from_bytes([255; 16]);

fn decided(world: &mut World, at: &[ParticipantId]) -> Run {
    let run = world.execute(at);
    world.exchange();
    world.sync();
    world.lose_all();
    run
}

fn ended(world: &World, at: ParticipantId, old: TransactionId) -> Ended {
    world.coordinator.endings(old, NEXT).of(at).expect("its journal is known")
}

/// Before which all has ended, with none of them so old that it is an exception.
fn before(world: &World, at: ParticipantId) -> TransactionId {
    let Ended { before, except } = ended(world, at, TransactionId::from_bytes([0; 16]));
    assert_eq!(except, []);
    before
}

fn link(world: &mut World, name: ParticipantId, journal: JournalId) {
    let journal = Some(journal);
    world.event(Event::Connected { participant: name, asks: true, compensates: true, journal });
}

#[test]
fn all_before_the_oldest_unfinished_has_ended() {
    let mut world = World::new();
    let first = decided(&mut world, &[P0, P1]);
    let second = world.execute(&[P1]);
    world.settle();
    assert_eq!((before(&world, P0), before(&world, P2)), (first.id, NEXT));
    let Ended { before: until, except } = ended(&world, P0, second.id);
    assert_eq!((until, except), (NEXT, vec![first.id..=first.id]));
    world.heal();
    assert_eq!(before(&world, P0), NEXT);
}

#[test]
fn a_second_name_of_a_participant_is_told_the_same_as_the_first() {
    let mut world = World::new();
    let run = decided(&mut world, &[P0]);
    let journal = world.participant(P0).journal;
    link(&mut world, P2, journal);
    assert_eq!((before(&world, P0), before(&world, P2)), (run.id, run.id));
    // The first name's link is lost; its branch is where it was.
    world.disconnect(P0);
    assert_eq!(before(&world, P2), run.id);
    // The name goes to another.
    link(&mut world, P0, JournalId::from_bytes([77; 16]));
    assert_eq!(before(&world, P2), run.id);
    world.connect_all();
    link(&mut world, P2, journal);
    world.heal();
    assert_eq!(before(&world, P2), NEXT);
}

#[test]
fn what_was_sent_to_a_name_and_not_answered_may_be_at_any_journal_that_it_had() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |_| {});
    let journal = world.participant(P0).journal;
    world.lose_all();
    world.disconnect(P0);
    assert_eq!(before(&world, P2), run.id, "P0 may come back as this one");
    link(&mut world, P0, JournalId::from_bytes([77; 16]));
    assert_eq!(before(&world, P2), NEXT);
    link(&mut world, P2, journal);
    assert_eq!(before(&world, P2), run.id);
}

#[test]
fn a_dead_participants_promises_hold_back_nobody_else() {
    let mut world = World::new();
    let run = decided(&mut world, &[P0, P1]);
    world.disconnect(P0);
    assert_eq!((before(&world, P1), before(&world, P2)), (run.id, NEXT));
}

#[test]
fn one_that_may_still_get_branches_counts_for_all() {
    let mut world = World::new();
    let id = world.begin();
    assert_eq!(before(&world, P2), id);
    world.enlist(id, P0);
    assert_eq!(before(&world, P2), id);
    world.prepare(id);
    assert_eq!((before(&world, P0), before(&world, P2)), (id, NEXT));

    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES)], |begin| begin.key = keyed("a", 1));
    world.execute_with(&[(P0, YES)], |begin| begin.key = keyed("a", 2));
    assert_eq!(before(&world, P2), run.id, "its key is being looked up");
    world.answer_lookups();
    assert_eq!((before(&world, P0), before(&world, P2)), (run.id, NEXT));
}

#[test]
fn what_a_run_before_left_counts_where_it_was_promised_whatever_the_name_is_now() {
    let mut world = World::new();
    let run = decided(&mut world, &[P0]);
    let journal = world.participant(P0).journal;
    world.crash();
    // Nobody has the name any more; the participant is known by its address.
    link(&mut world, P2, journal);
    link(&mut world, P1, JournalId::from_bytes([77; 16]));
    assert_eq!((before(&world, P2), before(&world, P1)), (run.id, NEXT));
    // The name is another's.
    link(&mut world, P0, JournalId::from_bytes([78; 16]));
    assert_eq!((before(&world, P2), before(&world, P1)), (run.id, NEXT));
}

#[test]
fn what_a_run_before_left_undecided_may_be_anywhere() {
    let mut world = World::new();
    world.cannot_ask(P0);
    let run = world.execute(&[P0, P1]);
    world.sync();
    world.crash();
    world.connect(P2);
    assert_eq!(before(&world, P2), run.id);
    world.connect_all();
    world.heal();
    world.advance(seconds(1));
    assert_eq!(before(&world, P2), NEXT);
}

#[test]
fn a_branch_that_is_lost_is_not_taken_for_compensated() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.options.commit_policy = dtc_core::CommitPolicy::Compensate { after: 3 };
    });
    world.exchange();
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    while world.journal.pending.is_empty() {
        world.lose_all();
        world.advance(seconds(3));
    }
    world.sync();
    world.participant(P0).branches.clear();
    world.heal();
    assert_eq!(world.outcome(run), Outcome::HeuristicHazard);
}

#[test]
fn what_waits_for_a_first_link_is_nowhere_else() {
    let mut world = World::new();
    let new = ParticipantId(3);
    let run = world.execute_with(&[(new, YES)], |_| {});
    assert_eq!(before(&world, P2), run.id, "its journal is not known");
    link(&mut world, new, JournalId::from_bytes([77; 16]));
    assert_eq!((before(&world, new), before(&world, P2)), (run.id, NEXT));
}

#[test]
fn what_was_sent_to_a_journal_without_an_id_may_be_anywhere() {
    let mut world = World::new();
    let silent =
        |journal| Event::Connected { participant: P0, asks: false, compensates: true, journal };
    world.event(silent(None));
    let run = world.execute(&[P0, P1]);
    world.sync();
    assert_eq!(before(&world, P2), run.id);
    world.event(silent(Some(JournalId::from_bytes([77; 16]))));
    assert_eq!(before(&world, P2), run.id, "the one before may come back under another name");
}

#[test]
fn a_notification_to_a_journal_without_an_id_holds_back_nobody() {
    let mut world = World::new();
    let (asks, compensates) = (false, true);
    world.event(Event::Connected { participant: P1, asks, compensates, journal: None });
    let run = world.execute(&[P0, P1]);
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    let vote = Vote::Commit { output: None, committed: false };
    world.event(Event::Voted { from: P1, journal: None, id: run.id, branch: 1, vote });
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.disconnect(P1);
    assert_eq!(before(&world, P2), run.id);
    resolve(&mut world, run, true, Some(1));
    world.sync();
    world.advance(seconds(60));
    world.sync();
    assert_eq!(world.coordinator.notifying(), 1);
    assert_eq!(before(&world, P2), NEXT);
}

#[test]
fn a_participant_that_is_forgotten_is_told_nothing_unless_work_names_it() {
    let mut world = World::new();
    decided(&mut world, &[P0]);
    for participant in [P0, P1] {
        world.coordinator.forget_participant(participant);
    }
    let endings = world.coordinator.endings(NEXT, NEXT);
    assert!(endings.of(P0).is_some(), "it is owed a decision");
    assert_eq!(endings.of(P1), None);
}
