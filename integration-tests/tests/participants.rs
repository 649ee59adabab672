//! The real participants, driven by a coordinator by script: by calls and over
//! the link, and each of the three by the same tests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use integration_tests::{
    Addresses, Binaries, CURRENCY, Cluster, FakeCoordinator, FakeLink, Process, Role, Start,
    eventually, typed,
};
use prost::bytes::Bytes;
use proto::{
    dtc::{
        Acknowledgement, BranchOutcome, GetOutcomeRequest, GetOutcomeResponse, LinkCommit,
        LinkOutcome, LinkPrepare, LinkRequest, LinkRollback, Origin, Payload, Vote,
        recovery_service_server::{RecoveryService, RecoveryServiceServer},
    },
    shop::{OrderLine, OrderState, PlaceOrder, ReserveStock, StockLine, TakePayment},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

const PARTICIPANTS: [Role; 3] = [Role::Inventory, Role::Payment, Role::Order];
const IDENTITY: Uuid = Uuid::from_u128(0xc0_0000);
const RUN: Uuid = Uuid::from_u128(0xc0_0001);
const EPOCH: u64 = 5;

/// The three participants with some stock and money, and no coordinator.
async fn shop() -> (Cluster, integration_tests::Shop) {
    let addresses = Addresses::pick();
    let mut cluster = Cluster::prepare(Binaries::test().unwrap(), addresses).unwrap();
    for role in PARTICIPANTS {
        cluster.process(role).start().await.unwrap();
    }
    let shop = cluster.shop();
    shop.stock_up("teapot", 100).await.unwrap();
    shop.open_account("ada", 100).await.unwrap();
    (cluster, shop)
}

fn to(process: &Process) -> FakeCoordinator {
    FakeCoordinator::new(process.address(), IDENTITY, EPOCH, RUN)
}

/// Some work for a participant, 5 of whatever it has; `which` tells orders apart.
fn work(role: Role, which: u32) -> Payload {
    work_of(role, which, 5)
}

fn work_of(role: Role, which: u32, quantity: i64) -> Payload {
    match role {
        Role::Inventory => {
            let line = StockLine { sku: "teapot".into(), quantity, ..StockLine::default() };
            typed(&ReserveStock { lines: vec![line] })
        }
        Role::Payment => typed(&TakePayment {
            account: "ada".into(),
            amount_minor: quantity,
            currency: CURRENCY.into(),
            expected_version: None,
        }),
        _ => typed(&PlaceOrder {
            order_id: format!("order-{which}"),
            customer: "ada".into(),
            lines: vec![OrderLine { sku: "teapot".into(), quantity }],
            total_minor: quantity,
            currency: CURRENCY.into(),
            expected_version: None,
        }),
    }
}

/// What a participant has promised, and what it has done.
async fn effect(shop: &integration_tests::Shop, role: Role) -> (i64, i64) {
    match role {
        Role::Inventory => {
            let stock = shop.stock("teapot").await.unwrap();
            (stock.reserved, 100 - stock.on_hand)
        }
        Role::Payment => {
            let account = shop.account("ada").await.unwrap();
            (account.held_minor, 100 - account.balance_minor)
        }
        _ => {
            let mut sums = BTreeMap::<i32, i64>::new();
            for order in shop.all_orders().await.unwrap() {
                *sums.entry(order.state).or_default() += order.total_minor;
            }
            let sum = |state: OrderState| sums.get(&(state as i32)).copied().unwrap_or(0);
            (sum(OrderState::Pending), sum(OrderState::Confirmed))
        }
    }
}

fn id(number: u32) -> Uuid {
    Uuid::from_u128(0x0189_0000_0000_7000_8000_0000_0000_0000 + u128::from(number))
}

fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// Calls, or the same over a link.
enum Way {
    Calls(FakeCoordinator),
    Link(FakeLink),
}

/// What was answered to a decision.
#[derive(Debug, PartialEq)]
enum Answer {
    Committed,
    RolledBack,
    Unknown,
}

impl Way {
    async fn both(process: &Process) -> [Self; 2] {
        let mut link = to(process).link().await.unwrap();
        assert!(link.next().await.unwrap().hello.is_some());
        [Self::Calls(to(process)), Self::Link(link)]
    }

    async fn prepare(&mut self, transaction: Uuid, payload: Payload) -> Result<(), String> {
        let (vote, reason) = match self {
            Self::Calls(coordinator) => {
                let answer = coordinator.prepare(transaction, 0, payload).await.unwrap();
                assert!(!answer.journal_id.is_empty());
                (answer.vote(), answer.abort_reason)
            }
            Self::Link(link) => {
                let prepare = LinkPrepare {
                    transaction_id: bytes(transaction),
                    payload: Some(payload),
                    ..LinkPrepare::default()
                };
                let prepares = vec![prepare];
                link.send(LinkRequest { prepares, ..LinkRequest::default() }).await.unwrap();
                let vote = next_of(link, |it| it.votes).await;
                assert_eq!(vote.transaction_id, bytes(transaction));
                (vote.vote(), vote.abort_reason)
            }
        };
        match vote {
            Vote::Commit => Ok(()),
            Vote::Abort => Err(reason.unwrap().code),
            vote => panic!("{vote:?}"),
        }
    }

    async fn commit(&mut self, transaction: Uuid) -> Answer {
        match self {
            Self::Calls(coordinator) => match coordinator.commit(transaction, 0).await {
                Ok(_) => Answer::Committed,
                Err(status) if status.code() == Code::NotFound => Answer::Unknown,
                Err(status) if status.code() == Code::Aborted => Answer::RolledBack,
                Err(status) => panic!("{status}"),
            },
            Self::Link(link) => {
                let commit = LinkCommit {
                    transaction_id: bytes(transaction),
                    decision_number: 1,
                    ..LinkCommit::default()
                };
                let commits = vec![commit];
                link.send(LinkRequest { commits, ..LinkRequest::default() }).await.unwrap();
                acknowledgement(link).await
            }
        }
    }

    async fn rollback(&mut self, transaction: Uuid) -> Answer {
        match self {
            Self::Calls(coordinator) => {
                match coordinator.rollback(transaction, 0).await.unwrap().committed {
                    true => Answer::Committed,
                    false => Answer::RolledBack,
                }
            }
            Self::Link(link) => {
                let rollback = LinkRollback {
                    transaction_id: bytes(transaction),
                    decision_number: 1,
                    ..LinkRollback::default()
                };
                let rollbacks = vec![rollback];
                link.send(LinkRequest { rollbacks, ..LinkRequest::default() }).await.unwrap();
                acknowledgement(link).await
            }
        }
    }
}

/// The first entry of the next response that has one; questions are passed over.
async fn next_of<T>(link: &mut FakeLink, of: fn(proto::dtc::LinkResponse) -> Vec<T>) -> T {
    loop {
        if let Some(first) = of(link.next().await.unwrap()).into_iter().next() {
            return first;
        }
    }
}

async fn acknowledgement(link: &mut FakeLink) -> Answer {
    let answer = next_of(link, |it| it.acknowledgements).await;
    assert_eq!(answer.decision_number, 1);
    match answer.acknowledgement() {
        Acknowledgement::Committed => Answer::Committed,
        Acknowledgement::RolledBack => Answer::RolledBack,
        Acknowledgement::Unknown => Answer::Unknown,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_message_may_come_twice_late_or_in_any_order_and_counts_once() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let mut number = 0;
        let mut next = || {
            number += 1;
            id(number)
        };
        let mut committed = 0;
        for mut way in Way::both(cluster.process(role)).await {
            committed += 5;
            // Duplicates of each.
            let first = next();
            let payload = work(role, number_of(first));
            for _ in 0..2 {
                assert_eq!(way.prepare(first, payload.clone()).await, Ok(()), "{role:?}");
                assert_eq!(effect(&shop, role).await, (5, committed - 5), "{role:?}");
            }
            let other = work_of(role, number_of(first), 6);
            let refused = way.prepare(first, other.clone()).await;
            assert_eq!(refused, Err("OTHER_PAYLOAD".into()), "{role:?}");
            for _ in 0..2 {
                assert_eq!(way.commit(first).await, Answer::Committed, "{role:?}");
                assert_eq!(effect(&shop, role).await, (0, committed), "{role:?}");
            }
            assert_eq!(way.prepare(first, payload).await, Ok(()), "the first answer again");
            assert_eq!(way.prepare(first, other).await, Err("OTHER_PAYLOAD".into()));
            // Too late: it tells so, and undoes nothing.
            assert_eq!(way.rollback(first).await, Answer::Committed, "{role:?}");

            let second = next();
            let payload = work(role, number_of(second));
            assert_eq!(way.prepare(second, payload.clone()).await, Ok(()));
            for _ in 0..2 {
                assert_eq!(way.rollback(second).await, Answer::RolledBack, "{role:?}");
            }
            assert_eq!(way.prepare(second, payload).await, Err("ROLLED_BACK".into()));
            assert_eq!(way.commit(second).await, Answer::RolledBack, "a hazard, no success");

            // Rollback first: the late prepare is refused.
            let third = next();
            assert_eq!(way.rollback(third).await, Answer::RolledBack);
            let late = way.prepare(third, work(role, number_of(third))).await;
            assert_eq!(late, Err("ROLLED_BACK".into()), "{role:?}");

            assert_eq!(way.commit(next()).await, Answer::Unknown, "{role:?}");

            // An earlier run of something does not touch a later one.
            let (earlier, later) = (next(), next());
            assert_eq!(way.prepare(later, work(role, number_of(later))).await, Ok(()));
            assert_eq!(way.rollback(earlier).await, Answer::RolledBack);
            assert_eq!(effect(&shop, role).await, (5, committed), "{role:?}");
            assert_eq!(way.rollback(later).await, Answer::RolledBack);
            assert_eq!(effect(&shop, role).await, (0, committed), "{role:?}");
        }
        // All of it is known to another process on the same file.
        cluster.process(role).restart().await.unwrap();
        let coordinator = to(cluster.process(role));
        coordinator.commit(id(1), 0).await.unwrap();
        assert!(coordinator.rollback(id(1), 0).await.unwrap().committed);
        assert_eq!(coordinator.commit(id(2), 0).await.unwrap_err().code(), Code::Aborted);
        let late = coordinator.prepare(id(3), 0, work(role, 3)).await.unwrap();
        assert_eq!(late.abort_reason.unwrap().code, "ROLLED_BACK");
        assert_eq!(coordinator.commit(id(4), 0).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(effect(&shop, role).await, (0, committed), "{role:?}");
    }
}

fn number_of(id: Uuid) -> u32 {
    (id.as_u128() & 0xffff_ffff) as u32
}

#[tokio::test]
async fn one_phase_commits_at_once_and_repeats_its_answer() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let coordinator = to(cluster.process(role));
        for _ in 0..2 {
            let answer = coordinator.one_phase(id(1), 0, work(role, 1)).await.unwrap();
            assert!(answer.committed && answer.vote() == Vote::Commit, "{answer:?}");
            assert_eq!(effect(&shop, role).await, (0, 5), "{role:?}");
        }
        assert!(coordinator.rollback(id(1), 0).await.unwrap().committed, "asked, it tells");
        assert!(!coordinator.rollback(id(2), 0).await.unwrap().committed);
        let late = coordinator.one_phase(id(2), 0, work(role, 2)).await.unwrap();
        assert!(!late.committed && late.vote() == Vote::Abort, "{late:?}");
    }
}

