//! Locks: held before anything is sent, until nothing is owed to anybody.

use dtc_core::{
    Client, Event, HeldLock, LockOwner, Outcome, Refused, Reply, SessionCall, TrailKind,
    TransactionState,
};
use dtc_protocol::{SessionId, TransactionId};

use crate::{
    environment::{Environment, P0, P1, P2, locks, seconds},
    participant::{NO, YES},
};

impl Environment {
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
    let mut environment = Environment::new();
    let first = environment.execute_locked("A", &[P0, P1]);
    assert!(environment.flights.is_empty(), "its locks are not durable");
    environment.sync();
    assert_eq!(environment.prepares(first.id), 2);
    let second = environment.execute_locked("A", &[P0, P1]);
    environment.sync();
    assert_eq!(environment.prepares(second.id), 0);
    assert_eq!(environment.look(second.id).state, TransactionState::Preparing);
    assert_eq!(environment.count(second.id, TrailKind::LocksAwaited), 1);
    environment.settle();
    assert_eq!(environment.outcome(first), Outcome::Committed);
    assert_eq!(environment.outcome(second), Outcome::Committed);
    assert!(environment.holders("a").is_empty());
}

#[test]
fn shared_locks_let_transactions_run_together() {
    let mut environment = Environment::new();
    let (first, second) =
        (environment.execute_locked("a", &[P0, P1]), environment.execute_locked("a", &[P0]));
    environment.sync();
    assert_eq!((environment.prepares(first.id), environment.prepares(second.id)), (2, 1));
    assert_eq!(environment.holders("a"), [owner(first.id), owner(second.id)]);
    environment.heal();
}

#[test]
fn locks_are_released_only_after_all_have_acknowledged() {
    let mut environment = Environment::new();
    let first = environment.execute_locked("A", &[P0, P1]);
    environment.sync();
    environment.exchange();
    environment.sync();
    assert_eq!(environment.outcome(first), Outcome::Committed);
    let second = environment.execute_locked("A", &[P0]);
    environment.deliver_to(P0);
    environment.hear_all();
    assert_eq!(environment.holders("a"), [owner(first.id)], "one has not acknowledged");
    environment.deliver_to(P1);
    environment.hear_all();
    assert_eq!(environment.holders("a"), [owner(second.id)]);
    environment.heal();
    assert_eq!(environment.outcome(second), Outcome::Committed);
}

#[test]
fn a_rollback_is_driven_to_the_end_where_locks_are_held() {
    let mut environment = Environment::new();
    let first = environment.execute_locked("A", &[P0, P1]);
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.disconnect(P0);
    environment.roll_back(first.id);
    environment.deliver_to(P1);
    environment.hear_all();
    environment.advance(seconds(3600));
    assert_eq!(environment.holders("a"), [owner(first.id)], "a branch is still prepared");
    assert_eq!(environment.count(first.id, TrailKind::RollbackUnacknowledged), 0);
    environment.connect(P0);
    // Its answers are lost, however often it is asked.
    for _ in 0..50 {
        environment.lose_all();
        environment.advance(seconds(5));
    }
    assert_eq!(environment.holders("a"), [owner(first.id)], "and still");
    while environment.flights.is_empty() {
        environment.advance(seconds(1));
    }
    environment.exchange();
    assert!(environment.is_rolled_back_at(P0, first.id));
    assert!(environment.holders("a").is_empty());
}

