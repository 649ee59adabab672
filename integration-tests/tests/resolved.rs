//! What an operator resolved, at participants that cannot ask: it is asserted until they
//! have acknowledged, and they get it when they are back.

use std::time::Duration;

use anyhow::ensure;
use dtc_proto::dtc::{
    AbandonRequest, Branch, BranchState, ForgetRequest, ListTransactionsRequest, Outcome,
    Resolution, ResolveRequest, Transaction, TransactionOptions, TransactionState,
    admin_service_client::AdminServiceClient,
};
use integration_tests::{
    Addresses, Binaries, Cluster, FakeParticipant, Fixture, Heard, Proxy, Reply, Speaks, Start,
    agree, channel, eventually, typed,
};
use shop_proto::ReserveStock;
use tonic::{Code, transport::Channel};

fn admin(fixture: &Fixture) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel(fixture.cluster.coordinator.address()))
}

/// A courier that cannot ask, behind a proxy.
struct Courier {
    speaks: Speaks,
    fake: FakeParticipant,
    proxy: Proxy,
}

impl Courier {
    async fn start(speaks: Speaks) -> Self {
        let fake = FakeParticipant::start(speaks).await.unwrap();
        let proxy = Proxy::start(fake.address()).await.unwrap();
        Self { speaks, fake, proxy }
    }

    fn is_away(&self, away: bool) {
        self.proxy.refuse(away);
        if away {
            self.proxy.cut();
        }
    }

    /// The decisions that it heard of, as (commit, number).
    fn decisions(&self) -> Vec<(bool, u32)> {
        let decision = |heard: Heard| match heard {
            Heard::Commit(it) => Some((true, it.decision_number)),
            Heard::Rollback(it) => Some((false, it.decision_number)),
            _ => None,
        };
        self.fake.heard().into_iter().filter_map(decision).collect()
    }
}

async fn fixture() -> Fixture {
    let mut cluster = Cluster::prepare(Binaries::test().unwrap(), Addresses::pick()).unwrap();
    let start = Start::new().arg("--retention=1s").arg("--backoff-cap=200ms");
    cluster.coordinator.start_with(start).await.unwrap();
    Fixture::of(cluster).await.unwrap()
}

/// A purchase whose courier promises, and then is away: committed, or rolled back, since
/// nobody has so many teapots.
async fn stuck(fixture: &Fixture, courier: &Courier, commit: bool) -> String {
    courier.fake.set_script(|heard| match heard {
        Heard::Prepare(_) => agree(heard),
        _ => Reply::Failed("the van is on fire".into()),
    });
    let mut request = Fixture::purchase("a").request_at_decision();
    let participant = courier.fake.uri_at(courier.proxy.address());
    // Over HTTP a typed one says nothing.
    let is_grpc = courier.speaks == Speaks::Calls;
    let payload = is_grpc.then(|| typed(&ReserveStock::default()));
    request.branches.push(Branch { participant, payload });
    request.options = Some(TransactionOptions {
        commit_attempt_timeout: Some(Duration::from_millis(500).try_into().unwrap()),
        ..TransactionOptions::default()
    });
    if !commit {
        // Nothing is reserved of nothing.
        request.branches[0].payload = Some(typed(&ReserveStock::default()));
    }
    let id = fixture.shop.execute(request).await.unwrap().transaction.unwrap().id;
    eventually("the courier is owed the decision", async || {
        let transaction = fixture.shop.transaction(&id).await?;
        let owed = match commit {
            true => TransactionState::Committing,
            false => TransactionState::Aborting,
        };
        ensure!(transaction.state() == owed, "{transaction:?}");
        ensure!(!courier.decisions().is_empty(), "not sent yet");
        Ok(())
    })
    .await
    .unwrap();
    courier.is_away(true);
    id
}

async fn resolve(fixture: &Fixture, id: &str, resolution: Resolution) -> Transaction {
    let request = ResolveRequest {
        transaction_id: id.into(),
        branch: Some(3),
        resolution: resolution.into(),
        reason: "delivered by ourselves".into(),
        caller: "ada".into(),
        wait: None,
    };
    admin(fixture).resolve(request).await.unwrap().into_inner().transaction.unwrap()
}

async fn forget(fixture: &Fixture, id: &str) -> Result<Transaction, tonic::Status> {
    let (reason, caller) = ("looked at".into(), "ada".into());
    let request = ForgetRequest { transaction_id: id.into(), reason, caller };
    Ok(admin(fixture).forget(request).await?.into_inner().transaction.unwrap())
}

fn is_asserted(transaction: &Transaction, resolution: Resolution) -> bool {
    let branch = &transaction.branches[3];
    branch.state() == BranchState::Asserted
        && branch.resolution() == resolution
        && branch.notification_owed
}