#[tokio::test]
async fn a_replaced_run_is_refused_and_its_link_ended() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let process = cluster.process(role);
        let old = to(process);
        let mut link = old.link().await.unwrap();
        link.next().await.unwrap();
        assert!(old.prepare(id(1), 0, work(role, 1)).await.is_ok());

        let twin = old.run(EPOCH, Uuid::from_u128(9));
        let older = old.run(EPOCH - 1, Uuid::from_u128(9));
        for stale in [&twin, &older] {
            let refused = |status: Status| {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                assert!(status.message().contains("was replaced"), "{status}");
            };
            refused(stale.prepare(id(2), 0, work(role, 2)).await.unwrap_err());
            refused(stale.commit(id(1), 0).await.unwrap_err());
            refused(stale.rollback(id(1), 0).await.unwrap_err());
            let status = match stale.link().await {
                Err(status) => Some(status),
                Ok(mut link) => link.next().await.unwrap_err().downcast().ok(),
            };
            refused(status.unwrap());
        }
        assert_eq!(effect(&shop, role).await, (5, 0), "{role:?}: nothing was changed");

        let newer = old.run(EPOCH + 1, Uuid::from_u128(10));
        let mut newer_link = newer.link().await.unwrap();
        newer_link.next().await.unwrap();
        assert!(link.next().await.is_err(), "{role:?}: the old link ends");
        let status = old.commit(id(1), 0).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{role:?}");
        process.restart().await.unwrap();
        let status = old.commit(id(1), 0).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{role:?}: kept durably");
        newer.commit(id(1), 0).await.unwrap();
        assert_eq!(effect(&shop, role).await, (0, 5), "{role:?}");
    }
}