#[test]
fn what_a_transaction_holds_it_holds_again_after_a_crash_in_every_state() {
    // Begun, decided, and decided to abort.
    for step in 0..3 {
        let mut environment = Environment::new();
        environment.cannot_ask(P0);
        let first = environment.execute_locked("Ab", &[P0, P1]);
        let before = environment.held("a");
        environment.sync();
        match step {
            1 => environment.exchange(),
            2 => drop(environment.roll_back(first.id)),
            _ => {}
        }
        environment.sync();
        environment.lose_all();
        environment.crash();
        assert_eq!(environment.held("a"), before, "the same token, step {step}");
        assert_eq!(environment.holders("b"), [owner(first.id)]);
        environment.connect(P2);
        let second = environment.execute_locked("A", &[P2]);
        environment.sync();
        environment.advance(seconds(5));
        environment.crash();
        assert_eq!(environment.held("a"), before);
        environment.connect(P2);
        let third = environment.execute_locked("A", &[P2]);
        environment.heal();
        assert_eq!(environment.outcome(third), Outcome::Committed);
        assert!(environment.reply(second.token).is_none());
        assert_eq!(environment.is_committed_at(P1, first.id), step == 1);
        let newer = environment.journal.decision(third.id).expect("decided").locks[0].token;
        assert!(newer > before[0].1, "tokens grow over restarts");
    }
}

#[test]
fn a_wait_that_ends_aborts_with_the_key_and_who_holds_it() {
    let mut environment = Environment::new();
    let first = environment.execute_locked("A", &[P0, P1]);
    environment.sync();
    environment.deliver_all();
    environment.answers.clear();
    let second = environment.execute_with(&[(P0, YES)], |begin| {
        begin.locks = locks("A");
        begin.options.lock_wait = seconds(2);
    });
    environment.advance(seconds(2));
    let reason = environment.answer(second.token).reason.clone().expect("a reason");
    assert_eq!(reason.code, "LOCK_TIMEOUT");
    let by = format!("lock 'a' is held by {}", owner(first.id));
    assert!(reason.message.contains(&by), "{}", reason.message);
    assert_eq!(environment.prepares(second.id), 0);
    environment.heal();
    assert!(environment.holders("a").is_empty());
}

#[test]
fn prepare_has_its_whole_time_after_a_long_wait() {
    let mut environment = Environment::new();
    let (session, _) = environment.acquire("A");
    environment.sync();
    let run = environment.execute_locked("A", &[P0, P1]);
    environment.advance(seconds(9));
    environment.session(session, SessionCall::Release(Vec::new()));
    environment.sync();
    assert_eq!(environment.prepares(run.id), 2);
    environment.advance(seconds(4));
    environment.heal();
    assert_eq!(environment.outcome(run), Outcome::Committed);
}

#[test]
fn the_younger_of_two_that_wait_for_each_other_dies_and_its_retry_keeps_the_age() {
    let mut environment = Environment::new();
    let (elder, younger) = (environment.begin(), environment.begin());
    let a = environment.lock(elder, "A");
    let b = environment.lock(younger, "B");
    assert_eq!((environment.locked(a).len(), environment.locked(b).len()), (1, 1));
    let waits = environment.lock(elder, "B");
    let again = environment.lock(elder, "C");
    assert_eq!(*environment.refused(again), Refused::WaitsForLocks);
    assert!(environment.reply(waits).is_none());
    let dies = environment.lock(younger, "A");
    let Refused::Deadlock { blocked, first } = environment.refused(dies) else {
        panic!("no deadlock")
    };
    assert_eq!((blocked.by, *first), (owner(elder), younger));
    // It is aborted, and what it held goes to the elder at once.
    assert_eq!(environment.locked(waits).len(), 1);
    let token = environment.commit(younger);
    environment.sync();
    let reply = environment.reply(token);
    assert!(matches!(reply, Some(Reply::NotHere | Reply::Transaction(_))), "{reply:?}");
    let decision = environment.journal.decision(younger).expect("it is aborted");
    let reason = decision.reason.clone().expect("a reason");
    assert_eq!(reason.code, "DEADLOCK");
    assert!(reason.message.contains(&format!("retry_of = {younger}")), "{}", reason.message);

    // The retry is a new transaction with the age of the first, so older than this.
    let other = environment.begin();
    let retry = environment.execute_with(&[], |begin| {
        begin.interactive = true;
        begin.age = younger;
    });
    environment.sync();
    let c = environment.lock(other, "C");
    let d = environment.lock(retry.id, "D");
    assert_eq!((environment.locked(c).len(), environment.locked(d).len()), (1, 1));
    let waits = environment.lock(retry.id, "C");
    assert!(environment.reply(waits).is_none(), "the elder may wait");
    let dies = environment.lock(other, "D");
    assert!(matches!(environment.refused(dies), Refused::Deadlock { .. }));
    assert_eq!(environment.locked(waits).len(), 1);
}

