mod branches;
mod schedules;

use alloc::format;
use core::{fmt, time::Duration};

use std::vec::Vec;

use dtc_protocol::{Time, TransactionId};

use super::{blocked::timed_out, *};

extern crate std;

const NOW: Time = Time(1);
const ROOM: usize = 1_000_000;

fn id(number: u64) -> TransactionId {
    TransactionId::from_bytes(u128::from(number).to_be_bytes())
}

/// Shares its locks with nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Client(u64);

impl Owner for Client {}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

fn owner(number: u64) -> Client {
    Client(number)
}

fn locks(policy: Deadlocks) -> Locks<Client> {
    Locks::new(policy, ROOM, 1)
}

/// 'a' is shared, 'A' exclusive.
fn wants(keys: &str) -> Vec<(LockKey, LockMode)> {
    let want = |key: char| {
        let mode = match key.is_uppercase() {
            true => LockMode::Exclusive,
            false => LockMode::Shared,
        };
        (LockKey::from(std::string::String::from(key.to_ascii_lowercase()).as_str()), mode)
    };
    keys.chars().map(want).collect()
}

impl Locks<Client> {
    fn ask(&mut self, number: u64, keys: &str) -> Acquired<Client> {
        self.acquire(NOW, owner(number), id(number), &wants(keys))
    }

    fn granted(&mut self, number: u64, keys: &str) -> Vec<HeldLock> {
        match self.ask(number, keys) {
            Acquired::Granted(locks) => locks,
            other => panic!("{number} {keys}: {other:?}"),
        }
    }

    fn waits(&mut self, number: u64, keys: &str) {
        assert_eq!(self.ask(number, keys), Acquired::Waiting, "{number} {keys}");
    }

    fn end(&mut self, number: u64) -> Vec<Client> {
        self.release_all(NOW, owner(number));
        let ended = self.take_ended().into_iter();
        let granted = ended.map(|(owner, end)| {
            assert!(matches!(end, WaitEnd::Granted(_)), "{end:?}");
            owner
        });
        granted.collect()
    }

    fn is_empty(&self) -> bool {
        let none = self.keys.is_empty() && self.owners.is_empty() && self.ended.is_empty();
        none && (self.held, self.wanted, self.figures.waiting) == (0, 0, 0)
    }
}

#[test]
fn shared_locks_are_held_together_and_exclusive_ones_alone() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "ab");
    locks.granted(2, "a");
    locks.waits(3, "A");
    locks.waits(4, "a");
    assert_eq!(locks.end(1), []);
    assert_eq!(locks.end(2), [owner(3)]);
    assert_eq!(locks.end(3), [owner(4)]);
    assert_eq!(locks.end(4), []);
    assert!(locks.is_empty());
}

#[test]
fn a_request_is_granted_as_a_whole_and_keeps_its_place_in_every_queue() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "A");
    locks.waits(2, "AB");
    // 'b' is held by nobody, and yet not to be had.
    locks.waits(3, "B");
    locks.waits(4, "b");
    assert_eq!(locks.end(1), [owner(2)]);
    assert_eq!(locks.end(2), [owner(3)]);
    assert_eq!(locks.end(3), [owner(4)]);
}

#[test]
fn what_an_owner_has_it_gets_again_with_the_same_token() {
    let mut locks = locks(Deadlocks::WaitDie);
    let first = locks.granted(1, "Ab");
    assert_eq!(locks.granted(1, "ab"), first);
    let more = locks.granted(1, "AC");
    assert_eq!(more[0], first[0]);
    assert!(more[1].token > first[0].token);
    assert_eq!(locks.held_by(owner(1)).len(), 3);
}

#[test]
fn an_upgrade_goes_before_the_queue_and_has_a_new_token() {
    let mut locks = locks(Deadlocks::WaitDie);
    let first = locks.granted(1, "a");
    locks.granted(2, "a");
    locks.waits(3, "A");
    locks.waits(1, "A");
    assert_eq!(locks.end(2), [owner(1)]);
    assert!(locks.held_by(owner(1))[0].token > first[0].token);
    assert_eq!(locks.end(1), [owner(3)]);
}