#[tokio::test]
async fn another_coordinator_has_branches_and_epochs_of_its_own() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let process = cluster.process(role);
        let one = to(process);
        let other =
            FakeCoordinator::new(process.address(), Uuid::from_u128(0xbee), 1, Uuid::from_u128(7));
        one.prepare(id(1), 0, work(role, 1)).await.unwrap();
        assert_eq!(other.commit(id(1), 0).await.unwrap_err().code(), Code::NotFound);
        assert!(!other.rollback(id(1), 0).await.unwrap().committed);
        assert_eq!(effect(&shop, role).await, (5, 0), "{role:?}: the same id, another's branch");
        let mut link = other.link().await.unwrap();
        link.next().await.unwrap();
        let told = LinkOutcome {
            transaction_id: bytes(id(1)),
            outcome: BranchOutcome::Aborted.into(),
            decision_number: 1,
            ..LinkOutcome::default()
        };
        link.send(LinkRequest { outcomes: vec![told], ..LinkRequest::default() }).await.unwrap();
        // A vote shows that what came before it was done.
        let prepare = LinkPrepare {
            transaction_id: bytes(id(2)),
            payload: Some(work(role, 2)),
            ..LinkPrepare::default()
        };
        let prepares = vec![prepare];
        link.send(LinkRequest { prepares, ..LinkRequest::default() }).await.unwrap();
        assert_eq!(next_of(&mut link, |it| it.votes).await.vote(), Vote::Commit);
        assert_eq!(effect(&shop, role).await, (10, 0), "{role:?}");
        one.commit(id(1), 0).await.unwrap();
        other.rollback(id(2), 0).await.unwrap();
        assert_eq!(effect(&shop, role).await, (0, 5), "{role:?}");
    }
}

