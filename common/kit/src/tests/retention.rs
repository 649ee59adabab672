use super::*;
use crate::wire::Ended;

async fn wait_for_decided(bench: &Bench, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.count("decided").await != expected {
        assert!(Instant::now() < deadline, "{}", bench.count("decided").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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

#[tokio::test]
async fn what_has_ended_long_enough_ago_goes_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { retention: Duration::from_secs(4), ..limits() };
    let bench = Bench::open_with(folder.path(), limits, options()).await.with_tasks();
    some_history(&bench).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bench.count("decided").await, 4, "nobody told the end");

    let told = Instant::now();
    let ended = Ended { before: transaction(4), except: vec![transaction(2)] };
    bench.engine.note_ended(coordinator(), ended);
    wait_for_decided(&bench, 2).await;
    assert!(told.elapsed() >= Duration::from_secs(4));
    bench.commit(2).await.unwrap();
    assert!(!bench.rollback(4).await.unwrap());
    assert_eq!(bench.count("undecided").await, 1);
    bench.close().await;
}

#[tokio::test]
async fn a_file_that_is_too_large_forgets_what_ended_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Duration::from_secs(30);
    let limits = Limits { retention, retention_bytes: 0, ..limits() };
    let bench = Bench::open_with(folder.path(), limits, options()).await.with_tasks();
    some_history(&bench).await;
    let ended = Ended { before: transaction(4), except: vec![] };
    bench.engine.note_ended(coordinator(), ended);
    wait_for_decided(&bench, 1).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.engine.metrics.forgotten.get() != 3 {
        assert!(Instant::now() < deadline, "the removal is counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.close().await;
}