#[test]
fn of_two_upgrades_of_one_key_the_younger_is_refused() {
    for policy in [Deadlocks::WaitDie, Deadlocks::Detect] {
        for elder_first in [true, false] {
            let mut locks = locks(policy);
            locks.granted(1, "a");
            locks.granted(2, "a");
            let (mut answers, order) = (Vec::new(), if elder_first { [1, 2] } else { [2, 1] });
            for number in order {
                answers.push((number, locks.ask(number, "A")));
            }
            let refused = answers.iter().find(|(_, it)| matches!(it, Acquired::Deadlock(_)));
            let ended = locks.take_ended();
            match refused {
                Some((number, _)) => assert_eq!(*number, 2),
                None => {
                    assert!(matches!(ended[..], [(it, WaitEnd::Deadlock(_))] if it == owner(2)))
                }
            }
            assert_eq!(locks.end(2), [owner(1)]);
            assert_eq!(locks.held_by(owner(1))[0].mode, LockMode::Exclusive);
        }
    }
}

#[test]
fn wait_die_lets_one_that_holds_locks_wait_for_younger_ones_only() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "A");
    locks.granted(2, "B");
    locks.waits(1, "B");
    let Acquired::Deadlock(blocked) = locks.ask(2, "A") else { panic!("no deadlock") };
    assert_eq!((&*blocked.key, blocked.by, blocked.holds), ("a", owner(1), true));
    let said = blocked.deadlock(id(2));
    assert!(said.starts_with("deadlock: lock 'a' is held by client"), "{said}");
    assert!(said.contains("older") && said.contains(&format!("retry_of = {}", id(2))), "{said}");
    assert_eq!(locks.end(2), [owner(1)]);
}

#[test]
fn wait_die_keeps_the_age_of_a_retry() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(5, "A");
    locks.granted(9, "B");
    assert!(matches!(locks.ask(9, "A"), Acquired::Deadlock(_)));
    locks.end(9);
    // The same again, as a retry of something older than 5.
    let retry =
        |locks: &mut Locks<Client>, keys| locks.acquire(NOW, owner(10), id(3), &wants(keys));
    assert!(matches!(retry(&mut locks, "B"), Acquired::Granted(_)));
    assert_eq!(retry(&mut locks, "A"), Acquired::Waiting);
}

#[test]
fn wait_die_refuses_nobody_that_holds_nothing() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "A");
    for number in 2..100 {
        locks.waits(number, "AB");
    }
    for number in 1..99 {
        assert_eq!(locks.end(number), [owner(number + 1)]);
    }
}

#[test]
fn wait_die_an_elder_that_holds_locks_goes_before_those_that_hold_nothing() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "C");
    locks.granted(2, "D");
    locks.granted(5, "A");
    locks.waits(4, "AB");
    // Younger than one that waits for it already: 'b' itself is free.
    locks.granted(6, "E");
    assert!(matches!(locks.ask(6, "B"), Acquired::Deadlock(it) if it.by == owner(4) && !it.holds));
    locks.granted(2, "B");
    locks.waits(1, "A");
    assert_eq!(locks.end(5), [owner(1)]);
    assert_eq!(locks.end(1), []);
    assert_eq!(locks.end(2), [owner(4)]);
}

#[test]
fn wait_die_looks_again_when_an_upgrade_goes_before_one_that_waits() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(2, "a");
    locks.granted(3, "a");
    locks.granted(7, "B");
    locks.granted(8, "C");
    // 7 waits for 'c' alone; 'a' is open to it, until 2 wants it alone.
    locks.waits(7, "ac");
    locks.waits(2, "A");
    let ended = locks.take_ended();
    assert!(matches!(&ended[..], [(it, WaitEnd::Deadlock(why))]
        if *it == owner(7) && why.by == owner(2)));
    assert_eq!(locks.end(3), [owner(2)]);
}

#[test]
fn wait_die_looks_again_when_an_upgrade_is_granted_at_once() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(2, "a");
    locks.granted(7, "B");
    locks.granted(8, "C");
    locks.waits(7, "ac");
    locks.granted(2, "A");
    let ended = locks.take_ended();
    assert!(matches!(&ended[..], [(it, WaitEnd::Deadlock(_))] if *it == owner(7)));
}

