//! Calls with keys of their own: an answer that was lost is the answer of the repeat.

use dtc_core::{CallKey, Client, Config, Event, LockOwner, Outcome, Refused, Reply, SessionCall};

use crate::{
    participant::YES,
    world::{P0, World, branch, keyed, locks, seconds},
};
use dtc_protocol::{SessionId, TransactionId};

fn enlist(world: &mut World, id: TransactionId, key: Option<CallKey>, admitted: bool) -> u64 {
    let branch = admitted.then(|| branch(P0, YES));
    world.call(id, Client::Enlist { branch, key })
}

fn lock(world: &mut World, id: TransactionId, keys: &str, key: Option<CallKey>) -> u64 {
    let until = world.now + seconds(10);
    world.call(id, Client::Lock { locks: Some(locks(keys)), key, until })
}

/// A call for a new session.
fn acquire(world: &mut World, keys: &str, key: Option<CallKey>) -> (SessionId, u64) {
    let number = world.acquire_with(keys, key);
    (SessionId::from_bytes(u128::from(number).to_be_bytes()), number)
}

#[test]
fn a_branch_is_enlisted_once_a_key() {
    let mut world = World::new();
    let id = world.begin();
    let first = enlist(&mut world, id, keyed("a", 1), true);
    let second = enlist(&mut world, id, keyed("b", 1), true);
    for (token, number) in [(first, 0), (second, 1)] {
        assert!(matches!(world.reply(token), Some(Reply::Enlisted(it)) if *it == number));
    }
    for admitted in [true, false] {
        let again = enlist(&mut world, id, keyed("a", 1), admitted);
        assert!(matches!(world.reply(again), Some(Reply::Enlisted(0))), "admitted: {admitted}");
        let other = enlist(&mut world, id, keyed("a", 2), admitted);
        assert!(matches!(world.reply(other), Some(Reply::Refused(Refused::KeyTaken(_)))));
    }
    let new = enlist(&mut world, id, keyed("c", 1), false);
    assert!(matches!(world.reply(new), Some(Reply::NoRepeat)));
    assert_eq!(world.look(id).branches.len(), 2);

    // Whatever state it is in: what was enlisted is.
    let token = world.commit(id);
    for round in 0..3 {
        let again = enlist(&mut world, id, keyed("b", 1), true);
        assert!(matches!(world.reply(again), Some(Reply::Enlisted(1))), "round {round}");
        let late = enlist(&mut world, id, keyed("late", 1), true);
        assert!(matches!(world.reply(late), Some(Reply::Refused(Refused::WrongState { .. }))));
        match round {
            0 => world.sync(),
            _ => {
                world.lose_all();
                world.crash();
            }
        }
        if round == 0 {
            world.exchange();
            world.sync();
            assert_eq!(world.answer(token).outcome, Outcome::Committed);
        }
    }
}

#[test]
fn a_branch_is_enlisted_once_where_a_repeat_needs_room() {
    let mut world = World::with(Config { max_per_participant: 1, ..Config::default() });
    let id = world.begin();
    enlist(&mut world, id, keyed("a", 1), true);
    let again = enlist(&mut world, id, keyed("a", 1), true);
    assert!(matches!(world.reply(again), Some(Reply::Enlisted(0))));
    let new = enlist(&mut world, id, keyed("b", 1), true);
    assert!(matches!(world.reply(new), Some(Reply::Refused(_))));
}

#[test]
fn a_transaction_is_begun_once_a_key() {
    let mut world = World::new();
    let begin = |world: &mut World, admitted: bool| {
        world.execute_with(&[], |begin| {
            (begin.interactive, begin.key, begin.admitted) = (true, keyed("a", 1), admitted);
        })
    };
    let first = begin(&mut world, true);
    let parked = begin(&mut world, true);
    world.answer_lookups();
    let opening = begin(&mut world, true);
    world.sync();
    let active = begin(&mut world, false);
    for run in [first, parked, opening, active] {
        assert!(matches!(world.reply(run.token), Some(Reply::Begun(id)) if *id == first.id));
    }
    world.crash();
    let recovered = begin(&mut world, false);
    assert!(matches!(world.reply(recovered.token), Some(Reply::Begun(id)) if *id == first.id));
    world.settle();
    let ended = begin(&mut world, false);
    world.answer_lookups();
    assert!(matches!(world.reply(ended.token), Some(Reply::See(id)) if *id == first.id));
}

