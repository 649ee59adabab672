use std::sync::{Arc, atomic::AtomicUsize};

use dtc_core::{InterventionAction, Time};
use prost::Message;

use super::*;
use crate::journal::disk;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const RETENTION: Retention =
    Retention { age: DAY, max_bytes: u64::MAX, floor: Duration::from_secs(600) };
/// Larger than allowed, whatever is in it.
const TOO_LARGE: Retention = Retention { max_bytes: 1, ..RETENTION };

/// The tables, without a store.
struct Rows {
    connection: Connection,
    known: Known,
}

impl Rows {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        let meta = "CREATE TABLE meta (epoch INTEGER); INSERT INTO meta VALUES (0);";
        connection.execute_batch(meta).unwrap();
        connection.execute_batch(super::super::SCHEMA).unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let known = Known::read(&connection).unwrap();
        Self { connection, known }
    }

    /// As if a transaction had ended at `now`, of service time.
    fn end(&self, number: u32, now: Duration, keep: Keep) {
        let kept = bits(keep);
        let id = id(number);
        let end = disk::End { unnotified: vec![0, 1], ..disk::End::default() };
        let end = sealed(id, "end", &end.encode_to_vec());
        let late = self.known.is_late(id, kept);
        let key = format!("key-{number}");
        let sql = "INSERT INTO finished VALUES (?1, ?2, ?3, ?4, ?5, zeroblob(100), ?6)";
        let row = params![id.as_bytes(), micros(now), kept, late, key, end];
        self.connection.execute(sql, row).unwrap();
        let row = params![key, id.as_bytes()];
        self.connection.execute("INSERT INTO request_keys VALUES (?1, ?2, x'')", row).unwrap();
        self.known.keeps(keep);
    }

    fn within<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> T {
        let transaction = self.connection.unchecked_transaction().unwrap();
        let done = work(&transaction).unwrap();
        transaction.commit().unwrap();
        done
    }

    fn step(&self, now: Duration, retention: Retention) -> Forgotten {
        self.within(|transaction| forget(transaction, &self.known, now, retention, 100))
    }

    fn has_work(&self, now: Duration, retention: Retention) -> bool {
        has_work(&self.connection, self.known.kept(), now, retention).unwrap().0
    }

    /// Steps until there is nothing to do; returns how many went.
    fn pass(&self, now: Duration, retention: Retention) -> usize {
        let mut count = 0;
        while self.has_work(now, retention) {
            count += self.step(now, retention).count;
        }
        count
    }

    fn ids(&self) -> Vec<u32> {
        let mut select = self.connection.prepare("SELECT id FROM finished ORDER BY id").unwrap();
        let rows = select.query_map([], |row| row.get::<_, [u8; 16]>(0)).unwrap();
        rows.map(|id| u32::from_be_bytes(id.unwrap()[..4].try_into().unwrap())).collect()
    }

    fn keys(&self) -> u32 {
        let sql = "SELECT count(*) FROM request_keys";
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn watermark(&self) -> TransactionId {
        Memory::read(&self.connection).unwrap().watermark
    }
}

fn id(number: u32) -> TransactionId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[6] = 0x70;
    TransactionId::from_bytes(bytes)
}

const NONE: Keep = Keep { operator: false, unnotified: false };

#[test]
fn every_statement_is_a_search() {
    let rows = Rows::new();
    for sql in ALL {
        let mut explain = rows.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = explain.parameter_count();
        let plan = explain
            .query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get::<_, String>(3));
        for step in plan.unwrap().map(Result::unwrap) {
            assert!(step.starts_with("SEARCH"), "{sql}: {step}");
        }
    }
}

/// Counts the steps of SQLite's machine from now on.
fn count_steps(rows: &mut Rows) -> Arc<AtomicUsize> {
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let count = move || {
        counted.fetch_add(1, Relaxed);
        false
    };
    rows.connection.progress_handler(1, Some(count)).unwrap();
    steps
}