#[test]
fn detection_refuses_the_youngest_in_a_cycle() {
    for last in [1, 2, 3] {
        let mut locks = locks(Deadlocks::Detect);
        locks.granted(1, "A");
        locks.granted(2, "B");
        locks.granted(3, "C");
        let mut answers = Vec::new();
        for number in [1, 2, 3].map(|it| (it + last - 1) % 3 + 1) {
            let next = ["B", "C", "A"][number as usize - 1];
            answers.push((number, locks.ask(number, next)));
        }
        let refused: Vec<_> = answers
            .into_iter()
            .filter_map(|(number, answer)| match answer {
                Acquired::Deadlock(why) => Some((owner(number), why)),
                _ => None,
            })
            .chain(locks.take_ended().into_iter().filter_map(|(it, ended)| match ended {
                WaitEnd::Deadlock(why) => Some((it, why)),
                WaitEnd::Granted(_) => None,
            }))
            .collect();
        let [(loser, why)] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!((*loser, &*why.key, why.by), (owner(3), "a", owner(1)));
        assert_eq!(locks.end(3), [owner(2)]);
    }
}

#[test]
fn a_wait_that_ends_leaves_nothing_and_lets_others_through() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "a");
    locks.waits(2, "AB");
    locks.waits(3, "ab");
    let (since, blocked) = locks.cancel(NOW, owner(2)).expect("it waited");
    let blocked = blocked.expect("somebody is in the way");
    assert_eq!((since, blocked.by, blocked.holds), (NOW, owner(1), true));
    assert!(timed_out(Duration::from_secs(1), Some(&blocked)).contains("lock 'a' is held by"));
    let ended = locks.take_ended();
    assert!(matches!(&ended[..], [(it, WaitEnd::Granted(_))] if *it == owner(3)));
    assert_eq!((locks.end(1), locks.end(3)), (Vec::new(), Vec::new()));
    assert!(locks.is_empty());
}

#[test]
fn a_grant_is_confirmed_once_and_what_was_held_before_a_crash_is_confirmed() {
    let mut locks = locks(Deadlocks::WaitDie);
    let held = locks.granted(1, "A");
    locks.waits(2, "A");
    assert!(!locks.confirm(owner(2)) && !locks.confirm(owner(3)), "they hold nothing");
    assert!(locks.is_unconfirmed(owner(1)) && !locks.is_unconfirmed(owner(2)));
    assert!(locks.confirm(owner(1)) && !locks.confirm(owner(1)));
    assert!(!locks.is_unconfirmed(owner(1)));
    locks.end(1);
    assert!(locks.is_unconfirmed(owner(2)));
    let mut after = Locks::new(Deadlocks::WaitDie, ROOM, 2);
    after.restore(NOW, owner(1), id(1), &held);
    assert!(!after.is_unconfirmed(owner(1)) && !after.confirm(owner(1)));
}

#[test]
fn locks_are_bounded_held_and_waited_for_together() {
    let mut locks = Locks::new(Deadlocks::WaitDie, 3, 1);
    locks.granted(1, "AB");
    assert_eq!(locks.ask(2, "CD"), Acquired::Full);
    locks.waits(2, "A");
    assert_eq!(locks.ask(3, "C"), Acquired::Full);
    locks.granted(1, "ab");
    locks.end(1);
    locks.granted(3, "CD");
}

#[test]
fn what_was_held_before_a_crash_is_held_again_and_new_tokens_are_greater() {
    let mut before = locks(Deadlocks::WaitDie);
    let held = before.granted(1, "Ab");
    let mut after = Locks::new(Deadlocks::WaitDie, ROOM, 2);
    after.restore(NOW, owner(1), id(1), &held);
    assert_eq!(after.held_by(owner(1)), held);
    after.waits(2, "A");
    assert!(after.granted(3, "C")[0].token > held[0].token);
    assert_eq!(after.end(1), [owner(2)]);
}