#[tokio::test]
async fn a_branch_in_doubt_is_reported_on_a_new_link_and_does_what_it_is_told() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let process = cluster.process(role);
        let coordinator = to(process);
        for number in 1..=3 {
            coordinator.prepare(id(number), 0, work(role, number)).await.unwrap();
        }
        process.restart().await.unwrap();
        assert_eq!(effect(&shop, role).await, (15, 0), "{role:?}: a promise outlives a kill");
        // Another run of the same coordinator is asked, and told whose branches they are.
        let next = coordinator.run(EPOCH + 1, Uuid::from_u128(11));
        let mut link = next.link().await.unwrap();
        let mut asked = Vec::new();
        while asked.len() < 3 {
            asked.extend(link.next().await.unwrap().inquiries);
        }
        asked.truncate(3);
        asked.sort_by_key(|inquiry| inquiry.transaction_id.clone());
        for (number, inquiry) in (1..).zip(&asked) {
            assert_eq!(inquiry.transaction_id, bytes(id(number)));
            assert_eq!((inquiry.epoch, &inquiry.incarnation), (EPOCH, &bytes(RUN)));
        }
        let outcome = |number, outcome: BranchOutcome| LinkOutcome {
            transaction_id: bytes(id(number)),
            outcome: outcome.into(),
            decision_number: 1,
            ..LinkOutcome::default()
        };
        let outcomes = vec![
            outcome(1, BranchOutcome::Committed),
            outcome(2, BranchOutcome::Aborted),
            outcome(3, BranchOutcome::NotMine),
            // Of an unknown branch: no effect, and no tombstone.
            outcome(4, BranchOutcome::Aborted),
        ];
        link.send(LinkRequest { outcomes, ..LinkRequest::default() }).await.unwrap();
        eventually("two are settled, and one is still in doubt", async || {
            let now = effect(&shop, role).await;
            ensure!(now == (5, 5), "{now:?}");
            Ok(())
        })
        .await
        .unwrap();
        // It is asked about again, and 'pending' decides nothing either.
        let again = next_of(&mut link, |it| it.inquiries).await;
        assert_eq!(again.transaction_id, bytes(id(3)), "{role:?}");
        let outcomes = vec![outcome(3, BranchOutcome::Pending)];
        link.send(LinkRequest { outcomes, ..LinkRequest::default() }).await.unwrap();
        let unknown = next.prepare(id(4), 0, work(role, 4)).await.unwrap();
        assert_eq!(unknown.vote(), Vote::Commit);
        assert_eq!(effect(&shop, role).await, (10, 5), "{role:?}: still in doubt");
        next.commit(id(3), 0).await.unwrap();
        next.rollback(id(4), 0).await.unwrap();
        assert_eq!(effect(&shop, role).await, (0, 10), "{role:?}");
    }
}

