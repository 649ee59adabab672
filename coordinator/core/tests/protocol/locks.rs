//! Locks: held before anything is sent, until nothing is owed to anybody.

use dtc_core::{
    Client, Event, HeldLock, LockOwner, Outcome, Refused, Reply, SessionCall, TrailKind,
    TransactionState,
};
use dtc_protocol::{SessionId, TransactionId};

use crate::{
    participant::{NO, YES},
    world::{P0, P1, P2, World, locks, seconds},
};

impl World {
    fn held(&self, key: &str) -> Vec<(LockOwner, u64)> {
        let all = self.coordinator.list_locks(key, None, None, 1);
        all.iter().flat_map(|view| &view.holders).map(|it| (it.owner, it.token)).collect()
    }

    fn holders(&self, key: &str) -> Vec<LockOwner> {
        self.held(key).into_iter().map(|(owner, _)| owner).collect()
    }

    fn locked(&self, token: u64) -> &[HeldLock] {
        match self.reply(token) {
            Some(Reply::Locked { locks, .. }) => locks,
            other => panic!("no locks: {other:?}"),
        }
    }

    fn refused(&self, token: u64) -> &Refused {
        match self.reply(token) {
            Some(Reply::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn prepares(&self, id: TransactionId) -> usize {
        self.flights.iter().filter(|flight| flight.id == id).count()
    }
}

fn owner(id: TransactionId) -> LockOwner {
    LockOwner::Transaction(id)
}

#[test]
fn nothing_is_sent_before_its_locks_are_held_and_that_is_durable() {
    let mut world = World::new();
    let first = world.execute_locked("A", &[P0, P1]);
    assert!(world.flights.is_empty(), "its locks are not durable");
    world.sync();
    assert_eq!(world.prepares(first.id), 2);
    let second = world.execute_locked("A", &[P0, P1]);
    world.sync();
    assert_eq!(world.prepares(second.id), 0);
    assert_eq!(world.look(second.id).state, TransactionState::Preparing);
    assert_eq!(world.count(second.id, TrailKind::LocksAwaited), 1);
    world.settle();
    assert_eq!(world.outcome(first), Outcome::Committed);
    assert_eq!(world.outcome(second), Outcome::Committed);
    assert!(world.holders("a").is_empty());
}

#[test]
fn shared_locks_let_transactions_run_together() {
    let mut world = World::new();
    let (first, second) = (world.execute_locked("a", &[P0, P1]), world.execute_locked("a", &[P0]));
    world.sync();
    assert_eq!((world.prepares(first.id), world.prepares(second.id)), (2, 1));
    assert_eq!(world.holders("a"), [owner(first.id), owner(second.id)]);
    world.heal();
}

#[test]
fn locks_are_released_only_after_all_have_acknowledged() {
    let mut world = World::new();
    let first = world.execute_locked("A", &[P0, P1]);
    world.sync();
    world.exchange();
    world.sync();
    assert_eq!(world.outcome(first), Outcome::Committed);
    let second = world.execute_locked("A", &[P0]);
    world.deliver_to(P0);
    world.hear_all();
    assert_eq!(world.holders("a"), [owner(first.id)], "one has not acknowledged");
    world.deliver_to(P1);
    world.hear_all();
    assert_eq!(world.holders("a"), [owner(second.id)]);
    world.heal();
    assert_eq!(world.outcome(second), Outcome::Committed);
}

#[test]
fn a_rollback_is_driven_to_the_end_where_locks_are_held() {
    let mut world = World::new();
    let first = world.execute_locked("A", &[P0, P1]);
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.disconnect(P0);
    world.roll_back(first.id);
    world.deliver_to(P1);
    world.hear_all();
    world.advance(seconds(3600));
    assert_eq!(world.holders("a"), [owner(first.id)], "a branch is still prepared");
    assert_eq!(world.count(first.id, TrailKind::LeftToAsk), 0);
    world.connect(P0);
    // Its answers are lost, however often it is asked.
    for _ in 0..50 {
        world.lose_all();
        world.advance(seconds(5));
    }
    assert_eq!(world.holders("a"), [owner(first.id)], "and still");
    while world.flights.is_empty() {
        world.advance(seconds(1));
    }
    world.exchange();
    assert!(world.is_rolled_back_at(P0, first.id));
    assert!(world.holders("a").is_empty());
}

#[test]
fn what_a_transaction_holds_it_holds_again_after_a_crash_in_every_state() {
    // Begun, decided, and decided to abort.
    for step in 0..3 {
        let mut world = World::new();
        world.cannot_ask(P0);
        let first = world.execute_locked("Ab", &[P0, P1]);
        let before = world.held("a");
        world.sync();
        match step {
            1 => world.exchange(),
            2 => drop(world.roll_back(first.id)),
            _ => {}
        }
        world.sync();
        world.lose_all();
        world.crash();
        assert_eq!(world.held("a"), before, "the same token, step {step}");
        assert_eq!(world.holders("b"), [owner(first.id)]);
        world.connect(P2);
        let second = world.execute_locked("A", &[P2]);
        world.sync();
        world.advance(seconds(5));
        world.crash();
        assert_eq!(world.held("a"), before);
        world.connect(P2);
        let third = world.execute_locked("A", &[P2]);
        world.heal();
        assert_eq!(world.outcome(third), Outcome::Committed);
        assert!(world.reply(second.token).is_none());
        assert_eq!(world.is_committed_at(P1, first.id), step == 1);
        let newer = world.journal.decision(third.id).expect("decided").locks[0].token;
        assert!(newer > before[0].1, "tokens grow over restarts");
    }
}

#[test]
fn a_wait_that_ends_aborts_with_the_key_and_who_holds_it() {
    let mut world = World::new();
    let first = world.execute_locked("A", &[P0, P1]);
    world.sync();
    world.deliver_all();
    world.answers.clear();
    let second = world.execute_with(&[(P0, YES)], |begin| {
        begin.locks = locks("A");
        begin.options.lock_wait = seconds(2);
    });
    world.advance(seconds(2));
    let reason = world.answer(second.token).reason.clone().expect("a reason");
    assert_eq!(reason.code, "LOCK_TIMEOUT");
    let by = format!("lock 'a' is held by {}", owner(first.id));
    assert!(reason.message.contains(&by), "{}", reason.message);
    assert_eq!(world.prepares(second.id), 0);
    world.heal();
    assert!(world.holders("a").is_empty());
}

#[test]
fn prepare_has_its_whole_time_after_a_long_wait() {
    let mut world = World::new();
    let (session, _) = world.acquire("A");
    world.sync();
    let run = world.execute_locked("A", &[P0, P1]);
    world.advance(seconds(9));
    world.session(session, SessionCall::Release(Vec::new()));
    world.sync();
    assert_eq!(world.prepares(run.id), 2);
    world.advance(seconds(4));
    world.heal();
    assert_eq!(world.outcome(run), Outcome::Committed);
}

#[test]
fn the_younger_of_two_that_wait_for_each_other_dies_and_its_retry_keeps_the_age() {
    let mut world = World::new();
    let (elder, younger) = (world.begin(), world.begin());
    let a = world.lock(elder, "A");
    let b = world.lock(younger, "B");
    assert_eq!((world.locked(a).len(), world.locked(b).len()), (1, 1));
    let waits = world.lock(elder, "B");
    let again = world.lock(elder, "C");
    assert_eq!(*world.refused(again), Refused::WaitsForLocks);
    assert!(world.reply(waits).is_none());
    let dies = world.lock(younger, "A");
    let Refused::Deadlock { blocked, first } = world.refused(dies) else { panic!("no deadlock") };
    assert_eq!((blocked.by, *first), (owner(elder), younger));
    // It is aborted, and what it held goes to the elder at once.
    assert_eq!(world.locked(waits).len(), 1);
    let token = world.commit(younger);
    world.sync();
    let reply = world.reply(token);
    assert!(matches!(reply, Some(Reply::NotHere | Reply::Transaction(_))), "{reply:?}");
    let decision = world.journal.decision(younger).expect("it is aborted");
    let reason = decision.reason.clone().expect("a reason");
    assert_eq!(reason.code, "DEADLOCK");
    assert!(reason.message.contains(&format!("retry_of = {younger}")), "{}", reason.message);

    // The retry is a new transaction with the age of the first, so older than this.
    let other = world.begin();
    let retry = world.execute_with(&[], |begin| {
        begin.interactive = true;
        begin.age = younger;
    });
    world.sync();
    let c = world.lock(other, "C");
    let d = world.lock(retry.id, "D");
    assert_eq!((world.locked(c).len(), world.locked(d).len()), (1, 1));
    let waits = world.lock(retry.id, "C");
    assert!(world.reply(waits).is_none(), "the elder may wait");
    let dies = world.lock(other, "D");
    assert!(matches!(world.refused(dies), Refused::Deadlock { .. }));
    assert_eq!(world.locked(waits).len(), 1);
}

#[test]
fn an_interactive_transaction_keeps_its_locks_until_its_end() {
    let mut world = World::new();
    let id = world.begin();
    let token = world.lock(id, "A");
    let held = world.locked(token).to_vec();
    world.enlist(id, P0);
    world.enlist(id, P1);
    world.prepare(id);
    world.sync();
    assert_eq!(world.journal.begin(id).expect("a begin record").locks, held);
    let late = world.lock(id, "B");
    assert!(matches!(world.refused(late), Refused::WrongState { call: "acquire", .. }));
    world.exchange();
    world.commit(id);
    world.sync();
    assert_eq!(world.journal.decision(id).expect("a decision").locks, held);
    assert_eq!(world.holders("a"), [owner(id)]);
    world.heal();
    assert!(world.holders("a").is_empty());
}

#[test]
fn a_client_that_waits_for_locks_is_not_silent_and_one_that_is_gone_leaves_nothing() {
    let mut world = World::new();
    let (holder, waiter) = (world.begin(), world.begin());
    world.lock(holder, "A");
    let until = world.now + seconds(3600);
    world.call(waiter, Client::Lock { locks: Some(locks("A")), key: None, until });
    world.advance(seconds(10));
    world.enlist(waiter, P0);
    world.advance(seconds(40));
    world.enlist(holder, P0);
    // The holder's idle limit ends it; the waiter's begins then.
    world.advance(seconds(60));
    assert_eq!(world.holders("a"), [owner(waiter)]);
    world.advance(seconds(59));
    assert_eq!(world.holders("a"), [owner(waiter)]);
    world.advance(seconds(1));
    assert!(world.holders("a").is_empty());

    let (holder, gone, next) = (world.begin(), world.begin(), world.begin());
    world.lock(holder, "A");
    let lost = world.lock(gone, "A");
    let token = world.lock(next, "A");
    // Another call's end is not this one's.
    world.call(gone, Client::GiveUpLocking);
    world.event(Event::Client { id: gone, token: lost, call: Client::GiveUpLocking });
    world.roll_back(holder);
    assert_eq!(world.locked(token).len(), 1);
    assert!(world.reply(lost).is_none());
}

#[test]
fn a_rollback_ends_the_wait_for_locks() {
    let mut world = World::new();
    let (holder, waiter) = (world.begin(), world.begin());
    world.lock(holder, "A");
    let token = world.lock(waiter, "A");
    world.roll_back(waiter);
    assert!(matches!(world.refused(token), Refused::WrongState { .. }));
    let run = world.execute_locked("A", &[P0]);
    let token = world.roll_back(run.id);
    assert_eq!(world.answer(token).outcome, Outcome::Aborted);
    world.roll_back(holder);
    assert!(world.holders("a").is_empty());
}

#[test]
fn an_announced_transaction_is_known_while_it_waits_for_locks() {
    let mut world = World::new();
    let (_, granted) = world.acquire("A");
    world.sync();
    world.locked(granted);
    let run = world.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.locks = locks("A");
        begin.announced = true;
        begin.waiter.at = dtc_core::AnswerAt::Begun;
    });
    assert!(world.reply(run.token).is_none());
    world.sync();
    assert_eq!(world.answer(run.token).state, TransactionState::Preparing);
    world.crash();
    let token = world.commit(run.id);
    assert_eq!(world.answer(token).outcome, Outcome::Aborted);
}

#[test]
fn a_session_is_told_of_a_grant_when_that_is_durable() {
    let mut world = World::new();
    let (_, token) = world.acquire("A");
    assert!(world.reply(token).is_none(), "told, and not durable");
    assert_eq!(world.forced, Some(true));
    world.sync();
    assert_eq!(world.locked(token).len(), 1);
}

#[test]
fn a_session_holds_its_locks_for_its_lease_and_longer_if_it_is_renewed() {
    let mut world = World::new();
    let (id, _) = world.acquire("A");
    world.sync();
    for _ in 0..3 {
        world.advance(seconds(29));
        let token = world.session(id, SessionCall::Renew);
        assert_eq!(world.locked(token).len(), 1);
    }
    world.advance(seconds(25));
    let (_, next) = world.acquire("A");
    world.advance(seconds(4));
    assert_eq!(world.holders("a"), [LockOwner::Session(id)]);
    world.advance(seconds(1));
    world.sync();
    assert_eq!(world.locked(next).len(), 1);
    let late = world.session(id, SessionCall::Renew);
    assert_eq!(*world.refused(late), Refused::UnknownSession(id));
    let late = world.session(id, SessionCall::Release(Vec::new()));
    assert_eq!(*world.refused(late), Refused::UnknownSession(id));
}

#[test]
fn a_session_holds_again_after_a_crash_for_a_whole_lease() {
    let mut world = World::new();
    let (id, token) = world.acquire("Ab");
    world.sync();
    let held = world.locked(token).to_vec();
    // One that nobody was told of.
    world.acquire("C");
    world.advance(seconds(29));
    world.crash();
    assert!(world.holders("c").is_empty());
    world.advance(seconds(29));
    let token = world.session(id, SessionCall::Renew);
    assert_eq!(world.locked(token), held);
    world.session(id, SessionCall::Release(vec!["b".into()]));
    world.sync();
    world.crash();
    assert!(world.holders("b").is_empty());
    assert_eq!(world.held("a"), [(LockOwner::Session(id), held[0].token)]);
    world.advance(seconds(30));
    world.sync();
    world.crash();
    assert!(world.holders("a").is_empty());
}

#[test]
fn a_session_that_waits_ends_in_time_and_one_that_is_gone_at_once() {
    let mut world = World::new();
    let (holder, _) = world.acquire("A");
    world.sync();
    let (_, late) = world.acquire("A");
    let (gone, lost) = world.acquire("A");
    let until = world.now + seconds(100);
    let patient = world.begin();
    let token = world.call(patient, Client::Lock { locks: Some(locks("A")), key: None, until });
    world.session(gone, SessionCall::GiveUp);
    world.advance(seconds(10));
    let Refused::LockTimeout(message) = world.refused(late) else { panic!("no timeout") };
    assert!(message.contains(&LockOwner::Session(holder).to_string()), "{message}");
    let released = world.session(holder, SessionCall::Release(Vec::new()));
    assert!(matches!(world.reply(released), Some(Reply::Released(1))));
    assert_eq!(world.locked(token).len(), 1);
    assert!(world.reply(lost).is_none());
    // Whoever is granted it first writes so after the release.
    world.sync();
    assert!(world.journal.sessions.is_empty());
}

#[test]
fn locks_stay_while_another_journal_answers_than_the_one_that_voted() {
    let mut world = World::new();
    let run = world.execute_with(&[(P0, YES), (P1, NO)], |begin| begin.locks = locks("A"));
    world.sync();
    world.deliver_to(P0);
    world.hear_all();
    world.participant(P0).lose_disk();
    world.connect(P0);
    for _ in 0..10 {
        world.exchange();
        world.sync();
        world.advance(seconds(6));
    }
    assert_eq!(world.look(run.id).state, TransactionState::Aborting);
    assert_eq!(world.holders("a"), [owner(run.id)]);
}

#[test]
fn the_end_of_one_call_does_not_end_the_wait_of_another() {
    let mut world = World::new();
    let (holder, waiter) = (world.begin(), world.begin());
    world.lock(holder, "A");
    let waiting = world.lock(waiter, "A");
    let second = world.lock(waiter, "B");
    assert!(matches!(world.refused(second), Refused::WaitsForLocks));
    world.event(Event::Client { id: waiter, token: second, call: Client::GiveUpLocking });
    world.roll_back(holder);
    assert_eq!(world.locked(waiting).len(), 1);
}

#[test]
fn locks_that_are_asked_for_again_and_again_do_not_make_the_trail_grow() {
    let mut world = World::new();
    let id = world.begin();
    for _ in 0..100 {
        world.lock(id, "A");
    }
    assert!(world.look(id).trail.len() < 10, "{:?}", world.look(id).trail);
}

#[test]
fn a_session_may_release_some_of_its_locks() {
    let mut world = World::new();
    let (id, _) = world.acquire("ABC");
    world.sync();
    let release = |world: &mut World, keys: &str| {
        let keys = locks(keys).into_iter().map(|(key, _)| key).collect();
        let token = world.session(id, SessionCall::Release(keys));
        match world.reply(token) {
            Some(Reply::Released(count)) => *count,
            other => panic!("not released: {other:?}"),
        }
    };
    assert_eq!(release(&mut world, "D"), 0);
    assert!(world.journal.pending_sessions.is_empty(), "nothing has changed");
    assert_eq!(release(&mut world, "AD"), 1);
    assert!(world.holders("a").is_empty());
    world.sync();
    world.crash();
    assert!(world.holders("a").is_empty(), "after a crash too");
    assert_eq!(world.holders("b"), [LockOwner::Session(id)]);
    assert_eq!(release(&mut world, "BC"), 2);
    assert!(world.holders("b").is_empty());
}

#[test]
fn a_lease_runs_out_after_many_others_have_come_and_gone() {
    let mut world = World::new();
    let (id, _) = world.acquire("A");
    world.sync();
    for _ in 0..5000 {
        let (other, _) = world.acquire("B");
        world.sync();
        world.session(other, SessionCall::Release(Vec::new()));
    }
    assert_eq!(world.holders("a"), [LockOwner::Session(id)]);
    world.advance(seconds(30));
    assert!(world.holders("a").is_empty());
}

#[test]
fn a_lease_that_is_shorter_than_the_wait_before_it_runs_out_in_time() {
    let mut world = World::new();
    let (holder, _) = world.acquire("A");
    world.sync();
    let bytes = u128::from(world.next_number()).to_be_bytes();
    let (id, age) = (SessionId::from_bytes(bytes), TransactionId::from_bytes(bytes));
    let (lease, until) = (seconds(2), world.now + seconds(25));
    let call = SessionCall::Acquire { age, locks: Some(locks("A")), key: None, lease, until };
    world.session(id, call);
    world.session(holder, SessionCall::Release(Vec::new()));
    world.sync();
    assert_eq!(world.holders("a"), [LockOwner::Session(id)]);
    world.advance(seconds(2));
    assert!(world.holders("a").is_empty());
}