#[test]
fn an_interactive_transaction_keeps_its_locks_until_its_end() {
    let mut environment = Environment::new();
    let id = environment.begin();
    let token = environment.lock(id, "A");
    let held = environment.locked(token).to_vec();
    environment.enlist(id, P0);
    environment.enlist(id, P1);
    environment.prepare(id);
    environment.sync();
    assert_eq!(environment.journal.begin(id).expect("a begin record").locks, held);
    let late = environment.lock(id, "B");
    assert!(matches!(environment.refused(late), Refused::WrongState { call: "acquire", .. }));
    environment.exchange();
    environment.commit(id);
    environment.sync();
    assert_eq!(environment.journal.decision(id).expect("a decision").locks, held);
    assert_eq!(environment.holders("a"), [owner(id)]);
    environment.heal();
    assert!(environment.holders("a").is_empty());
}

#[test]
fn a_client_that_waits_for_locks_is_not_silent_and_one_that_is_gone_leaves_nothing() {
    let mut environment = Environment::new();
    let (holder, waiter) = (environment.begin(), environment.begin());
    environment.lock(holder, "A");
    let until = environment.now + seconds(3600);
    environment.call(waiter, Client::Lock { locks: Some(locks("A")), key: None, until });
    environment.advance(seconds(10));
    environment.enlist(waiter, P0);
    environment.advance(seconds(40));
    environment.enlist(holder, P0);
    // The holder's idle limit ends it; the waiter's begins then.
    environment.advance(seconds(60));
    assert_eq!(environment.holders("a"), [owner(waiter)]);
    environment.advance(seconds(59));
    assert_eq!(environment.holders("a"), [owner(waiter)]);
    environment.advance(seconds(1));
    assert!(environment.holders("a").is_empty());

    let (holder, gone, next) = (environment.begin(), environment.begin(), environment.begin());
    environment.lock(holder, "A");
    let lost = environment.lock(gone, "A");
    let token = environment.lock(next, "A");
    // Another call's end is not this one's.
    environment.call(gone, Client::GiveUpLocking);
    environment.event(Event::Client { id: gone, token: lost, call: Client::GiveUpLocking });
    environment.roll_back(holder);
    assert_eq!(environment.locked(token).len(), 1);
    assert!(environment.reply(lost).is_none());
}

#[test]
fn a_rollback_ends_the_wait_for_locks() {
    let mut environment = Environment::new();
    let (holder, waiter) = (environment.begin(), environment.begin());
    environment.lock(holder, "A");
    let token = environment.lock(waiter, "A");
    environment.roll_back(waiter);
    assert!(matches!(environment.refused(token), Refused::WrongState { .. }));
    let run = environment.execute_locked("A", &[P0]);
    let token = environment.roll_back(run.id);
    assert_eq!(environment.answer(token).outcome, Outcome::Aborted);
    environment.roll_back(holder);
    assert!(environment.holders("a").is_empty());
}

#[test]
fn an_announced_transaction_is_known_while_it_waits_for_locks() {
    let mut environment = Environment::new();
    let (_, granted) = environment.acquire("A");
    environment.sync();
    environment.locked(granted);
    let run = environment.execute_with(&[(P0, YES), (P1, YES)], |begin| {
        begin.locks = locks("A");
        begin.id_may_be_known = true;
        begin.waiter.at = dtc_core::AnswerAt::Begun;
    });
    assert!(environment.reply(run.token).is_none());
    environment.sync();
    assert_eq!(environment.answer(run.token).state, TransactionState::Preparing);
    environment.crash();
    let token = environment.commit(run.id);
    assert_eq!(environment.answer(token).outcome, Outcome::Aborted);
}

