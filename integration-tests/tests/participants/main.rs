//! The real participants, driven by a coordinator by script: by calls and over
//! the link, and each of the three by the same tests.

mod domain;
mod in_doubt;
mod messages;
mod runs;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use dtc_proto::dtc::{
    Acknowledgement, BranchOutcome, GetOutcomeRequest, GetOutcomeResponse, LinkCommit, LinkOutcome,
    LinkPrepare, LinkRequest, LinkRollback, Origin, Payload, Vote,
    recovery_service_server::{RecoveryService, RecoveryServiceServer},
};
use integration_tests::{
    Addresses, Binaries, CURRENCY, Cluster, DEADLINE, FakeCoordinator, FakeLink, Process, Role,
    Start, eventually, typed,
};
use prost::bytes::Bytes;
use shop_proto::{OrderLine, OrderState, PlaceOrder, ReserveStock, StockLine, TakePayment};
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
async fn next_of<T>(link: &mut FakeLink, of: fn(dtc_proto::dtc::LinkResponse) -> Vec<T>) -> T {
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

fn number_of(id: Uuid) -> u32 {
    (id.as_u128() & 0xffff_ffff) as u32
}
