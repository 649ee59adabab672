//! A domain whose things are used by one transaction at a time: desks.

use std::sync::atomic::AtomicI64;

use dtc_proto::dtc::{
    Acknowledgement, LinkCommit, LinkPrepare, LinkRequest, LinkRollback, LinkVote, Vote,
};
use tokio::task::JoinHandle;
use tonic::Code;

use super::{
    link::{Peer, id},
    *,
};
use crate::{
    resolutions::HeuristicDecision,
    wire::{self, Batch, Decision, Origin, Prepare},
};

/// Only looks.
const LOOKS: i64 = 0;
/// Is refused.
const BROKEN: i64 = 1;
/// Fails after it has written.
const FAILS: i64 = 2;

/// The account names the desks that a payload wants.
#[derive(Clone, Default)]
struct Desks {
    fail_settle: Arc<AtomicBool>,
    panic: Arc<AtomicBool>,
    prepared: Arc<AtomicI64>,
}

impl Desks {
    fn leave(
        &self,
        transaction: &Transaction<'_>,
        payload: &TakePayment,
        used: i64,
    ) -> Result<(), Error> {
        if self.fail_settle.load(SeqCst) {
            return Err(Error::Inconsistent("as the test wants"));
        }
        for desk in payload.account.split(' ') {
            let leave = "UPDATE desks SET taken = taken - 1, used = used + ?2 WHERE name = ?1";
            transaction.execute(leave, (desk, used))?;
        }
        Ok(())
    }
}

impl ResourceManager for Desks {
    const NAME: &'static str = "desks";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS desks (
            name TEXT PRIMARY KEY, taken INTEGER NOT NULL CHECK (taken BETWEEN 0 AND 1),
            used INTEGER NOT NULL
        );
        INSERT OR IGNORE INTO desks VALUES ('a', 0, 0), ('b', 0, 0);
    ";
    type Payload = TakePayment;
    type Output = ();

    fn descriptors() -> &'static dtc_proto::Descriptors {
        &shop_proto::DESCRIPTORS
    }

    fn locks(&self, payload: &TakePayment) -> Vec<String> {
        assert!(!self.panic.load(SeqCst), "as the test wants");
        payload.account.split(' ').map(Into::into).collect()
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
    ) -> Result<crate::Vote<()>, Error> {
        self.prepared.fetch_add(1, SeqCst);
        if payload.currency == ENDS_TRANSACTION {
            transaction.execute_batch("ROLLBACK")?;
            return Err(Error::Inconsistent("as the test wants"));
        }
        match payload.amount_minor {
            LOOKS => return Ok(crate::Vote::ReadOnly),
            BROKEN => return Ok(crate::Vote::Abort(Refusal::new("BROKEN", "it is broken"))),
            _ => {}
        }
        // The table's check finds out when somebody else has it.
        for desk in payload.account.split(' ') {
            transaction.execute("UPDATE desks SET taken = taken + 1 WHERE name = ?1", [desk])?;
        }
        match payload.amount_minor {
            FAILS => Err(Error::Inconsistent("as the test wants")),
            _ => Ok(crate::Vote::Commit(())),
        }
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        (): &(),
    ) -> Result<(), Error> {
        self.leave(transaction, payload, 1)
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        (): &(),
    ) -> Result<(), Error> {
        self.leave(transaction, payload, 0)
    }
}

type Office = Bench<Desks>;

async fn open(folder: &TempDir) -> Office {
    open_with(folder, limits()).await
}

async fn open_with(folder: &TempDir, limits: Limits) -> Office {
    Office::of(folder.path(), limits, options_of::<Desks>(), Desks::default()).await
}

impl Office {
    /// How often a desk was used.
    async fn used(&self, desk: &'static str) -> i64 {
        let sql = "SELECT used FROM desks WHERE name = ?1";
        let read = move |connection: &rusqlite::Connection| {
            connection.query_row(sql, [desk], |row| row.get(0))
        };
        self.engine.store.read(read).await.unwrap()
    }

    async fn wants(&self, number: u8, desks: &str) -> PrepareResponse {
        let sent = self.send(wants(number, desks));
        tokio::time::timeout(Duration::from_secs(20), sent).await.expect("no wait").unwrap()
    }

    /// A call that has to wait.
    async fn waits(&self, number: u8, desks: &str) -> Call {
        let before = self.waiting();
        let service = Service { engine: Arc::clone(&self.engine) };
        let request = Request::new(wants(number, desks));
        let call =
            tokio::spawn(
                async move { service.prepare(request).await.map(tonic::Response::into_inner) },
            );
        self.wait_until(before + 1).await;
        call
    }