#[test]
fn a_session_is_told_of_a_grant_when_that_is_durable() {
    let mut environment = Environment::new();
    let (_, token) = environment.acquire("A");
    assert!(environment.reply(token).is_none(), "told, and not durable");
    assert_eq!(environment.sync, Some(true));
    environment.sync();
    assert_eq!(environment.locked(token).len(), 1);
}

#[test]
fn a_session_holds_its_locks_for_its_lease_and_longer_if_it_is_renewed() {
    let mut environment = Environment::new();
    let (id, _) = environment.acquire("A");
    environment.sync();
    for _ in 0..3 {
        environment.advance(seconds(29));
        let token = environment.session(id, SessionCall::Renew);
        assert_eq!(environment.locked(token).len(), 1);
    }
    environment.advance(seconds(25));
    let (_, next) = environment.acquire("A");
    environment.advance(seconds(4));
    assert_eq!(environment.holders("a"), [LockOwner::Session(id)]);
    environment.advance(seconds(1));
    environment.sync();
    assert_eq!(environment.locked(next).len(), 1);
    let late = environment.session(id, SessionCall::Renew);
    assert_eq!(*environment.refused(late), Refused::UnknownSession(id));
    let late = environment.session(id, SessionCall::Release(Vec::new()));
    assert_eq!(*environment.refused(late), Refused::UnknownSession(id));
}

#[test]
fn a_session_holds_again_after_a_crash_for_a_whole_lease() {
    let mut environment = Environment::new();
    let (id, token) = environment.acquire("Ab");
    environment.sync();
    let held = environment.locked(token).to_vec();
    // One that nobody was told of.
    environment.acquire("C");
    environment.advance(seconds(29));
    environment.crash();
    assert!(environment.holders("c").is_empty());
    environment.advance(seconds(29));
    let token = environment.session(id, SessionCall::Renew);
    assert_eq!(environment.locked(token), held);
    environment.session(id, SessionCall::Release(vec!["b".into()]));
    environment.sync();
    environment.crash();
    assert!(environment.holders("b").is_empty());
    assert_eq!(environment.held("a"), [(LockOwner::Session(id), held[0].token)]);
    environment.advance(seconds(30));
    environment.sync();
    environment.crash();
    assert!(environment.holders("a").is_empty());
}

#[test]
fn a_session_that_waits_ends_in_time_and_one_that_is_gone_at_once() {
    let mut environment = Environment::new();
    let (holder, _) = environment.acquire("A");
    environment.sync();
    let (_, late) = environment.acquire("A");
    let (gone, lost) = environment.acquire("A");
    let until = environment.now + seconds(100);
    let patient = environment.begin();
    let token =
        environment.call(patient, Client::Lock { locks: Some(locks("A")), key: None, until });
    environment.session(gone, SessionCall::GiveUp);
    environment.advance(seconds(10));
    let Refused::LockTimeout(message) = environment.refused(late) else { panic!("no timeout") };
    assert!(message.contains(&LockOwner::Session(holder).to_string()), "{message}");
    let released = environment.session(holder, SessionCall::Release(Vec::new()));
    assert!(matches!(environment.reply(released), Some(Reply::Released(1))));
    assert_eq!(environment.locked(token).len(), 1);
    assert!(environment.reply(lost).is_none());
    // Whoever is granted it first writes so after the release.
    environment.sync();
    assert!(environment.journal.sessions.is_empty());
}