#[test]
fn a_list_shows_who_holds_who_waits_and_for_whom() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "ab");
    locks.waits(2, "AC");
    locks.waits(3, "a");
    let all = locks.list("", None, None, 10);
    let keys: Vec<_> = all.iter().map(|it| &*it.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let shown = |view: &LockView<Client>| {
        let waiters = view.waiters.iter().map(|it| (it.owner, it.waits_for.clone()));
        (view.holders.iter().map(|it| it.owner).collect(), waiters.collect())
    };
    let a: (Vec<_>, Vec<_>) = shown(&all[0]);
    let [two, three] = [Vec::from([owner(1)]), Vec::from([owner(2)])];
    assert_eq!(a, (Vec::from([owner(1)]), Vec::from([(owner(2), two), (owner(3), three)])));
    // 'c' is open to it; it waits for 'a' only.
    assert_eq!(shown(&all[2]), (Vec::new(), Vec::from([(owner(2), Vec::new())])));
    assert_eq!(locks.list("", None, Some("a"), 1)[0].key, "b".into());
    assert_eq!(locks.list("b", None, None, 9).len(), 1);
    assert_eq!(locks.list("", Some(owner(2)), Some("a"), 9)[0].key, "c".into());
}

#[test]
fn figures_count_what_is_held_and_how_requests_ended() {
    let mut locks = locks(Deadlocks::Detect);
    locks.granted(1, "Ab");
    locks.granted(2, "C");
    locks.waits(1, "C");
    assert!(matches!(locks.ask(2, "A"), Acquired::Deadlock(_)));
    locks.waits(3, "A");
    let figures = LockFigures { held: 3, waiting: 2, granted: 2, deadlocks: 1, timeouts: 0 };
    assert_eq!(locks.figures(), figures);
    locks.end(2);
    locks.time_out(NOW, owner(3));
    let figures = LockFigures { waiting: 0, granted: 3, timeouts: 1, ..figures };
    assert_eq!(locks.figures(), figures, "one was granted, the time of the other was over");
    locks.granted(9, "D");
    locks.waits(9, "A");
    locks.waits(1, "D");
    assert_eq!(locks.take_ended().len(), 1, "the younger one is refused");
    let figures = LockFigures { held: 4, waiting: 1, granted: 4, deadlocks: 2, ..figures };
    assert_eq!(locks.figures(), figures);
}

#[test]
fn who_is_granted_what_a_victim_waited_for_is_counted_once() {
    let mut locks = locks(Deadlocks::Detect);
    locks.granted(1, "E");
    locks.granted(5, "k");
    locks.waits(9, "KE");
    locks.granted(1, "k");
    let figures = LockFigures { held: 3, granted: 3, deadlocks: 1, ..LockFigures::default() };
    assert_eq!(locks.figures(), figures);
}

#[test]
fn a_victim_is_told_who_of_those_in_its_way_is_in_the_cycle() {
    let mut locks = locks(Deadlocks::Detect);
    locks.granted(9, "D");
    locks.granted(1, "a");
    locks.granted(5, "a");
    locks.waits(9, "A");
    locks.waits(5, "D");
    let ended = locks.take_ended();
    let [(victim, WaitEnd::Deadlock(blocked))] = &ended[..] else {
        panic!("not one victim: {ended:?}");
    };
    assert_eq!((*victim, blocked.by, blocked.holds), (owner(9), owner(5), true));
}

#[test]
fn a_list_goes_on_after_a_key_that_comes_before_its_prefix() {
    let mut locks = locks(Deadlocks::WaitDie);
    locks.granted(1, "abc");
    let keys = |prefix, after| {
        let all = locks.list(prefix, None, after, 10);
        all.iter().map(|view| view.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys("c", Some("a")), ["c".into()]);
    assert_eq!(keys("", Some("a")), ["b".into(), "c".into()]);
    assert_eq!(keys("a", Some("a")), []);
}

#[test]
fn a_victim_is_told_whether_who_is_in_its_way_holds_the_key() {
    let mut locks = locks(Deadlocks::Detect);
    locks.granted(9, "D");
    locks.granted(5, "A");
    locks.waits(7, "A");
    locks.waits(9, "A");
    locks.waits(5, "D");
    let ended = locks.take_ended();
    let [(victim, WaitEnd::Deadlock(blocked))] = &ended[..] else {
        panic!("not one victim: {ended:?}");
    };
    assert_eq!((*victim, blocked.by, blocked.holds), (owner(9), owner(7), false));
}