    fn waiting(&self) -> i64 {
        self.engine.metrics.parked.get()
    }

    async fn wait_until(&self, waiting: i64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.waiting() != waiting {
            assert!(Instant::now() < deadline, "{} wait, not {waiting}", self.waiting());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn held(&self) -> i64 {
        self.engine.metrics.locks_held.get()
    }
}

type Call = JoinHandle<Result<PrepareResponse, Status>>;

async fn answer(call: Call) -> Result<PrepareResponse, Status> {
    tokio::time::timeout(Duration::from_secs(20), call).await.expect("an answer").unwrap()
}

async fn granted(call: Call) {
    assert_eq!(answer(call).await.unwrap().vote(), Vote::Commit);
}

fn payload_of(desks: &str, amount_minor: i64) -> Payload {
    let take = TakePayment { account: desks.into(), amount_minor, ..TakePayment::default() };
    Payload { kind: Some(payload::Kind::Typed(take.encode_to_vec().into())) }
}

fn wants(number: u8, desks: &str) -> PrepareRequest {
    PrepareRequest { payload: Some(payload_of(desks, 9)), ..prepare(number, 9) }
}

fn link_wants(numbers: &[u8], desks: &str) -> LinkRequest {
    let prepare = |&number: &u8| LinkPrepare {
        transaction_id: id(number),
        payload: Some(payload_of(desks, 9)),
        ..LinkPrepare::default()
    };
    LinkRequest { prepares: numbers.iter().map(prepare).collect(), ..LinkRequest::default() }
}

fn link_commit(number: u8) -> LinkRequest {
    let commit =
        LinkCommit { transaction_id: id(number), decision_number: 1, ..LinkCommit::default() };
    LinkRequest { commits: vec![commit], ..LinkRequest::default() }
}

fn message(response: &PrepareResponse) -> &str {
    &response.abort_reason.as_ref().unwrap().message
}

#[tokio::test]
async fn a_younger_branch_dies_and_its_retry_keeps_the_age() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    assert_eq!(office.wants(5, "a b").await.vote(), Vote::Commit);
    let dies = office.wants(6, "b").await;
    assert_eq!(code(&dies), "DEADLOCK");
    let expected = format!(
        "deadlock: key 'b' is held by transaction {}, which is older, and only the older one may \
         wait; try again as a new transaction with retry_of = {}",
        transaction(5),
        transaction(6)
    );
    assert_eq!(message(&dies), expected);
    assert_eq!(office.count("decided").await, 0, "it may come again");
    assert_eq!(office.till.prepared.load(SeqCst), 1, "the domain was not asked");
    assert_eq!(office.engine.metrics.deadlocks.get(), 1);

    office.commit(5).await.unwrap();
    let retry = PrepareRequest { retry_of: transaction(6).to_string(), ..wants(8, "b") };
    assert_eq!(office.send(retry).await.unwrap().vote(), Vote::Commit);
    let dies = office.wants(7, "b").await;
    assert_eq!(code(&dies), "DEADLOCK", "7 is younger than 8, which began as 6");
    office.close().await;
}

#[tokio::test]
async fn an_older_branch_waits_and_goes_on_when_the_commit_comes() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a b").await;
    let two = office.waits(2, "b").await;
    let dies = office.wants(4, "b").await;
    assert!(message(&dies).contains("'b' is waited for by transaction"), "{dies:?}");
    office.commit(5).await.unwrap();
    granted(three).await;
    assert_eq!((office.held(), office.waiting()), (2, 1));
    office.rollback(3).await.unwrap();
    granted(two).await;
    office.commit(2).await.unwrap();
    assert_eq!((office.held(), office.waiting()), (0, 0));
    assert_eq!((office.used("a").await, office.used("b").await), (1, 1));
    office.close().await;
}

