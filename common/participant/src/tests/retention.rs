use std::collections::BTreeMap;

use dtc_proto::dtc::{LinkRequest, Vote};
use dtc_protocol::fence::Run;
use tokio::sync::mpsc;

use super::{
    link::{Peer, id},
    *,
};
use crate::{
    ended::Ended,
    links::Place,
    wire::{Batch, Decision, Origin},
};

async fn wait_for_decided(bench: &Bench, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.count("decided").await != expected {
        assert!(Instant::now() < deadline, "{}", bench.count("decided").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes down what was said, and removes what may go; how many decided are left.
async fn sweep(bench: &Bench) -> i64 {
    retention_task::note_ended(&bench.engine, &mut BTreeMap::new());
    // Behind what was said, and durable with it.
    bench.engine.store.write(|_| Ok(())).await.unwrap();
    retention_task::sweep(&bench.engine).await.unwrap();
    bench.count("decided").await
}

/// A link on which nothing was said yet.
fn linked(bench: &Bench) -> Place {
    let run = Run { epoch: 5, incarnation: dtc_protocol::Incarnation::from_bytes([5; 16]) };
    bench.engine.links.open(coordinator(), run, mpsc::channel(1).0).0
}

fn say(bench: &Bench, place: &Place, before: u8, except: &[u8]) {
    let except = except.iter().map(|it| transaction(*it)..=transaction(*it)).collect();
    let ended = Ended::new(transaction(before), except);
    place.note_ended(&ended, bench.engine.service_time());
}

/// Branches 1 and 2 committed, 3 rolled back, 4 a tombstone; 9 is undecided.
async fn some_history(bench: &Bench) {
    for number in [1, 2, 3, 9] {
        bench.prepare(number, 1).await;
    }
    bench.commit(1).await.unwrap();
    bench.commit(2).await.unwrap();
    bench.rollback(3).await.unwrap();
    bench.rollback(4).await.unwrap();
}

async fn open(folder: &TempDir, retention: u64, bytes: u64, floor: u64) -> Bench {
    let limits = Limits {
        lock_wait: Duration::ZERO,
        retention: Duration::from_secs(retention),
        retention_bytes: bytes,
        retention_floor: Duration::from_secs(floor),
        ..limits()
    };
    Bench::open_with(folder.path(), limits, options()).await.with_tasks()
}

#[tokio::test]
async fn what_has_ended_long_enough_ago_goes_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 4, 1 << 30, 0).await;
    some_history(&bench).await;
    assert_eq!(sweep(&bench).await, 4, "no end was reported");

    let told = Instant::now();
    let place = linked(&bench);
    say(&bench, &place, 4, &[2]);
    wait_for_decided(&bench, 2).await;
    assert!(told.elapsed() >= Duration::from_secs(4));
    bench.commit(2).await.unwrap();
    assert!(!bench.rollback(4).await.unwrap());
    assert_eq!(bench.count("undecided").await, 1);
    bench.close().await;
}

#[tokio::test]
async fn of_several_links_what_all_of_them_say_counts() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 0, 1 << 30, 0).await;
    some_history(&bench).await;
    let (one, other) = (linked(&bench), linked(&bench));
    say(&bench, &one, 5, &[2]);
    say(&bench, &other, 4, &[1]);
    assert_eq!(sweep(&bench).await, 3, "1, 2 and 4");
    bench.commit(1).await.unwrap();
    bench.commit(2).await.unwrap();
    drop(other);
    assert_eq!(sweep(&bench).await, 1);
    // One on which nothing was said holds back everything.
    let third = linked(&bench);
    say(&bench, &one, 5, &[]);
    assert_eq!(sweep(&bench).await, 1);
    drop(third);
    assert_eq!(sweep(&bench).await, 0);
    bench.close().await;
}