#[test]
fn a_pass_with_nothing_to_remove_touches_almost_nothing() {
    let mut rows = Rows::new();
    let steps = count_steps(&mut rows);
    let transaction = rows.connection.unchecked_transaction().unwrap();
    let operator = Keep { operator: true, unnotified: false };
    for number in 1..20_000 {
        // The oldest third is kept, the next was begun early and ended late.
        match number {
            ..5_000 => rows.end(number, SECOND, operator),
            5_000..10_000 => rows.end(number, DAY, NONE),
            _ => rows.end(number, DAY + DAY / 2, NONE),
        }
        if number == 10_000 {
            transaction.execute("DELETE FROM marks", []).unwrap();
            let (at, newest) = (micros(SECOND), id(number));
            let mark = params![at, newest.as_bytes(), of_mark(at, newest)];
            transaction.execute(ADD_MARK, mark).unwrap();
        }
    }
    transaction.commit().unwrap();
    let now = DAY + DAY / 2;
    assert_eq!(rows.pass(now, RETENTION), 0, "none is old enough");
    steps.store(0, Relaxed);
    assert!(!rows.has_work(now + SECOND, RETENTION));
    assert!(steps.swap(0, Relaxed) < 300, "of a pass that only looks");
    let again = rows.step(now + SECOND, RETENTION);
    assert_eq!((again.count, again.more), (0, false));
    assert!(steps.load(Relaxed) < 600, "of a step that finds nothing");
    // And what had to wait goes by its own time.
    assert_eq!(rows.pass(2 * DAY + SECOND, RETENTION), 5_000);
}

#[test]
fn what_ended_long_ago_goes_with_its_key_and_leaves_a_watermark() {
    let rows = Rows::new();
    rows.end(1, SECOND, NONE);
    rows.end(2, 2 * SECOND, NONE);
    assert_eq!(rows.pass(3 * SECOND, RETENTION), 0);
    rows.end(4, DAY, NONE);
    // One that is begun early and ends late.
    rows.pass(DAY + 3 * SECOND - SECOND / 2, RETENTION);
    assert_eq!(rows.ids(), [1, 2, 4], "ids were given out by the time of the mark only");
    assert_eq!(rows.pass(DAY + 4 * SECOND, RETENTION), 2);
    assert_eq!((rows.ids(), rows.keys()), (vec![4], 1));
    assert_eq!(rows.watermark(), id(2));
    rows.end(0, DAY + 5 * SECOND, NONE);
    assert_eq!(rows.pass(2 * DAY, RETENTION), 0);
    assert_eq!(rows.ids(), [0, 4]);
    assert_eq!(rows.pass(2 * DAY + 6 * SECOND, RETENTION), 2);
    assert_eq!(rows.watermark(), id(4));
}

#[test]
fn what_bytes_cut_is_above_the_floor_and_the_oldest() {
    let rows = Rows::new();
    let minute = 60 * SECOND;
    for number in 1..20 {
        rows.end(number, number * minute, NONE);
        rows.pass(number * minute, RETENTION);
    }
    let now = 20 * minute;
    let step = rows.step(now, TOO_LARGE);
    assert!(step.too_large && step.count > 0 && step.early == step.count, "{step:?}");
    rows.pass(now, TOO_LARGE);
    let left = rows.ids();
    // Ten minutes, and as much as lies between two marks.
    assert!(left.iter().all(|number| *number >= 9), "{left:?}");
    assert!((10..20).all(|number| left.contains(&number)), "{left:?}");
    assert!(!rows.has_work(now + SECOND, TOO_LARGE));
    assert_eq!(rows.keys() as usize, left.len());
}

#[test]
fn what_is_kept_goes_once_it_is_released_and_all_were_notified() {
    for released_first in [true, false] {
        let rows = Rows::new();
        rows.end(1, SECOND, Keep { operator: true, unnotified: true });
        rows.end(2, SECOND, NONE);
        rows.pass(2 * SECOND, RETENTION);
        let late = 3 * DAY;
        let release = || {
            let done = Intervention {
                at: Time(1),
                action: InterventionAction::Forget,
                branch: None,
                reason: "seen".into(),
                caller: "ada".into(),
            };
            assert!(rows.within(|it| release(it, &rows.known, id(1), &done)));
            assert!(!rows.within(|it| super::release(it, &rows.known, id(1), &done)));
        };
        let notify = |branch| rows.within(|it| notified(it, &rows.known, (id(1), branch), late));
        assert_eq!(rows.pass(late, RETENTION), 1, "not the one that is kept");
        assert_eq!(rows.known.kept(), (1, 1));
        if released_first {
            release();
            notify(0);
            assert_eq!(rows.pass(4 * DAY, RETENTION), 0, "one branch is not notified");
            notify(1);
        } else {
            notify(1);
            notify(0);
            assert_eq!(rows.pass(4 * DAY, RETENTION), 0, "nobody has looked");
            release();
        }
        assert_eq!(rows.known.kept(), (0, 0));
        assert_eq!(rows.pass(late + DAY, RETENTION), 0, "an answer may be lost");
        assert_eq!(rows.pass(late + DAY + SECOND, RETENTION), 1);
        assert_eq!(rows.keys(), 0);
    }
}