/// Answers questions of participants that have no link to it.
struct Recovery {
    origin: Origin,
    answers: BTreeMap<String, BranchOutcome>,
    asked: tokio::sync::mpsc::UnboundedSender<GetOutcomeRequest>,
}

#[tonic::async_trait]
impl RecoveryService for Recovery {
    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<GetOutcomeResponse>, Status> {
        let request = request.into_inner();
        let outcome = self.answers.get(&request.transaction_id);
        let outcome = outcome.copied().unwrap_or(BranchOutcome::NotMine).into();
        let _ = self.asked.send(request);
        let origin = Some(self.origin.clone());
        Ok(Response::new(GetOutcomeResponse {
            outcome,
            decision_number: 1,
            origin,
            ..GetOutcomeResponse::default()
        }))
    }
}

#[tokio::test]
async fn without_a_link_a_branch_in_doubt_asks_where_its_coordinator_said() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut coordinator = to(cluster.process(role));
        coordinator.origin.recovery_address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
        let outcomes = [BranchOutcome::Committed, BranchOutcome::Aborted, BranchOutcome::NotMine];
        let answers = (1..).zip(outcomes).map(|(number, it)| (id(number).to_string(), it));
        let recovery =
            Recovery { origin: coordinator.origin.clone(), answers: answers.collect(), asked };
        let server = tonic::transport::Server::builder()
            .add_service(RecoveryServiceServer::new(recovery))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(server);
        for number in 1..=3 {
            coordinator.prepare(id(number), 0, work(role, number)).await.unwrap();
        }
        eventually("two are settled, and one is still in doubt", async || {
            let now = effect(&shop, role).await;
            ensure!(now == (5, 5), "{now:?}");
            Ok(())
        })
        .await
        .unwrap();
        let question = questions.recv().await.unwrap();
        assert_eq!(question.coordinator_id, IDENTITY.to_string());
        assert_eq!((question.epoch, question.incarnation), (EPOCH, RUN.to_string()));
        coordinator.commit(id(3), 0).await.unwrap();
        serving.abort();
    }
}