#[tokio::test]
async fn what_comes_late_about_what_was_forgotten_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 1, 1 << 30, 0).await;
    let at_once = |number| PrepareRequest { one_phase: true, ..prepare(number, 10) };
    assert!(bench.send(at_once(1)).await.unwrap().committed);
    bench.prepare(2, 10).await;
    bench.commit(2).await.unwrap();
    let place = linked(&bench);
    say(&bench, &place, 9, &[5]);
    wait_for_decided(&bench, 0).await;
    let bench = {
        bench.close().await;
        open(&folder, 1, 1 << 30, 0).await
    };
    assert_eq!(code(&bench.send(at_once(1)).await.unwrap()), "FORGOTTEN");
    assert_eq!(code(&bench.prepare(2, 10).await), "FORGOTTEN");
    assert_eq!(bench.till().await, (80, 0));
    // What has not ended, or began later, is not meant.
    assert_eq!(bench.prepare(5, 10).await.vote(), Vote::Commit);
    assert_eq!(bench.prepare(9, 10).await.vote(), Vote::Commit);
    bench.close().await;
}

#[tokio::test]
async fn too_large_a_journal_forgets_what_ended_sooner_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 16, 200, 1).await;
    some_history(&bench).await;
    let place = linked(&bench);
    say(&bench, &place, 4, &[]);
    wait_for_decided(&bench, 1).await;
    let metrics = &bench.engine.metrics;
    let deadline = Instant::now() + Duration::from_secs(20);
    while (metrics.forgotten.get(), metrics.forgotten_early.get()) != (3, 3) {
        assert!(Instant::now() < deadline, "the removal is counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left = bench.engine.footprint.bytes();
    assert!((100..200).contains(&left), "{left}");
    bench.close().await;
    // Measured again, it comes to the same.
    let bench = open(&folder, 16, 200, 1).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.engine.footprint.bytes() != left {
        assert!(Instant::now() < deadline, "{}, not {left}", bench.engine.footprint.bytes());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.close().await;
}

#[tokio::test]
async fn however_large_it_is_nothing_goes_before_its_floor_and_the_domain_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 16, 10_000, 0).await;
    some_history(&bench).await;
    let large = "CREATE TABLE large AS SELECT zeroblob(1000000)";
    bench.engine.store.write(|it| it.execute_batch(large)).await.unwrap();
    let place = linked(&bench);
    say(&bench, &place, 4, &[]);
    assert_eq!(sweep(&bench).await, 4, "the domain's tables are large");
    bench.close().await;

    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 7200, 0, 3600).await;
    some_history(&bench).await;
    let place = linked(&bench);
    say(&bench, &place, 4, &[]);
    assert_eq!(sweep(&bench).await, 4, "the floor");
    bench.close().await;
}

#[tokio::test]
async fn an_exception_on_a_link_is_a_transaction_or_a_range() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(&folder, 0, 1 << 30, 0).await;
    some_history(&bench).await;
    let (peer, _) = Peer::greet(&bench.serve().await, origin()).await;
    let range = [id(2), id(3)].concat().into();
    let ended_except = vec![id(1), range];
    let ended = LinkRequest { ended_before: id(9), ended_except, ..LinkRequest::default() };
    peer.requests.send(ended).await.unwrap();
    wait_for_decided(&bench, 3).await;
    assert_eq!(sweep(&bench).await, 3);
    bench.close().await;
}

/// Tombstones of so many branches of transaction 1.
async fn leave_tombstones(bench: &Bench, count: u32) {
    let tombstone = |number| {
        let branch = BranchId { coordinator: coordinator(), transaction: transaction(1), number };
        Decision::rollback::<Till>(branch, 1, false)
    };
    let batch = Batch { decisions: (0..count).map(tombstone).collect(), ..Batch::default() };
    let origin = Arc::new(Origin::parse("origin", Some(&origin())).unwrap());
    bench.engine.perform(origin, batch).await.unwrap();
}

#[tokio::test]
async fn what_goes_sooner_goes_a_page_at_a_time_until_there_is_room() {
    let (hour, count) = (Duration::from_secs(3600), 1100);
    for (retention, retention_bytes, left) in [
        (hour, 1 << 30, count),
        (hour, 100_000, count - 500),
        (hour, 10_000, 0),
        (Duration::ZERO, 1 << 30, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let lock_wait = Duration::ZERO;
        let limits = Limits { lock_wait, retention, retention_bytes, ..limits() };
        let bench = Bench::open_with(folder.path(), limits, options()).await;
        leave_tombstones(&bench, count).await;
        crate::footprint::measure(Arc::clone(&bench.engine)).await;
        let place = linked(&bench);
        say(&bench, &place, 2, &[]);
        assert_eq!(sweep(&bench).await, i64::from(left), "{retention:?}, {retention_bytes} bytes");
        bench.close().await;
    }
}
