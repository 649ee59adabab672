//! Calls with keys of their own: an answer that was lost is the answer of the repeat.

use dtc_core::{CallKey, Client, Config, Event, LockOwner, Outcome, Refused, Reply, SessionCall};

use crate::{
    environment::{Environment, P0, branch, keyed, locks, seconds},
    participant::YES,
};
use dtc_protocol::{SessionId, TransactionId};

fn enlist(
    environment: &mut Environment,
    id: TransactionId,
    key: Option<CallKey>,
    admitted: bool,
) -> u64 {
    let branch = admitted.then(|| branch(P0, YES));
    environment.call(id, Client::Enlist { branch, key })
}

fn lock(environment: &mut Environment, id: TransactionId, keys: &str, key: Option<CallKey>) -> u64 {
    let until = environment.now + seconds(10);
    environment.call(id, Client::Lock { locks: Some(locks(keys)), key, until })
}

/// A call for a new session.
fn acquire(environment: &mut Environment, keys: &str, key: Option<CallKey>) -> (SessionId, u64) {
    let number = environment.acquire_with(keys, key);
    (SessionId::from_bytes(u128::from(number).to_be_bytes()), number)
}

#[test]
fn a_branch_is_enlisted_once_a_key() {
    let mut environment = Environment::new();
    let id = environment.begin();
    let first = enlist(&mut environment, id, keyed("a", 1), true);
    let second = enlist(&mut environment, id, keyed("b", 1), true);
    for (token, number) in [(first, 0), (second, 1)] {
        assert!(matches!(environment.reply(token), Some(Reply::Enlisted(it)) if *it == number));
    }
    for admitted in [true, false] {
        let again = enlist(&mut environment, id, keyed("a", 1), admitted);
        assert!(
            matches!(environment.reply(again), Some(Reply::Enlisted(0))),
            "admitted: {admitted}"
        );
        let other = enlist(&mut environment, id, keyed("a", 2), admitted);
        assert!(matches!(environment.reply(other), Some(Reply::Refused(Refused::KeyTaken(_)))));
    }
    let new = enlist(&mut environment, id, keyed("c", 1), false);
    assert!(matches!(environment.reply(new), Some(Reply::NoRepeat)));
    assert_eq!(environment.look(id).branches.len(), 2);

    // Whatever state it is in: what was enlisted is.
    let token = environment.commit(id);
    for round in 0..3 {
        let again = enlist(&mut environment, id, keyed("b", 1), true);
        assert!(matches!(environment.reply(again), Some(Reply::Enlisted(1))), "round {round}");
        let late = enlist(&mut environment, id, keyed("late", 1), true);
        assert!(matches!(
            environment.reply(late),
            Some(Reply::Refused(Refused::WrongState { .. }))
        ));
        match round {
            0 => environment.sync(),
            _ => {
                environment.lose_all();
                environment.crash();
            }
        }
        if round == 0 {
            environment.exchange();
            environment.sync();
            assert_eq!(environment.answer(token).outcome, Outcome::Committed);
        }
    }
}

#[test]
fn a_branch_is_enlisted_once_where_a_repeat_needs_room() {
    let mut environment = Environment::with(Config { max_per_participant: 1, ..Config::default() });
    let id = environment.begin();
    enlist(&mut environment, id, keyed("a", 1), true);
    let again = enlist(&mut environment, id, keyed("a", 1), true);
    assert!(matches!(environment.reply(again), Some(Reply::Enlisted(0))));
    let new = enlist(&mut environment, id, keyed("b", 1), true);
    assert!(matches!(environment.reply(new), Some(Reply::Refused(_))));
}

