//! A domain that panics.

use dtc_proto::dtc::Vote;
use tonic::Code;

use super::*;

#[tokio::test]
async fn in_prepare_it_is_a_vote_to_abort_and_all_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.till.panic.store(true, SeqCst);
    for one_phase in [false, true] {
        let number = 2 + u8::from(one_phase);
        let response =
            bench.send(PrepareRequest { one_phase, ..prepare(number, 5) }).await.unwrap();
        assert_eq!(code(&response), "PARTICIPANT_PANICKED");
        let message = response.abort_reason.unwrap().message;
        assert!(message.ends_with("panicked: as the test wants"), "{message}");
    }
    bench.till.panic.store(false, SeqCst);
    assert_eq!(code(&bench.prepare(2, 5).await), "PARTICIPANT_PANICKED", "a duplicate");
    assert_eq!(bench.till().await, (100, 30), "what it wrote is undone");
    bench.commit(1).await.unwrap();
    assert_eq!(bench.prepare(4, 5).await.vote(), Vote::Commit);
    assert_eq!(bench.till().await, (70, 5));
    let metrics = &bench.engine.metrics;
    assert_eq!((metrics.domain_panics.get(), metrics.domain_errors.get()), (2, 2));
    bench.close().await;
}

#[tokio::test]
async fn in_commit_and_rollback_it_is_tried_again_until_it_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.prepare(2, 20).await;
    bench.till.panic.store(true, SeqCst);
    for refused in [bench.commit(1).await.unwrap_err(), bench.rollback(2).await.unwrap_err()] {
        assert_eq!(refused.code(), Code::Internal);
        assert!(refused.message().ends_with("panicked: as the test wants"), "{refused}");
    }
    assert_eq!(bench.till().await, (100, 50));
    bench.close().await;

    let bench = Bench::open(&folder).await.with_tasks();
    bench.wait_for_till((70, 0)).await;
    bench.close().await;
}

#[tokio::test]
async fn in_a_call_of_its_own_it_fails_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let handle = crate::Handle { store: bench.engine.store.clone() };
    let read = handle.read(|_| -> rusqlite::Result<()> { panic!("as the test wants") });
    assert_eq!(read.await.unwrap_err().code(), Code::Internal);
    let write = handle.write(|transaction| -> Result<(), Error> {
        transaction.execute("UPDATE till SET balance = 0", [])?;
        panic!("as the test wants")
    });
    assert_eq!(write.await.unwrap_err().code(), Code::Internal);
    assert_eq!(bench.till().await, (100, 0));
    bench.close().await;
}