#[test]
fn locks_stay_while_another_journal_answers_than_the_one_that_voted() {
    let mut environment = Environment::new();
    let run = environment.execute_with(&[(P0, YES), (P1, NO)], |begin| begin.locks = locks("A"));
    environment.sync();
    environment.deliver_to(P0);
    environment.hear_all();
    environment.participant(P0).lose_disk();
    environment.connect(P0);
    for _ in 0..10 {
        environment.exchange();
        environment.sync();
        environment.advance(seconds(6));
    }
    assert_eq!(environment.look(run.id).state, TransactionState::Aborting);
    assert_eq!(environment.holders("a"), [owner(run.id)]);
}

#[test]
fn the_end_of_one_call_does_not_end_the_wait_of_another() {
    let mut environment = Environment::new();
    let (holder, waiter) = (environment.begin(), environment.begin());
    environment.lock(holder, "A");
    let waiting = environment.lock(waiter, "A");
    let second = environment.lock(waiter, "B");
    assert!(matches!(environment.refused(second), Refused::WaitsForLocks));
    environment.event(Event::Client { id: waiter, token: second, call: Client::GiveUpLocking });
    environment.roll_back(holder);
    assert_eq!(environment.locked(waiting).len(), 1);
}

#[test]
fn locks_that_are_asked_for_again_and_again_do_not_make_the_trail_grow() {
    let mut environment = Environment::new();
    let id = environment.begin();
    for _ in 0..100 {
        environment.lock(id, "A");
    }
    assert!(environment.look(id).trail.len() < 10, "{:?}", environment.look(id).trail);
}

#[test]
fn a_session_may_release_some_of_its_locks() {
    let mut environment = Environment::new();
    let (id, _) = environment.acquire("ABC");
    environment.sync();
    let release = |environment: &mut Environment, keys: &str| {
        let keys = locks(keys).into_iter().map(|(key, _)| key).collect();
        let token = environment.session(id, SessionCall::Release(keys));
        match environment.reply(token) {
            Some(Reply::Released(count)) => *count,
            other => panic!("not released: {other:?}"),
        }
    };
    assert_eq!(release(&mut environment, "D"), 0);
    assert!(environment.journal.pending_sessions.is_empty(), "nothing has changed");
    assert_eq!(release(&mut environment, "AD"), 1);
    assert!(environment.holders("a").is_empty());
    environment.sync();
    environment.crash();
    assert!(environment.holders("a").is_empty(), "after a crash too");
    assert_eq!(environment.holders("b"), [LockOwner::Session(id)]);
    assert_eq!(release(&mut environment, "BC"), 2);
    assert!(environment.holders("b").is_empty());
}

#[test]
fn a_lease_runs_out_after_many_others_have_come_and_gone() {
    let mut environment = Environment::new();
    let (id, _) = environment.acquire("A");
    environment.sync();
    for _ in 0..5000 {
        let (other, _) = environment.acquire("B");
        environment.sync();
        environment.session(other, SessionCall::Release(Vec::new()));
    }
    assert_eq!(environment.holders("a"), [LockOwner::Session(id)]);
    environment.advance(seconds(30));
    assert!(environment.holders("a").is_empty());
}

#[test]
fn a_lease_that_is_shorter_than_the_wait_before_it_runs_out_in_time() {
    let mut environment = Environment::new();
    let (holder, _) = environment.acquire("A");
    environment.sync();
    let bytes = u128::from(environment.next_number()).to_be_bytes();
    let (id, age) = (SessionId::from_bytes(bytes), TransactionId::from_bytes(bytes));
    let (lease, until) = (seconds(2), environment.now + seconds(25));
    let call = SessionCall::Acquire { age, locks: Some(locks("A")), key: None, lease, until };
    environment.session(id, call);
    environment.session(holder, SessionCall::Release(Vec::new()));
    environment.sync();
    assert_eq!(environment.holders("a"), [LockOwner::Session(id)]);
    environment.advance(seconds(2));
    assert!(environment.holders("a").is_empty());
}