#[tokio::test]
async fn a_version_that_was_checked_holds_until_the_decision() {
    let (cluster, shop) = shop().await;
    let coordinator = to(&cluster.inventory);
    let version = shop.stock("teapot").await.unwrap().version;
    let line = |quantity, expected_version, check_only| {
        let line = StockLine { sku: "teapot".into(), quantity, expected_version, check_only };
        typed(&ReserveStock { lines: vec![line] })
    };
    let refusal = async |number, payload| {
        let answer = coordinator.prepare(id(number), 0, payload).await.unwrap();
        assert_eq!(answer.vote(), Vote::Abort, "{answer:?}");
        answer.abort_reason.unwrap()
    };
    let vote =
        async |number, payload| coordinator.prepare(id(number), 0, payload).await.unwrap().vote();

    let wrong = refusal(1, line(1, Some(version + 7), false)).await;
    assert_eq!(wrong.code, "VERSION_CHANGED");
    assert!(wrong.message.contains("lines[0].expected_version"), "{wrong:?}");
    // Merely looking is read-only, looking at a version is a promise.
    assert_eq!(vote(2, line(1, None, true)).await, Vote::ReadOnly);
    assert_eq!(vote(3, line(1, Some(version), true)).await, Vote::Commit);
    assert_eq!(vote(4, line(2, Some(version), true)).await, Vote::Commit, "readers don't collide");
    assert_eq!(refusal(5, line(1, None, false)).await.code, "VERSION_HELD");
    coordinator.commit(id(3), 0).await.unwrap();
    assert_eq!(refusal(6, line(1, None, false)).await.code, "VERSION_HELD");
    coordinator.rollback(id(4), 0).await.unwrap();
    assert_eq!(shop.stock("teapot").await.unwrap().version, version);

    // A prepared change makes a check of the version it will change impossible.
    assert_eq!(vote(7, line(1, None, false)).await, Vote::Commit);
    assert_eq!(refusal(8, line(1, Some(version), true)).await.code, "VERSION_HELD");
    coordinator.commit(id(7), 0).await.unwrap();
    let stock = shop.stock("teapot").await.unwrap();
    assert_eq!((stock.version, stock.on_hand), (version + 1, 99));
    assert_eq!(refusal(9, line(1, Some(version), true)).await.code, "VERSION_CHANGED");

    let coordinator = to(&cluster.payment);
    let version = shop.account("ada").await.unwrap().version;
    let pay = |expected| {
        typed(&TakePayment {
            account: "ada".into(),
            amount_minor: 1,
            currency: CURRENCY.into(),
            expected_version: Some(expected),
        })
    };
    let first = coordinator.prepare(id(1), 0, pay(version)).await.unwrap();
    assert_eq!(first.vote(), Vote::Commit);
    let second = coordinator.prepare(id(2), 0, pay(version)).await.unwrap();
    assert_eq!(second.abort_reason.unwrap().code, "VERSION_HELD", "write skew");
    coordinator.commit(id(1), 0).await.unwrap();
    let third = coordinator.prepare(id(3), 0, pay(version)).await.unwrap();
    assert_eq!(third.abort_reason.unwrap().code, "VERSION_CHANGED");
}