#[tokio::test]
async fn on_one_link_any_number_waits_for_commits_that_come_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    let address = office.serve().await;
    let (mut peer, _) = Peer::greet(&address, origin()).await;
    let first = peer.ask(link_wants(&[100], "a")).await.unwrap();
    assert_eq!(first.votes[0].vote(), Vote::Commit);
    // More than there may be batches under way.
    for number in (60..100).rev() {
        peer.requests.send(link_wants(&[number], "a")).await.unwrap();
    }
    for number in (60..=100).rev() {
        peer.requests.send(link_commit(number)).await.unwrap();
        let (mut vote, mut told) = (number == 60, false);
        while !(vote && told) {
            let response = peer.receive().await.unwrap();
            for one in &response.votes {
                assert_eq!((one.vote(), &one.transaction_id), (Vote::Commit, &id(number - 1)));
                vote = true;
            }
            for one in &response.acknowledgements {
                assert_eq!(one.acknowledgement(), Acknowledgement::Committed);
                told = true;
            }
        }
    }
    assert_eq!(office.used("a").await, 41);
    office.close().await;
}

#[tokio::test]
async fn whose_decision_has_come_may_be_waited_for_by_a_younger_one() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    let address = office.serve().await;
    let (mut peer, _) = Peer::greet(&address, origin()).await;
    peer.ask(link_wants(&[5], "a")).await.unwrap();
    let both = LinkRequest { prepares: link_wants(&[6], "a").prepares, ..link_commit(5) };
    peer.requests.send(both).await.unwrap();
    let mut votes: Vec<LinkVote> = Vec::new();
    while votes.is_empty() {
        votes = peer.receive().await.unwrap().votes;
    }
    assert_eq!(votes[0].vote(), Vote::Commit, "{votes:?}");
    office.close().await;
}

#[tokio::test]
async fn locks_outlive_a_restart_with_their_age() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    let retry = PrepareRequest { retry_of: transaction(4).to_string(), ..wants(9, "a") };
    office.send(retry).await.unwrap();
    office.wants(7, "b").await;
    office.close().await;

    let office = open(&folder).await;
    assert_eq!(office.held(), 2, "nothing was asked yet");
    assert_eq!(code(&office.wants(5, "a").await), "DEADLOCK", "9 began as 4");
    let three = office.waits(3, "a b").await;
    office.commit(9).await.unwrap();
    office.rollback(7).await.unwrap();
    granted(three).await;
    office.close().await;
}

#[tokio::test]
async fn a_rollback_ends_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a b").await;
    let two = office.waits(2, "b").await;
    assert!(!office.rollback(3).await.unwrap());
    assert_eq!(code(&answer(three).await.unwrap()), "ROLLED_BACK");
    granted(two).await;
    assert_eq!(code(&office.wants(3, "a").await), "ROLLED_BACK");
    office.commit(5).await.unwrap();
    office.commit(2).await.unwrap();
    assert_eq!((office.held(), office.waiting()), (0, 0));
    assert_eq!((office.used("a").await, office.used("b").await), (1, 1));
    office.close().await;
}

#[tokio::test]
async fn a_duplicate_takes_the_place_of_what_waits_and_finds_what_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    assert_eq!(office.wants(5, "a").await.vote(), Vote::Commit);
    let first = office.waits(3, "a").await;
    let service = Service { engine: Arc::clone(&office.engine) };
    let second: Call = tokio::spawn(async move {
        let request = Request::new(wants(3, "a"));
        service.prepare(request).await.map(tonic::Response::into_inner)
    });
    assert_eq!(answer(first).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(code(&office.wants(3, "b").await), "OTHER_PAYLOAD");
    office.commit(5).await.unwrap();
    granted(second).await;
    assert_eq!(office.wants(3, "a").await.vote(), Vote::Commit);
    assert_eq!(code(&office.wants(3, "b").await), "OTHER_PAYLOAD");
    assert_eq!(office.held(), 1, "another payload takes nothing from the promise");
    office.commit(3).await.unwrap();
    assert_eq!(office.wants(3, "a").await.vote(), Vote::Commit);
    assert_eq!((office.held(), office.used("a").await), (0, 2));
    office.close().await;
}

#[tokio::test]
async fn what_comes_to_no_promise_gives_its_locks_back() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_undecided: 2, ..limits() };
    let office = open_with(&folder, limits).await;
    let with = |number, amount| {
        office.send(PrepareRequest { payload: Some(payload_of("a", amount)), ..wants(number, "a") })
    };
    assert_eq!(with(1, LOOKS).await.unwrap().vote(), Vote::ReadOnly);
    assert_eq!(code(&with(2, BROKEN).await.unwrap()), "BROKEN");
    assert_eq!(code(&with(3, FAILS).await.unwrap()), "PARTICIPANT_ERROR");
    let one_phase = PrepareRequest { one_phase: true, ..wants(4, "a") };
    assert!(office.send(one_phase).await.unwrap().committed);
    let old = dtc::Origin { epoch: 4, ..origin() };
    let stale = PrepareRequest { origin: Some(old), ..wants(5, "a") };
    assert_eq!(office.send(stale).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(office.held(), 0);
    // Who waits may find no room once it can go on.
    office.wants(9, "a").await;
    let eight = office.waits(8, "a").await;
    office.wants(7, "b").await;
    let mut batch = batch_of(&[(6, "c", 9, "")]);
    let branch = BranchId { transaction: transaction(9), ..batch.prepares[0].branch };
    batch.decisions.push(Decision::commit(branch, 1));
    office.engine.perform(known(), batch).await.unwrap();
    assert_eq!(code(&answer(eight).await.unwrap()), "TOO_MANY_UNDECIDED");
    assert_eq!((office.held(), office.waiting()), (2, 0));
    office.close().await;
}