#[test]
fn a_transaction_is_begun_once_a_key() {
    let mut environment = Environment::new();
    let begin = |environment: &mut Environment, admitted: bool| {
        environment.execute_with(&[], |begin| {
            (begin.interactive, begin.key, begin.admitted) = (true, keyed("a", 1), admitted);
        })
    };
    let first = begin(&mut environment, true);
    let parked = begin(&mut environment, true);
    environment.answer_lookups();
    let opening = begin(&mut environment, true);
    environment.sync();
    let active = begin(&mut environment, false);
    for run in [first, parked, opening, active] {
        assert!(matches!(environment.reply(run.token), Some(Reply::Begun(id)) if *id == first.id));
    }
    environment.crash();
    let recovered = begin(&mut environment, false);
    assert!(
        matches!(environment.reply(recovered.token), Some(Reply::Begun(id)) if *id == first.id)
    );
    environment.settle();
    let ended = begin(&mut environment, false);
    environment.answer_lookups();
    assert!(matches!(environment.reply(ended.token), Some(Reply::See(id)) if *id == first.id));
}

#[test]
fn a_transaction_locks_once_a_key() {
    let mut environment = Environment::new();
    let (holder, id) = (environment.begin(), environment.begin());
    lock(&mut environment, holder, "B", None);
    let first = lock(&mut environment, id, "A", keyed("a", 1));
    let again = lock(&mut environment, id, "A", keyed("a", 1));
    let token = |environment: &Environment, call| match environment.reply(call) {
        Some(Reply::Locked { owner, locks, .. }) => {
            assert_eq!(*owner, LockOwner::Transaction(id));
            locks[0].token
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(token(&environment, first), token(&environment, again));
    let other = lock(&mut environment, id, "C", keyed("a", 2));
    assert!(matches!(environment.reply(other), Some(Reply::Refused(Refused::KeyTaken(_)))));
    // One that waits is joined; whoever gives up leaves the others waiting.
    environment.call(
        holder,
        Client::Rollback { at: dtc_core::AnswerAt::Decision, until: environment.now },
    );
    environment.settle();
    let holder = environment.begin();
    lock(&mut environment, holder, "D", None);
    let young = environment.begin();
    let waits = lock(&mut environment, young, "D", keyed("d", 1));
    let joins = lock(&mut environment, young, "D", keyed("d", 1));
    let rival = lock(&mut environment, young, "D", keyed("d", 2));
    assert!(matches!(environment.reply(rival), Some(Reply::Refused(Refused::KeyTaken(_)))));
    environment.event(dtc_core::Event::Client {
        id: young,
        token: waits,
        call: Client::GiveUpLocking,
    });
    assert!(environment.reply(joins).is_none());
    let until = environment.now + seconds(10);
    environment.call(holder, Client::Rollback { at: dtc_core::AnswerAt::Decision, until });
    environment.settle();
    assert!(
        matches!(environment.reply(joins), Some(Reply::Locked { .. })),
        "{:?}",
        environment.reply(joins)
    );
}

fn session(environment: &Environment, call: u64) -> Option<SessionId> {
    match environment.reply(call) {
        Some(Reply::Locked { owner: LockOwner::Session(id), .. }) => Some(*id),
        _ => None,
    }
}

#[test]
fn a_key_begins_one_session() {
    let mut environment = Environment::new();
    let (first, call) = acquire(&mut environment, "A", keyed("a", 1));
    let (_, writing) = acquire(&mut environment, "A", keyed("a", 1));
    environment.sync();
    let (_, held) = acquire(&mut environment, "A", keyed("a", 1));
    for call in [call, writing, held] {
        assert_eq!(session(&environment, call), Some(first));
    }
    assert_eq!(environment.coordinator.session_of(&"a".into()), Some(first));
    assert_eq!(environment.coordinator.session_of(&"b".into()), None);
    assert_eq!(environment.coordinator.lock_figures().held, 1);
    let (_, other) = acquire(&mut environment, "B", keyed("a", 2));
    assert!(matches!(environment.reply(other), Some(Reply::Refused(Refused::KeyTaken(_)))));
    environment.crash();
    let (_, recovered) = acquire(&mut environment, "A", keyed("a", 1));
    assert_eq!(session(&environment, recovered), Some(first), "after a crash");

    // Its call is gone, and may be repeated: it stays for its lease.
    environment.session(first, SessionCall::GiveUp);
    let (_, again) = acquire(&mut environment, "A", keyed("a", 1));
    assert_eq!(session(&environment, again), Some(first));
    for _ in 0..2 {
        let released = environment.session(first, SessionCall::Release(Vec::new()));
        assert!(matches!(environment.reply(released), Some(Reply::Released(1))));
    }
    let (_, late) = acquire(&mut environment, "A", keyed("a", 1));
    let unknown = Refused::UnknownSession(first);
    assert!(matches!(environment.reply(late), Some(Reply::Refused(it)) if *it == unknown));
    let (_, new) = acquire(&mut environment, "A", keyed("b", 1));
    environment.sync();
    assert!(session(&environment, new).is_some(), "nobody holds it");
}

#[test]
fn a_session_that_was_granted_nothing_leaves_its_key_free() {
    let mut environment = Environment::new();
    let (holder, _) = acquire(&mut environment, "A", None);
    environment.sync();
    let (_, waits) = acquire(&mut environment, "A", keyed("a", 1));
    let (_, joins) = acquire(&mut environment, "A", keyed("a", 1));
    environment.advance(seconds(10));
    for call in [waits, joins] {
        let refused = environment.reply(call);
        assert!(matches!(refused, Some(Reply::Refused(Refused::LockTimeout(_)))), "{refused:?}");
    }
    environment.session(holder, SessionCall::Release(Vec::new()));
    let (second, call) = acquire(&mut environment, "A", keyed("a", 1));
    environment.sync();
    assert_eq!(session(&environment, call), Some(second));
}

#[test]
fn a_session_whose_lease_has_run_out_is_not_begun_again() {
    let mut environment = Environment::new();
    let (first, _) = acquire(&mut environment, "A", keyed("a", 1));
    environment.sync();
    environment.advance(seconds(30));
    let (_, late) = acquire(&mut environment, "A", keyed("a", 1));
    let unknown = Refused::UnknownSession(first);
    assert!(matches!(environment.reply(late), Some(Reply::Refused(it)) if *it == unknown));
    assert_eq!(environment.coordinator.lock_figures().held, 0);
}

#[test]
fn a_call_that_is_gone_leaves_its_repeats_waiting() {
    let mut environment = Environment::new();
    let (holder, _) = acquire(&mut environment, "A", None);
    environment.sync();
    let (first, call) = acquire(&mut environment, "A", keyed("a", 1));
    let (_, repeat) = acquire(&mut environment, "A", keyed("a", 1));
    environment.event(Event::Session { id: first, token: call, call: SessionCall::GiveUp });
    environment.session(holder, SessionCall::Release(Vec::new()));
    environment.sync();
    assert_eq!(session(&environment, repeat), Some(first));
    assert!(environment.reply(call).is_none());

    // With the last of them the wait ends, and the key is free.
    let (second, call) = acquire(&mut environment, "A", keyed("b", 1));
    environment.event(Event::Session { id: second, token: call, call: SessionCall::GiveUp });
    environment.session(first, SessionCall::Release(Vec::new()));
    let (third, call) = acquire(&mut environment, "A", keyed("b", 2));
    environment.sync();
    assert_eq!(session(&environment, call), Some(third));
}

#[test]
fn repeats_that_wait_are_bounded() {
    let mut environment = Environment::new();
    acquire(&mut environment, "A", None);
    let calls: Vec<u64> =
        (0..300).map(|_| acquire(&mut environment, "A", keyed("a", 1)).1).collect();
    let waiting = calls.iter().filter(|call| environment.reply(**call).is_none()).count();
    assert_eq!(waiting, 256);
    let refused = environment.reply(calls[256]);
    assert!(matches!(refused, Some(Reply::Refused(Refused::WaitsForLocks))), "{refused:?}");
}