#[tokio::test]
async fn reservations_are_escrow_so_that_a_hot_item_is_shared() {
    let (mut cluster, shop) = shop().await;
    for role in [Role::Inventory, Role::Payment] {
        let coordinator = to(cluster.process(role));
        for number in 1..=4 {
            let answer = coordinator.prepare(id(number), 0, work_of(role, number, 25)).await;
            assert_eq!(answer.unwrap().vote(), Vote::Commit, "{role:?}");
        }
        assert_eq!(effect(&shop, role).await, (100, 0), "{role:?}");
        let fifth = coordinator.prepare(id(5), 0, work_of(role, 5, 1)).await.unwrap();
        let reason = fifth.abort_reason.unwrap();
        assert!(["OUT_OF_STOCK", "INSUFFICIENT_FUNDS"].contains(&reason.code.as_str()));
        coordinator.rollback(id(1), 0).await.unwrap();
        let sixth = coordinator.prepare(id(6), 0, work_of(role, 6, 20)).await.unwrap();
        assert_eq!(sixth.vote(), Vote::Commit, "{role:?}: what was rolled back can be had");
        for number in [2, 3, 4, 6] {
            coordinator.commit(id(number), 0).await.unwrap();
        }
        assert_eq!(effect(&shop, role).await, (0, 95), "{role:?}");
    }
    // An order that was cancelled may be placed again, a pending one may not.
    let coordinator = to(&cluster.order);
    let place = async |number| {
        let answer = coordinator.prepare(id(number), 0, work(Role::Order, 1)).await.unwrap();
        answer.abort_reason.map(|reason| reason.code)
    };
    assert_eq!(place(1).await, None);
    assert_eq!(place(2).await.as_deref(), Some("ORDER_EXISTS"));
    coordinator.rollback(id(1), 0).await.unwrap();
    assert_eq!(place(3).await, None);
    coordinator.commit(id(3), 0).await.unwrap();
    assert_eq!(place(4).await.as_deref(), Some("ORDER_EXISTS"));
}

#[tokio::test]
async fn what_is_malformed_is_refused_by_its_field() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let good = to(cluster.process(role));
        let with = |change: fn(&mut Origin)| {
            let mut coordinator = good.clone();
            change(&mut coordinator.origin);
            coordinator
        };
        for (bad, field) in [
            (with(|it| it.coordinator_id.clear()), "origin.coordinator_id"),
            (with(|it| it.coordinator_id = "me".into()), "origin.coordinator_id"),
            (with(|it| it.incarnation = "now".into()), "origin.incarnation"),
        ] {
            let prepare = bad.prepare(id(1), 0, work(role, 1)).await.unwrap_err();
            let commit = bad.commit(id(1), 0).await.unwrap_err();
            let rollback = bad.rollback(id(1), 0).await.unwrap_err();
            for status in [prepare, commit, rollback] {
                assert_eq!(status.code(), Code::InvalidArgument, "{status}");
                assert!(status.message().contains(field), "{status}");
            }
        }
        let mut link = good.link().await.unwrap();
        link.next().await.unwrap();
        let short = LinkPrepare {
            transaction_id: Bytes::from_static(b"short"),
            payload: Some(work(role, 1)),
            ..LinkPrepare::default()
        };
        link.send(LinkRequest { prepares: vec![short], ..LinkRequest::default() }).await.unwrap();
        let error = link.next().await.unwrap_err();
        let status: &Status = error.downcast_ref().context("the link fails by a status").unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("prepares.transaction_id"), "{status}");
        assert_eq!(effect(&shop, role).await, (0, 0), "{role:?}");
    }
}

#[tokio::test]
async fn undecided_branches_are_bounded_and_a_decision_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let program = Binaries::test().unwrap().path(Role::Order);
    let address = Addresses::pick().order;
    let mut process = Process::new("order", &program, folder.path(), address);
    process.start_with(Start::new().arg("--max-undecided").arg("2")).await.unwrap();
    let coordinator = Arc::new(to(&process));
    let place = async |number| {
        let answer = coordinator.prepare(id(number), 0, work(Role::Order, number)).await.unwrap();
        answer.abort_reason
    };
    assert_eq!((place(1).await, place(2).await), (None, None));
    let refused = place(3).await.unwrap();
    assert_eq!(refused.code, "TOO_MANY_UNDECIDED");
    assert!(refused.message.contains("the limit is 2"), "{refused:?}");
    coordinator.commit(id(1), 0).await.unwrap();
    assert_eq!(place(4).await, None);
    let stopped = tokio::time::timeout(Duration::from_secs(30), process.stop()).await;
    assert!(stopped.unwrap().unwrap().success());
}
