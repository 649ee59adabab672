//! What an operator sees and does.

use std::sync::atomic::AtomicU64;

use dtc_proto::dtc::{
    BranchKey, ForgetBranchRequest, ListResolvedRequest, ListUndecidedRequest, Resolution,
    ResolveBranchRequest, ResolvedBranch, UndecidedBranch,
    participant_admin_service_server::ParticipantAdminService,
};
use dtc_service::Peer;
use tonic::{Code, Response};

use super::*;
use crate::admin::Admin;

/// Milliseconds since 1970.
const NOON: u64 = 1_800_000_000_123;

struct Desk {
    bench: Bench,
    admin: Admin<Till>,
    wall_clock: Arc<AtomicU64>,
}

impl Desk {
    async fn open(folder: &TempDir) -> Self {
        let wall_clock = Arc::new(AtomicU64::new(NOON));
        let shown = Arc::clone(&wall_clock);
        let environment = Environment {
            wall_clock: Arc::new(move || Duration::from_millis(shown.load(SeqCst))),
            ..Environment::real()
        };
        let till = Till::default();
        let bench = Bench::within(environment, folder.path(), limits(), options(), till).await;
        Self { admin: Admin { engine: Arc::clone(&bench.engine) }, bench, wall_clock }
    }

    async fn undecided(
        &self,
        request: ListUndecidedRequest,
    ) -> Result<(Vec<UndecidedBranch>, String), Status> {
        let response = self.admin.list_undecided(Request::new(request));
        let response = tokio::time::timeout(Duration::from_secs(10), response).await.expect("ends");
        response.map(Response::into_inner).map(|page| (page.branches, page.next_page_token))
    }

    /// The numbers on a page of so many, and where the next begins.
    async fn page(&self, page_size: u32, page_token: &str, older_than: i64) -> (Vec<u8>, String) {
        let older_than = Some(prost_types::Duration { seconds: older_than, nanos: 0 });
        let page_token = page_token.into();
        let request = ListUndecidedRequest { older_than, page_size, page_token };
        let (branches, next) = self.undecided(request).await.unwrap();
        (branches.iter().map(|it| number(it.key.as_ref())).collect(), next)
    }

    async fn resolve(&self, request: ResolveBranchRequest) -> Result<(), Status> {
        self.admin.resolve_branch(Request::new(request)).await.map(drop)
    }

    async fn resolved(&self, page_size: u32, page_token: &str) -> (Vec<ResolvedBranch>, String) {
        let request = ListResolvedRequest { page_size, page_token: page_token.into() };
        let page = self.admin.list_resolved(Request::new(request)).await.unwrap().into_inner();
        (page.branches, page.next_page_token)
    }

    async fn forget(&self, number: u8) -> Result<(), Status> {
        let (reason, caller) = ("done".into(), "somebody".into());
        let request = ForgetBranchRequest { key: Some(key(number)), reason, caller };
        self.admin.forget_branch(Request::new(request)).await.map(drop)
    }
}

fn key(number: u8) -> BranchKey {
    BranchKey {
        coordinator_id: coordinator().to_string(),
        transaction_id: transaction(number).to_string(),
        branch: 0,
    }
}

fn number(key: Option<&BranchKey>) -> u8 {
    let id: TransactionId = key.unwrap().transaction_id.parse().unwrap();
    id.as_bytes()[0]
}

fn token(number: u8) -> String {
    format!("{}/0/{}", transaction(number), coordinator())
}

fn by_hand(number: u8, resolution: Resolution) -> ResolveBranchRequest {
    ResolveBranchRequest {
        key: Some(key(number)),
        resolution: resolution.into(),
        reason: "stuck".into(),
        caller: "somebody".into(),
    }
}

#[tokio::test]
async fn what_is_undecided_is_shown_with_what_is_known_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder).await;
    let recovery_address = "http://127.0.0.1:7100".to_owned();
    let known = dtc::Origin { recovery_address: recovery_address.clone(), ..origin() };
    desk.bench.send(PrepareRequest { origin: Some(known), ..prepare(1, 5) }).await.unwrap();
    for number in [2, 3] {
        desk.bench.prepare(number, 5).await;
    }
    desk.wall_clock.fetch_add(90_500, SeqCst);
    desk.bench.till.fail_settle.store(true, SeqCst);
    desk.bench.commit(2).await.unwrap_err();
    desk.bench.rollback(3).await.unwrap_err();
    let unknown = BranchId { coordinator: coordinator(), transaction: transaction(2), number: 0 };
    let engine = &desk.bench.engine;
    engine.not_mine.note(&[unknown], &engine.metrics);

    let (branches, next) = desk.undecided(ListUndecidedRequest::default()).await.unwrap();
    let first = UndecidedBranch {
        key: Some(key(1)),
        prepared_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 123_000_000 }),
        age: Some(prost_types::Duration { seconds: 90, nanos: 500_000_000 }),
        decided: Resolution::Unspecified.into(),
        recovery_address,
        not_mine: false,
    };
    assert_eq!((&branches[0], next.as_str()), (&first, ""));
    let others: Vec<_> =
        branches[1..].iter().map(|it| (it.key.clone(), it.decided(), it.not_mine)).collect();
    let expected =
        [(Some(key(2)), Resolution::Commit, true), (Some(key(3)), Resolution::Rollback, false)];
    assert_eq!(others, expected);
    desk.bench.close().await;
}