fn batch_of(prepares: &[(u8, &str, i64, &str)]) -> Batch<Desks> {
    let prepare = |&(number, desks, amount_minor, currency): &(u8, &str, i64, &str)| {
        let take = TakePayment {
            account: desks.into(),
            amount_minor,
            currency: currency.into(),
            ..TakePayment::default()
        };
        let kind = Some(payload::Kind::Typed(take.encode_to_vec().into()));
        Prepare {
            branch: BranchId {
                coordinator: coordinator(),
                transaction: transaction(number),
                number: 0,
            },
            age: transaction(number),
            payload: wire::decode(Some(&Payload { kind }), 1000),
            one_phase: false,
            may_compensate: false,
        }
    };
    Batch { prepares: prepares.iter().map(prepare).collect(), ..Batch::default() }
}

fn known() -> Arc<Origin> {
    Arc::new(Origin::parse("origin", Some(&origin())).unwrap())
}

#[tokio::test]
async fn a_neighbour_that_fails_after_it_has_written_changes_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    let batch = batch_of(&[(1, "a", 9, ""), (2, "b", FAILS, "")]);
    let answers = office.engine.perform(known(), batch).await.unwrap();
    let votes: Vec<_> = answers.votes.iter().map(LinkVote::vote).collect();
    assert_eq!(votes, [Vote::Commit, Vote::Abort]);
    assert_eq!(office.held(), 1);
    assert_eq!(office.wants(3, "b").await.vote(), Vote::Commit);
    assert_eq!(code(&office.wants(4, "a").await), "DEADLOCK");
    office.close().await;
}

#[tokio::test]
async fn a_batch_that_the_storage_rolls_back_gives_its_locks_back() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(9, "a").await;
    let batch = batch_of(&[(1, "b", 9, ""), (2, "c", 9, ENDS_TRANSACTION)]);
    let answers = office.engine.perform(known(), batch).await.unwrap();
    assert!(answers.votes.iter().all(|vote| vote.vote() == Vote::Abort), "{answers:?}");
    assert_eq!(office.held(), 1, "only what was promised before");
    assert_eq!(office.wants(3, "b c").await.vote(), Vote::Commit);
    office.close().await;
}

#[tokio::test]
async fn a_commit_that_fails_keeps_the_lock_until_it_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    office.till.fail_settle.store(true, SeqCst);
    assert!(office.commit(5).await.is_err());
    assert_eq!(office.held(), 1);
    let six = office.waits(6, "a").await;
    office.till.fail_settle.store(false, SeqCst);
    office.commit(5).await.unwrap();
    granted(six).await;
    office.close().await;
}

#[tokio::test]
async fn what_is_decided_by_hand_lets_its_lock_go() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a").await;
    let five = BranchId { coordinator: coordinator(), transaction: transaction(5), number: 0 };
    let force = HeuristicDecision { commit: true, reason: "stuck".into(), caller: "test".into() };
    office.engine.resolve(five, force).await.unwrap().unwrap();
    granted(three).await;
    assert_eq!(office.used("a").await, 1);
    office.close().await;
}

#[tokio::test]
async fn whom_nobody_waits_for_any_more_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a").await;
    let two = office.waits(2, "a").await;
    three.abort();
    assert!(three.await.unwrap_err().is_cancelled());
    office.commit(5).await.unwrap();
    granted(two).await;
    assert_eq!(office.count("undecided").await, 1, "3 has promised nothing");
    office.close().await;
}