async fn gets_its_decision_when_it_is_back(speaks: Speaks, commit: bool) {
    let mut fixture = fixture().await;
    let courier = Courier::start(speaks).await;
    let id = stuck(&fixture, &courier, commit).await;
    let (resolution, state, outcome) = match commit {
        true => (Resolution::Commit, TransactionState::Committed, Outcome::Committed),
        false => (Resolution::Rollback, TransactionState::Aborted, Outcome::Aborted),
    };
    let ended = resolve(&fixture, &id, resolution).await;
    assert_eq!((ended.state(), ended.outcome()), (state, outcome), "{ended:?}");
    assert!(is_asserted(&ended, resolution), "{ended:?}");

    for _ in 0..2 {
        fixture.cluster.coordinator.restart().await.unwrap();
        let known = eventually("it is known again, and asserted", async || {
            let known = fixture.shop.transaction(&id).await?;
            ensure!(known.state() == state && is_asserted(&known, resolution), "{known:?}");
            Ok(known)
        })
        .await
        .unwrap();
        assert_eq!(known.outcome(), outcome);
    }
    let request = ListTransactionsRequest { notification_owed: true, ..Default::default() };
    let list = fixture.shop.transactions.clone().list(request).await.unwrap().into_inner();
    assert_eq!(list.transactions.iter().map(|it| &it.id).collect::<Vec<_>>(), [&id]);
    let refused = forget(&fixture, &id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("not notified of its resolution yet"), "{refused}");
    // Nobody waits for it.
    let other = fixture.shop.execute(Fixture::purchase("b").request()).await.unwrap();
    assert_eq!(other.transaction.unwrap().outcome(), Outcome::Committed);

    courier.fake.set_script(agree);
    courier.is_away(false);
    let done = eventually("it has acknowledged, and is shown so", async || {
        let known = fixture.shop.transaction(&id).await?;
        ensure!(!known.branches[3].notification_owed, "{known:?}");
        Ok(known)
    })
    .await
    .unwrap();
    let acknowledged = match commit {
        true => BranchState::Committed,
        false => BranchState::RolledBack,
    };
    assert_eq!((done.outcome(), done.branches[3].state()), (outcome, acknowledged), "{done:?}");
    assert_eq!(courier.decisions().last(), Some(&(commit, 2)));
    eventually("it can be forgotten", async || forget(&fixture, &id).await.map_err(Into::into))
        .await
        .unwrap();
}

#[tokio::test]
async fn one_that_speaks_http_commits_when_it_is_back() {
    gets_its_decision_when_it_is_back(Speaks::Http, true).await;
}

#[tokio::test]
async fn one_that_speaks_http_rolls_back_when_it_is_back() {
    gets_its_decision_when_it_is_back(Speaks::Http, false).await;
}

#[tokio::test]
async fn one_with_plain_calls_commits_when_it_is_back() {
    gets_its_decision_when_it_is_back(Speaks::Calls, true).await;
}

#[tokio::test]
async fn one_with_plain_calls_rolls_back_when_it_is_back() {
    gets_its_decision_when_it_is_back(Speaks::Calls, false).await;
}

#[tokio::test]
async fn one_that_did_the_opposite_of_what_was_asserted_is_told_of() {
    let fixture = fixture().await;
    let courier = Courier::start(Speaks::Http).await;
    let id = stuck(&fixture, &courier, true).await;
    let ended = resolve(&fixture, &id, Resolution::Commit).await;
    assert_eq!(ended.outcome(), Outcome::Committed);
    courier.fake.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::RolledBack,
        heard => agree(heard),
    });
    courier.is_away(false);
    eventually("it is mixed", async || {
        let known = fixture.shop.transaction(&id).await?;
        ensure!(known.outcome() == Outcome::HeuristicMixed, "{known:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_that_never_comes_back_is_abandoned_and_stays_asserted() {
    let mut fixture = fixture().await;
    let courier = Courier::start(Speaks::Http).await;
    let id = stuck(&fixture, &courier, true).await;
    resolve(&fixture, &id, Resolution::Commit).await;
    let request = AbandonRequest {
        transaction_id: id.clone(),
        branch: None,
        reason: "the courier was wound up".into(),
        caller: "ada".into(),
    };
    let abandoned = admin(&fixture).abandon(request.clone()).await.unwrap().into_inner();
    let branch = abandoned.transaction.unwrap().branches.remove(3);
    assert_eq!((branch.state(), branch.notification_owed), (BranchState::Asserted, false));
    fixture.cluster.coordinator.restart().await.unwrap();
    let known = fixture.shop.transaction(&id).await.unwrap();
    assert_eq!(known.branches[3].state(), BranchState::Asserted, "{known:?}");
    assert!(!known.branches[3].notification_owed);
    let refused = admin(&fixture).abandon(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    eventually("it can be forgotten", async || forget(&fixture, &id).await.map_err(Into::into))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_journal_that_is_named_with_commit_only_is_no_other_journal() {
    let fixture = fixture().await;
    let courier = FakeParticipant::start(Speaks::Http).await.unwrap();
    courier.vote_without_journal_id();
    let mut request = Fixture::purchase("a").request();
    request.branches.push(Branch { participant: courier.uri(), payload: None });
    let ended = fixture.shop.execute(request).await.unwrap().transaction.unwrap();
    assert_eq!(ended.outcome(), Outcome::Committed, "{ended:?}");
    assert_eq!(ended.branches[3].state(), BranchState::Committed);
}