#[tokio::test]
async fn what_is_undecided_is_listed_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder).await;
    for number in [1, 3, 4, 5] {
        desk.bench.prepare(number, 1).await;
    }
    desk.wall_clock.fetch_add(60_000, SeqCst);
    desk.bench.prepare(2, 1).await;
    assert_eq!(desk.page(2, "", 0).await, (vec![1, 2], token(2)));
    assert_eq!(desk.page(2, &token(2), 0).await, (vec![3, 4], token(4)));
    assert_eq!(desk.page(2, &token(4), 0).await, (vec![5], String::new()));
    assert_eq!(desk.page(0, "", 0).await, (vec![1, 2, 3, 4, 5], String::new()));
    assert_eq!(desk.page(1000, "", 0).await.0.len(), 5);
    // By their age, pages are as large.
    assert_eq!(desk.page(2, "", 60).await, (vec![1, 3], token(3)));
    assert_eq!(desk.page(2, &token(3), 60).await, (vec![4, 5], token(5)));
    assert_eq!(desk.page(2, &token(5), 60).await, (vec![], String::new()));
    assert_eq!(desk.page(2, "", 61).await, (vec![], String::new()));
    desk.bench.close().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder).await;
    let all = ListUndecidedRequest::default;
    let older_than = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    for (request, expected) in [
        (ListUndecidedRequest { page_size: 1001, ..all() }, "page_size: 1001 is out of range"),
        (ListUndecidedRequest { page_token: "page 2".into(), ..all() }, "page_token: 'page 2'"),
        (ListUndecidedRequest { older_than, ..all() }, "older_than: "),
    ] {
        let status = desk.undecided(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(expected), "{status}");
    }
    let hand = || by_hand(1, Resolution::Commit);
    let odd = BranchKey { coordinator_id: "c".into(), ..key(1) };
    for (request, expected) in [
        (ResolveBranchRequest { key: None, ..hand() }, "key is missing"),
        (ResolveBranchRequest { key: Some(odd), ..hand() }, "key.coordinator_id: 'c'"),
        (by_hand(1, Resolution::Unspecified), "resolution: is missing"),
        (ResolveBranchRequest { reason: String::new(), ..hand() }, "reason: has 0 characters"),
        (ResolveBranchRequest { reason: "  ".into(), ..hand() }, "reason: has 2 characters"),
        (ResolveBranchRequest { reason: "x".repeat(1001), ..hand() }, "reason: has 1001"),
        (ResolveBranchRequest { caller: "x".repeat(201), ..hand() }, "caller: has 201"),
    ] {
        let status = desk.resolve(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(expected), "{status}");
    }
    let longest =
        ResolveBranchRequest { reason: "x".repeat(1000), caller: "x".repeat(200), ..hand() };
    assert_eq!(desk.resolve(longest).await.unwrap_err().code(), Code::NotFound);
    desk.bench.close().await;
}

#[tokio::test]
async fn a_hand_decides_what_is_undecided_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder).await;
    for number in 1..=3 {
        desk.bench.prepare(number, 10).await;
    }
    desk.resolve(by_hand(1, Resolution::Commit)).await.unwrap();
    desk.resolve(by_hand(2, Resolution::Rollback)).await.unwrap();
    assert_eq!(desk.bench.till().await, (90, 10));
    let metrics = &desk.bench.engine.metrics;
    let counted = (metrics.commits.get(), metrics.rollbacks.get(), metrics.undecided.get());
    assert_eq!(counted, (1, 1, 1));
    let status = desk.resolve(by_hand(1, Resolution::Rollback)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("it is committed already"), "{status}");
    let status = desk.resolve(by_hand(2, Resolution::Commit)).await.unwrap_err();
    assert!(status.message().starts_with("it is rolled back already"), "{status}");
    let status = desk.resolve(by_hand(9, Resolution::Commit)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    desk.bench.till.fail_settle.store(true, SeqCst);
    let status = desk.resolve(by_hand(3, Resolution::Commit)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().ends_with("as the test wants"), "{status}");
    desk.bench.close().await;
}

#[tokio::test]
async fn what_was_decided_by_hand_is_shown_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder).await;
    for number in 1..=3 {
        desk.bench.prepare(number, 10).await;
    }
    for (number, resolution) in
        [(1, Resolution::Commit), (3, Resolution::Commit), (2, Resolution::Rollback)]
    {
        let mut request = Request::new(by_hand(number, resolution));
        if number == 3 {
            request.extensions_mut().insert(Peer(([10, 0, 0, 1], 4000).into()));
        }
        desk.admin.resolve_branch(request).await.unwrap();
    }
    let shown = |number, resolution: Resolution, from| ResolvedBranch {
        key: Some(key(number)),
        resolution: resolution.into(),
        at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 123_000_000 }),
        reason: "stuck".into(),
        caller: format!("somebody ({from})"),
    };
    let (newest, next) = desk.resolved(2, "").await;
    let expected = [
        shown(3, Resolution::Commit, "10.0.0.1:4000"),
        shown(2, Resolution::Rollback, "in process"),
    ];
    assert_eq!((&newest[..], next.clone()), (&expected[..], token(2)));
    let (oldest, next) = desk.resolved(2, &next).await;
    assert_eq!((oldest, next), (vec![shown(1, Resolution::Commit, "in process")], String::new()));

    desk.forget(2).await.unwrap();
    let left: Vec<_> =
        desk.resolved(0, "").await.0.iter().map(|it| number(it.key.as_ref())).collect();
    assert_eq!(left, [3, 1]);
    for number in [2, 9] {
        assert_eq!(desk.forget(number).await.unwrap_err().code(), Code::NotFound);
    }
    desk.bench.close().await;
}
