use dtc_proto::dtc::{Acknowledgement, LinkCommit, LinkRequest, Vote};
use dtc_store::Urgency;
use tonic::Code;

use super::*;
use crate::{
    answers::Refused,
    resolutions::HeuristicDecision,
    wire::{self, Batch, Decision, Origin, Prepare},
};

fn branch(number: u8) -> BranchId {
    BranchId { coordinator: coordinator(), transaction: transaction(number), number: 0 }
}

#[tokio::test]
async fn bad_and_large_payloads_are_votes_to_abort() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_payload: 100, ..limits() };
    let bench = Bench::open_with(folder.path(), limits, options()).await;
    let typed = |bytes: Vec<u8>| Some(Payload { kind: Some(payload::Kind::Typed(bytes.into())) });
    let bad = PrepareRequest { payload: typed(vec![0xFF; 9]), ..prepare(1, 1) };
    assert_eq!(code(&bench.send(bad).await.unwrap()), "BAD_PAYLOAD");
    let none = PrepareRequest { payload: None, ..prepare(2, 1) };
    assert_eq!(code(&bench.send(none).await.unwrap()), "BAD_PAYLOAD");
    let large = PrepareRequest { payload: typed(vec![0; 101]), ..prepare(3, 1) };
    let response = bench.send(large).await.unwrap();
    assert_eq!(code(&response), "PAYLOAD_TOO_LARGE");
    assert!(response.abort_reason.unwrap().message.contains("limit is 100"));
    bench.close().await;
}

#[tokio::test]
async fn undecided_branches_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_undecided: 2, ..limits() };
    let bench = Bench::open_with(folder.path(), limits, options()).await;
    bench.prepare(1, 1).await;
    bench.prepare(2, 1).await;
    let response = bench.prepare(3, 1).await;
    assert_eq!(code(&response), "TOO_MANY_UNDECIDED");
    assert!(response.abort_reason.unwrap().message.contains("limit is 2"));
    assert_eq!(bench.prepare(2, 1).await.vote(), Vote::Commit, "a duplicate takes no more room");
    bench.commit(1).await.unwrap();
    assert_eq!(bench.prepare(3, 1).await.vote(), Vote::Commit);
    bench.close().await;
}

#[tokio::test]
async fn undecided_branches_are_bounded_within_a_batch_too() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_undecided: 2, ..limits() };
    let bench = Bench::open_with(folder.path(), limits, options()).await;
    bench.prepare(1, 1).await;
    let prepares = [2, 3, 4].map(|number| Prepare {
        branch: branch(number),
        age: transaction(number),
        payload: wire::decode(Some(&typed(1)), 1000),
        one_phase: false,
        may_compensate: false,
    });
    // The decision makes room for one more.
    let decisions = vec![Decision::commit(branch(1), 1)];
    let origin = Arc::new(Origin::parse("origin", Some(&origin())).unwrap());
    let batch = Batch { prepares: prepares.into(), decisions };
    let answers = bench.engine.perform(origin, batch).await.unwrap();
    let votes: Vec<_> = answers.votes.iter().map(|vote| vote.vote()).collect();
    assert_eq!(votes, [Vote::Commit, Vote::Commit, Vote::Abort]);
    assert_eq!(bench.engine.store.statistics().largest_batch, 4, "each request counts");
    bench.close().await;
}

