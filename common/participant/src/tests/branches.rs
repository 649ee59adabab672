use dtc_proto::dtc::Vote;
use tonic::Code;

use super::*;

#[tokio::test]
async fn duplicates_get_the_first_answer_and_the_effect_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let first = bench.prepare(1, 30).await;
    assert_eq!(first.vote(), Vote::Commit);
    let output = GetAccountRequest { account: "a".into() }.encode_to_vec().into();
    assert_eq!(first.output, Some(Payload { kind: Some(payload::Kind::Typed(output)) }));
    let journal = dtc_protocol::JournalId::from_bytes(bench.engine.store.identity().id);
    assert_eq!((first.journal_id.clone(), first.committed), (journal.to_string(), false));
    assert_eq!(bench.prepare(1, 30).await, first);
    assert_eq!(bench.till().await, (100, 30));
    bench.commit(1).await.unwrap();
    bench.commit(1).await.unwrap();
    assert_eq!(bench.prepare(1, 30).await, first);
    assert_eq!(bench.till().await, (70, 0));

    bench.prepare(2, 30).await;
    assert!(!bench.rollback(2).await.unwrap());
    assert!(!bench.rollback(2).await.unwrap());
    assert_eq!(bench.till().await, (70, 0));
    let metrics = &bench.engine.metrics;
    assert_eq!(metrics.undecided.get(), 0);
    assert_eq!((metrics.commits.get(), metrics.rollbacks.get()), (1, 1));
    bench.close().await;
}

#[tokio::test]
async fn two_branches_of_a_transaction_are_decided_apart() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.send(PrepareRequest { branch: 1, ..prepare(1, 20) }).await.unwrap();
    assert_eq!(bench.till().await, (100, 50));
    bench.commit(1).await.unwrap();
    assert_eq!(bench.till().await, (70, 20));
    bench.close().await;
}

#[tokio::test]
async fn another_coordinators_branch_is_another_branch() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    let coordinator_id = CoordinatorId::from_bytes([9; 16]).to_string();
    let other = dtc::Origin { coordinator_id, ..origin() };
    let request = CommitRequest { origin: Some(other), ..commit(1) };
    let status = bench.service.commit(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(bench.till().await, (100, 30));
    bench.close().await;
}