#[test]
fn a_transaction_locks_once_a_key() {
    let mut world = World::new();
    let (holder, id) = (world.begin(), world.begin());
    lock(&mut world, holder, "B", None);
    let first = lock(&mut world, id, "A", keyed("a", 1));
    let again = lock(&mut world, id, "A", keyed("a", 1));
    let token = |world: &World, call| match world.reply(call) {
        Some(Reply::Locked { owner, locks, .. }) => {
            assert_eq!(*owner, LockOwner::Transaction(id));
            locks[0].token
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(token(&world, first), token(&world, again));
    let other = lock(&mut world, id, "C", keyed("a", 2));
    assert!(matches!(world.reply(other), Some(Reply::Refused(Refused::KeyTaken(_)))));
    // One that waits is joined; whoever gives up leaves the others waiting.
    world.call(holder, Client::Rollback { at: dtc_core::AnswerAt::Decision, until: world.now });
    world.settle();
    let holder = world.begin();
    lock(&mut world, holder, "D", None);
    let young = world.begin();
    let waits = lock(&mut world, young, "D", keyed("d", 1));
    let joins = lock(&mut world, young, "D", keyed("d", 1));
    let rival = lock(&mut world, young, "D", keyed("d", 2));
    assert!(matches!(world.reply(rival), Some(Reply::Refused(Refused::KeyTaken(_)))));
    world.event(dtc_core::Event::Client { id: young, token: waits, call: Client::GiveUpLocking });
    assert!(world.reply(joins).is_none());
    let until = world.now + seconds(10);
    world.call(holder, Client::Rollback { at: dtc_core::AnswerAt::Decision, until });
    world.settle();
    assert!(matches!(world.reply(joins), Some(Reply::Locked { .. })), "{:?}", world.reply(joins));
}

fn session(world: &World, call: u64) -> Option<SessionId> {
    match world.reply(call) {
        Some(Reply::Locked { owner: LockOwner::Session(id), .. }) => Some(*id),
        _ => None,
    }
}

#[test]
fn a_key_begins_one_session() {
    let mut world = World::new();
    let (first, call) = acquire(&mut world, "A", keyed("a", 1));
    let (_, writing) = acquire(&mut world, "A", keyed("a", 1));
    world.sync();
    let (_, held) = acquire(&mut world, "A", keyed("a", 1));
    for call in [call, writing, held] {
        assert_eq!(session(&world, call), Some(first));
    }
    assert_eq!(world.coordinator.session_of(&"a".into()), Some(first));
    assert_eq!(world.coordinator.session_of(&"b".into()), None);
    assert_eq!(world.coordinator.lock_figures().held, 1);
    let (_, other) = acquire(&mut world, "B", keyed("a", 2));
    assert!(matches!(world.reply(other), Some(Reply::Refused(Refused::KeyTaken(_)))));
    world.crash();
    let (_, recovered) = acquire(&mut world, "A", keyed("a", 1));
    assert_eq!(session(&world, recovered), Some(first), "after a crash");

    // Its call is gone, and may be repeated: it stays for its lease.
    world.session(first, SessionCall::GiveUp);
    let (_, again) = acquire(&mut world, "A", keyed("a", 1));
    assert_eq!(session(&world, again), Some(first));
    for _ in 0..2 {
        let released = world.session(first, SessionCall::Release(Vec::new()));
        assert!(matches!(world.reply(released), Some(Reply::Released(1))));
    }
    let (_, late) = acquire(&mut world, "A", keyed("a", 1));
    let unknown = Refused::UnknownSession(first);
    assert!(matches!(world.reply(late), Some(Reply::Refused(it)) if *it == unknown));
    let (_, new) = acquire(&mut world, "A", keyed("b", 1));
    world.sync();
    assert!(session(&world, new).is_some(), "nobody holds it");
}

#[test]
fn a_session_that_was_granted_nothing_leaves_its_key_free() {
    let mut world = World::new();
    let (holder, _) = acquire(&mut world, "A", None);
    world.sync();
    let (_, waits) = acquire(&mut world, "A", keyed("a", 1));
    let (_, joins) = acquire(&mut world, "A", keyed("a", 1));
    world.advance(seconds(10));
    for call in [waits, joins] {
        let refused = world.reply(call);
        assert!(matches!(refused, Some(Reply::Refused(Refused::LockTimeout(_)))), "{refused:?}");
    }
    world.session(holder, SessionCall::Release(Vec::new()));
    let (second, call) = acquire(&mut world, "A", keyed("a", 1));
    world.sync();
    assert_eq!(session(&world, call), Some(second));
}

#[test]
fn a_session_whose_lease_has_run_out_is_not_begun_again() {
    let mut world = World::new();
    let (first, _) = acquire(&mut world, "A", keyed("a", 1));
    world.sync();
    world.advance(seconds(30));
    let (_, late) = acquire(&mut world, "A", keyed("a", 1));
    let unknown = Refused::UnknownSession(first);
    assert!(matches!(world.reply(late), Some(Reply::Refused(it)) if *it == unknown));
    assert_eq!(world.coordinator.lock_figures().held, 0);
}

#[test]
fn a_call_that_is_gone_leaves_its_repeats_waiting() {
    let mut world = World::new();
    let (holder, _) = acquire(&mut world, "A", None);
    world.sync();
    let (first, call) = acquire(&mut world, "A", keyed("a", 1));
    let (_, repeat) = acquire(&mut world, "A", keyed("a", 1));
    world.event(Event::Session { id: first, token: call, call: SessionCall::GiveUp });
    world.session(holder, SessionCall::Release(Vec::new()));
    world.sync();
    assert_eq!(session(&world, repeat), Some(first));
    assert!(world.reply(call).is_none());

    // With the last of them the wait ends, and the key is free.
    let (second, call) = acquire(&mut world, "A", keyed("b", 1));
    world.event(Event::Session { id: second, token: call, call: SessionCall::GiveUp });
    world.session(first, SessionCall::Release(Vec::new()));
    let (third, call) = acquire(&mut world, "A", keyed("b", 2));
    world.sync();
    assert_eq!(session(&world, call), Some(third));
}

#[test]
fn repeats_that_wait_are_bounded() {
    let mut world = World::new();
    acquire(&mut world, "A", None);
    let calls: Vec<u64> = (0..300).map(|_| acquire(&mut world, "A", keyed("a", 1)).1).collect();
    let waiting = calls.iter().filter(|call| world.reply(**call).is_none()).count();
    assert_eq!(waiting, 256);
    let refused = world.reply(calls[256]);
    assert!(matches!(refused, Some(Reply::Refused(Refused::WaitsForLocks))), "{refused:?}");
}