/// A run that the journal has not kept is not admitted.
#[tokio::test]
async fn an_empty_batch_that_the_storage_rolls_back_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let store = &bench.engine.store;
    // What comes while the storage is at work shares a batch.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begins, begun) = std::sync::mpsc::channel();
    let hold: dtc_store::Work = Box::new(move |_| {
        begins.send(()).unwrap();
        let _ = held.recv();
        Box::new(drop)
    });
    store.submit(Urgency::Forced, 1, hold);
    begun.recv().unwrap();
    let origin = Arc::new(Origin::parse("origin", Some(&origin())).unwrap());
    let (admitted, ()) = tokio::join!(bench.engine.perform(origin, Batch::default()), async {
        let end: dtc_store::Work = Box::new(|transaction| {
            transaction.execute_batch("ROLLBACK").unwrap();
            Box::new(drop)
        });
        store.submit(Urgency::Forced, 1, end);
        drop(release);
    });
    assert!(matches!(admitted, Err(Refused::Write(_))), "{admitted:?}");
    bench.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_promises_and_not_decisions() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.prepare(2, 30).await;
    bench.close().await;
    let full = Options { min_free: u64::MAX, ..options() };
    let bench = Bench::open_with(folder.path(), limits(), full).await;
    assert_eq!(code(&bench.prepare(3, 1).await), "DISK_FULL");
    bench.commit(1).await.unwrap();
    bench.rollback(2).await.unwrap();
    assert_eq!(bench.till().await, (70, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_domain_that_fails_in_prepare_votes_to_abort_and_its_neighbours_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.till.fail_prepare.store(true, SeqCst);
    let origin = Arc::new(Origin::parse("origin", Some(&origin())).unwrap());
    let batch = Batch {
        prepares: vec![Prepare {
            branch: branch(2),
            age: transaction(2),
            payload: wire::decode(Some(&typed(5)), 1000),
            one_phase: false,
            may_compensate: false,
        }],
        decisions: vec![Decision::commit(branch(1), 1), Decision::commit(branch(3), 1)],
    };
    let answers = bench.engine.perform(origin, batch).await.unwrap();
    let told: Vec<_> = answers.acknowledgements.iter().map(|a| a.acknowledgement()).collect();
    assert_eq!(told, [Acknowledgement::Committed, Acknowledgement::Unknown]);
    assert_eq!(answers.votes[0].vote(), Vote::Abort);
    assert_eq!(answers.votes[0].abort_reason.as_ref().unwrap().code, "PARTICIPANT_ERROR");
    assert_eq!(bench.till().await, (70, 0));
    assert_eq!(bench.engine.metrics.domain_errors.get(), 1);
    bench.close().await;
}

#[tokio::test]
async fn a_domain_that_fails_in_commit_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.till.fail_settle.store(true, SeqCst);
    let status = bench.commit(1).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("as the test wants"), "{status}");
    assert_eq!(bench.till().await, (100, 30));
    bench.close().await;

    // The decision is kept, so nobody has to tell it again.
    let bench = Bench::open(&folder).await.with_tasks();
    bench.wait_for_till((70, 0)).await;
    bench.commit(1).await.unwrap();
    assert_eq!(bench.engine.metrics.retries.get(), 1);
    bench.close().await;
}

#[tokio::test]
async fn a_failure_says_which_attempt_failed() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.till.fail_settle.store(true, SeqCst);
    let transaction_id = transaction(1).as_bytes().to_vec().into();
    let commit =
        LinkCommit { transaction_id, decision_number: 1, attempt: 3, ..LinkCommit::default() };
    let request = LinkRequest { commits: vec![commit], ..LinkRequest::default() };
    let (batch, _) = Batch::from_link(coordinator(), request, 1000).unwrap();
    let origin = Arc::new(Origin::parse("origin", Some(&origin())).unwrap());
    let answers = bench.engine.perform(origin, batch).await.unwrap();
    let [answer] = &answers.acknowledgements[..] else { panic!("{:?}", answers.acknowledgements) };
    assert_eq!((answer.acknowledgement(), answer.attempt), (Acknowledgement::Failed, 3));
    bench.close().await;
}

#[tokio::test]
async fn a_hand_cannot_contradict_a_decision_that_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.till.fail_settle.store(true, SeqCst);
    assert!(bench.commit(1).await.is_err());
    bench.till.fail_settle.store(false, SeqCst);
    let by_operator = |commit| {
        let resolution =
            HeuristicDecision { commit, reason: "stuck".into(), caller: "test".into() };
        bench.engine.resolve(branch(1), resolution)
    };
    let refused = by_operator(false).await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("being committed"), "{refused}");
    by_operator(true).await.unwrap().unwrap();
    assert_eq!(bench.till().await, (70, 0));
    bench.commit(1).await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn a_decision_that_could_not_be_applied_works_when_it_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 30).await;
    bench.till.fail_settle.store(true, SeqCst);
    assert!(bench.rollback(1).await.is_err());
    bench.till.fail_settle.store(false, SeqCst);
    assert!(!bench.rollback(1).await.unwrap());
    assert_eq!(bench.till().await, (100, 0));
    bench.close().await;
}