#[tokio::test]
async fn a_wait_ends_and_says_for_whom_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let office = open_with(&folder, Limits { lock_wait: Duration::ZERO, ..limits() }).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a b").await;
    let two = office.waits(2, "b").await;
    office.engine.end_overdue();
    for call in [three, two] {
        let ended = answer(call).await.unwrap();
        assert_eq!(code(&ended), "LOCK_TIMEOUT");
        assert!(message(&ended).contains("but key '"), "{ended:?}");
    }
    assert_eq!(office.engine.metrics.lock_timeouts.get(), 2);
    // They are told before they are counted.
    office.wait_until(0).await;
    assert_eq!(office.held(), 1);
    assert_eq!(office.count("decided").await, 0);
    assert_eq!(office.wants(8, "b").await.vote(), Vote::Commit);
    office.close().await;
}

#[tokio::test]
async fn a_wait_that_nobody_waits_for_leaves_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a").await;
    let two = office.waits(2, "a").await;
    three.abort();
    assert!(three.await.unwrap_err().is_cancelled());
    office.engine.end_overdue();
    office.wait_until(1).await;
    assert_eq!(office.engine.metrics.lock_timeouts.get(), 0, "nobody is told");
    office.commit(5).await.unwrap();
    granted(two).await;
    office.close().await;
}

#[tokio::test]
async fn a_wait_counts_from_its_first_attempt() {
    let lock_wait = Duration::from_secs(1);
    let folder = tempfile::tempdir().unwrap();
    let office = open_with(&folder, Limits { lock_wait, ..limits() }).await;
    office.wants(5, "a").await;
    let first = office.waits(3, "a").await;
    tokio::time::sleep(lock_wait).await;
    let service = Service { engine: Arc::clone(&office.engine) };
    let second: Call = tokio::spawn(async move {
        let request = Request::new(wants(3, "a"));
        service.prepare(request).await.map(tonic::Response::into_inner)
    });
    assert_eq!(answer(first).await.unwrap_err().code(), Code::Unavailable);
    office.engine.end_overdue();
    assert_eq!(code(&answer(second).await.unwrap()), "LOCK_TIMEOUT");
    office.close().await;
}

#[tokio::test]
async fn a_stop_ends_the_waits() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    office.wants(5, "a").await;
    let three = office.waits(3, "a").await;
    office.engine.environment.shutdown.begin();
    assert_eq!(answer(three).await.unwrap_err().code(), Code::Unavailable);
    office.close().await;
}

#[tokio::test]
async fn branches_of_one_transaction_share_a_lock() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    let address = office.serve().await;
    let (mut peer, _) = Peer::greet(&address, origin()).await;
    let mut both = link_wants(&[5, 5], "c");
    both.prepares[1].branch = 1;
    let response = peer.ask(both).await.unwrap();
    assert_eq!(response.votes.iter().filter(|vote| vote.vote() == Vote::Commit).count(), 2);
    peer.requests.send(link_wants(&[4], "c")).await.unwrap();
    office.wait_until(1).await;
    let rollback = |branch| LinkRollback {
        transaction_id: id(5),
        branch,
        decision_number: 1,
        ..LinkRollback::default()
    };
    let rollbacks = vec![rollback(0)];
    peer.ask(LinkRequest { rollbacks, ..LinkRequest::default() }).await.unwrap();
    assert_eq!((office.held(), office.waiting()), (1, 1));
    let rollbacks = vec![rollback(1)];
    let mut votes =
        peer.ask(LinkRequest { rollbacks, ..LinkRequest::default() }).await.unwrap().votes;
    while votes.is_empty() {
        votes = peer.receive().await.unwrap().votes;
    }
    assert_eq!((votes[0].vote(), &votes[0].transaction_id), (Vote::Commit, &id(4)));
    office.close().await;
}

#[tokio::test]
async fn a_domain_that_panics_over_its_locks_fails_the_branch_and_starts_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let office = open(&folder).await;
    assert_eq!(office.wants(1, "a").await.vote(), Vote::Commit);
    office.till.panic.store(true, SeqCst);
    assert_eq!(code(&office.wants(2, "b").await), "PARTICIPANT_PANICKED");
    office.close().await;

    // What was promised holds its keys, whatever the domain says of them now.
    let desks = Desks::default();
    desks.panic.store(true, SeqCst);
    let office = Office::of(folder.path(), limits(), options_of::<Desks>(), desks).await;
    office.till.panic.store(false, SeqCst);
    assert_eq!(code(&office.wants(3, "a").await), "DEADLOCK");
    office.commit(1).await.unwrap();
    assert_eq!(office.wants(4, "a").await.vote(), Vote::Commit);
    office.close().await;
}