#[tokio::test]
async fn another_payload_under_the_same_branch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    assert_eq!(code(&bench.prepare(1, 31).await), "OTHER_PAYLOAD");
    bench.commit(1).await.unwrap();
    assert_eq!(code(&bench.prepare(1, 31).await), "OTHER_PAYLOAD");
    assert_eq!(bench.till().await, (70, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_rollback_before_the_prepare_refuses_the_prepare() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    assert!(!bench.rollback(1).await.unwrap());
    assert_eq!(code(&bench.prepare(1, 30).await), "ROLLED_BACK");
    assert_eq!(bench.till().await, (100, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_refusal_stands_even_when_it_could_be_done_now() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 80).await;
    let first = bench.prepare(2, 80).await;
    assert_eq!(code(&first), "TOO_LITTLE");
    assert_eq!(bench.till().await, (100, 80));
    bench.rollback(1).await.unwrap();
    assert_eq!(bench.prepare(2, 80).await, first);
    assert_eq!(bench.till().await, (100, 0));
    bench.close().await;
}

#[tokio::test]
async fn an_unknown_branch_is_never_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let status = bench.commit(1).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    bench.close().await;
}

#[tokio::test]
async fn a_decided_branch_tells_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.commit(1).await.unwrap();
    assert!(bench.rollback(1).await.unwrap(), "it had been committed");
    bench.prepare(2, 30).await;
    bench.rollback(2).await.unwrap();
    let status = bench.commit(2).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(bench.till().await, (70, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_late_decision_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    let second = RollbackRequest { decision_number: 2, ..rollback(1) };
    bench.service.rollback(Request::new(second)).await.unwrap();
    let status = bench.commit(1).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(bench.till().await, (100, 0));
    bench.close().await;
}

#[tokio::test]
async fn one_phase_commits_at_once_and_a_lost_answer_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let request = PrepareRequest { one_phase: true, ..prepare(1, 30) };
    let first = bench.send(request.clone()).await.unwrap();
    assert!(first.committed && first.vote() == Vote::Commit);
    assert_eq!(bench.till().await, (70, 0));
    assert_eq!(bench.engine.metrics.commits.get(), 1);
    let output = GetAccountRequest { account: "a".into() }.encoded_len();
    let row = crate::footprint::of_row(i64::try_from(output).unwrap());
    assert_eq!(bench.engine.footprint.bytes(), row);
    assert_eq!(bench.send(request).await.unwrap(), first);
    assert!(bench.rollback(1).await.unwrap());
    assert_eq!(bench.till().await, (70, 0));
    let refused = PrepareRequest { one_phase: true, ..prepare(2, 300) };
    assert_eq!(code(&bench.send(refused).await.unwrap()), "TOO_LITTLE");
    bench.close().await;
}

#[tokio::test]
async fn a_read_only_branch_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    assert_eq!(bench.prepare(1, 0).await.vote(), Vote::ReadOnly);
    assert_eq!(bench.prepare(1, 0).await.vote(), Vote::ReadOnly);
    assert_eq!((bench.count("undecided").await, bench.count("decided").await), (0, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_promise_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let first = bench.prepare(1, 30).await;
    bench.prepare(2, 20).await;
    bench.close().await;

    let bench = Bench::open(&folder).await;
    assert_eq!(bench.engine.metrics.undecided.get(), 2);
    assert_eq!(bench.prepare(1, 30).await, first);
    bench.commit(1).await.unwrap();
    bench.rollback(2).await.unwrap();
    bench.close().await;

    let bench = Bench::open(&folder).await;
    bench.commit(1).await.unwrap();
    assert!(!bench.rollback(2).await.unwrap());
    assert_eq!(bench.till().await, (70, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_replaced_run_is_refused_with_the_newest_one() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    let stale = |epoch, incarnation: u8| {
        let incarnation = dtc_protocol::Incarnation::from_bytes([incarnation; 16]).to_string();
        let origin = dtc::Origin { epoch, incarnation, ..origin() };
        Request::new(CommitRequest { origin: Some(origin), ..commit(1) })
    };
    for request in [stale(4, 4), stale(5, 6)] {
        let status = bench.service.commit(request).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.metadata().get("dtc-epoch").unwrap(), "5");
        assert!(status.message().contains("epoch 5"), "{status}");
    }
    assert_eq!(bench.till().await, (100, 30));
    assert_eq!(bench.engine.metrics.stale_refusals.get(), 2);

    bench.service.commit(stale(6, 6)).await.unwrap();
    bench.close().await;
    let bench = Bench::open(&folder).await;
    let status = bench.commit(1).await.unwrap_err();
    assert_eq!(status.metadata().get("dtc-epoch").unwrap(), "6");
    bench.close().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let bad = |change: fn(&mut PrepareRequest)| {
        let mut request = prepare(1, 30);
        change(&mut request);
        request
    };
    for (request, part) in [
        (bad(|request| request.transaction_id = "order-1".into()), "transaction_id: 'order-1'"),
        (bad(|request| request.origin = None), "origin is missing"),
        (bad(|r| r.origin.as_mut().unwrap().coordinator_id = "c".into()), "origin.coordinator_id"),
        (bad(|r| r.origin.as_mut().unwrap().incarnation.clear()), "origin.incarnation: ''"),
    ] {
        let status = bench.send(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(part), "{status}");
    }
    let request = CommitRequest { decision_number: 0, ..commit(1) };
    let status = bench.service.commit(Request::new(request)).await.unwrap_err();
    assert!(status.message().contains("decision_number: 0"), "{status}");
    bench.close().await;
}