#[tokio::test]
async fn a_promise_whose_row_was_damaged_is_not_acted_on() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 1).await;
    bench.close().await;
    // What was promised by this run need not be read.
    let bench = Bench::open(&folder).await;
    let damage = |transaction: &Transaction<'_>| {
        transaction.execute("UPDATE undecided SET payload = substr(payload, 1, 3)", [])
    };
    assert_eq!(bench.engine.store.write(damage).await.unwrap(), 1);
    for refused in [bench.commit(1).await.unwrap_err(), bench.rollback(1).await.unwrap_err()] {
        assert_eq!(refused.code(), Code::Internal);
        assert!(refused.message().contains("table undecided, row "), "{refused}");
        assert!(refused.message().contains("column checksum"), "{refused}");
    }
    let left = bench.engine.store.read(journal::count_undecided).await.unwrap();
    assert_eq!(left, 1, "the promise stands");
    let kept = "SELECT count(*) FROM undecided WHERE pending_commit IS NOT NULL";
    let kept: i64 = bench
        .engine
        .store
        .read(move |connection| connection.query_row(kept, [], |row| row.get(0)))
        .await
        .unwrap();
    assert_eq!(kept, 0, "no decision is kept of what is not known");
    bench.close().await;
}

#[tokio::test]
async fn a_row_under_another_key_or_with_another_epoch_is_not_acted_on() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    for number in 1..=3 {
        bench.prepare(number, 1).await;
    }
    bench.commit(2).await.unwrap();
    bench.close().await;
    let bench = Bench::open(&folder).await;
    for (damage, row) in [
        ("UPDATE undecided SET branch = 7 WHERE transaction_id < x'02'", transaction(1)),
        ("UPDATE decided SET branch = 7", transaction(2)),
    ] {
        let write = |transaction: &Transaction<'_>| transaction.execute(damage, []);
        assert_eq!(bench.engine.store.write(write).await.unwrap(), 1);
        let moved = CommitRequest { branch: 7, transaction_id: row.to_string(), ..commit(1) };
        let refused = bench.service.commit(Request::new(moved)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal);
        assert!(refused.message().contains("column checksum"), "{refused}");
    }
    let damage = "UPDATE coordinators SET epoch = epoch - 1";
    let write = |transaction: &Transaction<'_>| transaction.execute(damage, []);
    assert_eq!(bench.engine.store.write(write).await.unwrap(), 1);
    let refused = bench.commit(2).await.unwrap_err();
    assert!(refused.message().contains("table coordinators, row "), "{refused}");
    bench.close().await;
}

#[tokio::test]
async fn a_decision_that_was_kept_and_damaged_is_not_acted_on() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    bench.prepare(1, 1).await;
    bench.till.fail_settle.store(true, SeqCst);
    bench.commit(1).await.unwrap_err();
    bench.till.fail_settle.store(false, SeqCst);
    for (damage, column) in [
        ("UPDATE undecided SET pending_number = 7", "pending_checksum"),
        ("UPDATE undecided SET pending_number = NULL", "pending_commit"),
    ] {
        let write = |transaction: &Transaction<'_>| transaction.execute(damage, []);
        bench.engine.store.write(write).await.unwrap();
        let refused = bench.commit(1).await.unwrap_err();
        assert!(refused.message().contains(&format!("column {column}")), "{refused}");
    }
    assert_eq!(bench.till().await, (100, 1));
    bench.close().await;
}

#[tokio::test]
async fn a_promise_whose_batch_was_rolled_back_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let origin = Arc::new(Origin::parse("origin", Some(&origin())).unwrap());
    let take = |currency: &str| TakePayment {
        account: "a".into(),
        amount_minor: 30,
        currency: currency.into(),
        ..TakePayment::default()
    };
    let prepares = [(1, "EUR"), (2, ENDS_TRANSACTION)].map(|(number, currency)| Prepare {
        branch: branch(number),
        age: transaction(number),
        payload: wire::decode(
            Some(&Payload {
                kind: Some(payload::Kind::Typed(take(currency).encode_to_vec().into())),
            }),
            1000,
        ),
        one_phase: false,
        may_compensate: false,
    });
    let promised = prepares[0].branch;
    let batch = Batch { prepares: prepares.into(), decisions: vec![] };
    let answers = bench.engine.perform(origin, batch).await.unwrap();
    assert!(answers.votes.iter().all(|vote| vote.vote() == Vote::Abort));
    assert!(bench.engine.prepared_cache.take(&promised).is_none());
    // Nor is it believed if it were there.
    let (payload, output) = (take("EUR"), GetAccountRequest { account: "a".into() });
    let contents = (&payload.encode_to_vec()[..], &output.encode_to_vec()[..]);
    bench.engine.prepared_cache.keep(promised, contents, false);
    assert_eq!(bench.commit(1).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(bench.till().await, (100, 0));
    bench.close().await;
}
