//! Bad bytes for every method of every service, against real processes.
//!
//! The methods come from the descriptors of everything that is on the wire, so
//! that a new one cannot be forgotten; a participant's answers are sent, too. A
//! seed determines all that is sent.

mod byzantine_participant;
mod call;
mod message;
mod socket;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use bytes::Bytes;
use dtc_proto::dtc::{
    ListTransactionsRequest, Origin, RollbackRequest, RollbackTransactionRequest, TransactionState,
    participant_service_client::ParticipantServiceClient,
};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::{Connection, OpenFlags};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use uuid::Uuid;

use crate::{Fixture, Process, Role, channel, eventually};
use byzantine_participant::ByzantineParticipant;
use call::{End, call, framed, prefixed};
use message::{Maker, Words};

/// Calls that wait for their answers.
const AT_A_TIME: usize = 24;
/// What a process may come to, in KiB: several times what it needs.
const MAX_MEMORY: u64 = 512 << 10;
/// File descriptors that a process may have open when all is quiet.
const MAX_FILES: usize = 100;
/// Answers of a participant in a batch that lies: most are the end of its link.
const LIES: usize = 20;
/// Of the services' own: reflection and health come with their libraries.
const OWN: [&str; 2] = ["dtc.v1", "shop.v1"];

/// What no transaction is to stay in.
const UNFINISHED: [TransactionState; 5] = [
    TransactionState::Active,
    TransactionState::Preparing,
    TransactionState::Prepared,
    TransactionState::Committing,
    TransactionState::Aborting,
];

/// A method of one process.
#[derive(Debug, Clone)]
struct Method {
    path: String,
    input: MessageDescriptor,
    address: SocketAddr,
}

/// A cluster that is sent bad bytes.
pub struct Fuzz {
    fixture: Fixture,
    byzantine_participant: ByzantineParticipant,
    methods: Vec<Method>,
    words: Words,
    ids: Vec<Option<u32>>,
    orders: i64,
}

impl Fuzz {
    /// Starts a cluster and finds out which of its processes has which method.
    ///
    /// # Errors
    ///
    /// When it doesn't come to serve, or a method is nowhere.
    pub async fn start() -> anyhow::Result<Self> {
        let mut fixture = Fixture::start().await?;
        let ids = Role::ALL.map(|role| fixture.cluster.process(role).id()).to_vec();
        let methods = methods(&mut fixture).await?;
        let coordinator = run_of(&fixture.cluster.coordinator)?;
        let words = Words { coordinator, transactions: vec![], promised: vec![] };
        let answer = DescriptorPool::decode(dtc_proto::FILE_DESCRIPTOR_SET)?
            .get_message_by_name("dtc.v1.LinkResponse")
            .context("a link's answers have a type")?;
        let byzantine_participant = ByzantineParticipant::start(answer).await?;
        Ok(Self { fixture, byzantine_participant, methods, words, ids, orders: 0 })
    }

    /// The methods that are called, as `/package.Service/Method`.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.iter().map(|method| method.path.as_str())
    }

    /// Sends `count` calls and some nonsense that is no call, then looks at what
    /// that did.
    ///
    /// # Errors
    ///
    /// When a process is not what it was.
    pub async fn batch(&mut self, seed: u64, count: usize) -> anyhow::Result<()> {
        let mut dice = StdRng::seed_from_u64(seed);
        self.words.transactions = self.begin_some().await?;
        self.words.promised = self.byzantine_participant.enlist(&self.fixture.shop).await?;
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut calls = JoinSet::new();
        for number in 0..count {
            // Each method in turn, so that none is left out by chance.
            let method = self.methods[number % self.methods.len()].clone();
            let mut maker = Maker { dice: &mut dice, words: &self.words };
            let nonsense = maker.one_in(20).then(|| socket::nonsense(maker.dice));
            let (chunks, end) = body(&mut maker, &method.input);
            let place = Arc::clone(&places).acquire_owned().await?;
            let to = channel(method.address);
            calls.spawn(async move {
                let _place = place;
                if let Some(nonsense) = nonsense {
                    socket::send(method.address, nonsense).await;
                }
                call(to, &method.path, chunks, end).await;
            });
        }
        self.byzantine_participant
            .lie(&mut Maker { dice: &mut dice, words: &self.words }, LIES)
            .await?;
        calls.join_all().await;
        self.check().await.with_context(|| format!("after the batch of seed {seed}"))
    }

    /// Some transactions that calls may name.
    async fn begin_some(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for _ in 0..4 {
            self.orders += 1;
            let order = format!("open-{}", self.orders);
            ids.push(self.fixture.shop.begin(&Fixture::purchase(&order)).await?);
        }
        Ok(ids)
    }

    /// All four live, serve and are small; nothing is left behind; and an order
    /// goes through.
    async fn check(&mut self) -> anyhow::Result<()> {
        for (role, id) in Role::ALL.into_iter().zip(self.ids.clone()) {
            let process = self.fixture.cluster.process(role);
            let log = process.log();
            let last = log.lines().rev().take(3).collect::<Vec<_>>().join("\n");
            ensure!(process.is_running()? && process.id() == id, "{role:?} has ended: {last}");
            let bug = log.lines().find(|line| line.contains("panicked") || line.contains("a bug:"));
            ensure!(bug.is_none(), "{role:?}: {bug:?}");
            let mut health = HealthClient::new(channel(process.address()));
            let status = health.check(HealthCheckRequest::default()).await?.into_inner().status();
            ensure!(status == ServingStatus::Serving, "{role:?} is {status:?}");
        }
        self.roll_back_open().await?;
        eventually("nothing is left behind", async || self.nothing_is_left().await).await?;
        self.orders += 1;
        let order = format!("order-{}", self.orders);
        let placed = self.fixture.shop.place(&Fixture::purchase(&order)).await?;
        ensure!(placed.committed, "an order does not go through: {placed:?}");
        Ok(())
    }

    /// What clients began and left.
    async fn roll_back_open(&self) -> anyhow::Result<()> {
        let mut client = self.fixture.shop.transactions.clone();
        let states = vec![TransactionState::Active.into(), TransactionState::Prepared.into()];
        let request = ListTransactionsRequest { states, page_size: 1000, ..Default::default() };
        for transaction in client.list(request).await?.into_inner().transactions {
            let transaction_id = transaction.id;
            let request = RollbackTransactionRequest { transaction_id, ..Default::default() };
            // It may have ended meanwhile.
            let _ = client.rollback(request).await;
        }
        Ok(())
    }

    async fn nothing_is_left(&mut self) -> anyhow::Result<()> {
        self.roll_back_open().await?;
        let states = UNFINISHED.map(i32::from).to_vec();
        let request = ListTransactionsRequest { states, page_size: 1, ..Default::default() };
        let mut client = self.fixture.shop.transactions.clone();
        let unfinished = client.list(request).await?.into_inner().transactions;
        ensure!(unfinished.is_empty(), "not finished: {:?}", unfinished[0]);
        for role in Role::ALL {
            let process = self.fixture.cluster.process(role);
            let (memory, files) = (process.memory_kib()?, process.open_files()?);
            ensure!(memory <= MAX_MEMORY, "{role:?} has {memory} KiB, the limit is {MAX_MEMORY}");
            ensure!(files <= MAX_FILES, "{role:?} has {files} files open");
            if role == Role::Coordinator {
                continue;
            }
            roll_back_forged(process).await?;
            let left: i64 =
                open(process)?.query_row("SELECT count(*) FROM undecided", [], |row| row.get(0))?;
            ensure!(left == 0, "{left} undecided branches at {role:?}");
        }
        let stock = self.fixture.shop.stock("teapot").await?;
        ensure!(stock.reserved == 0, "{} teapots are reserved", stock.reserved);
        let account = self.fixture.shop.account("ada").await?;
        ensure!(account.held_minor == 0, "{} are held", account.held_minor);
        let sold = Fixture::STOCK - stock.on_hand;
        ensure!(
            Fixture::BALANCE - account.balance_minor == sold * Fixture::PRICE,
            "{sold} were sold"
        );
        Ok(())
    }

    /// What each process has come to, in KiB.
    ///
    /// # Errors
    ///
    /// When one doesn't run.
    pub fn memory_kib(&mut self) -> anyhow::Result<[u64; 4]> {
        let mut all = [0; 4];
        for role in Role::ALL {
            all[role as usize] = self.fixture.cluster.process(role).memory_kib()?;
        }
        Ok(all)
    }
}

/// A body of one message or several, framed well or badly.
fn body(maker: &mut Maker<'_>, input: &MessageDescriptor) -> (Vec<Bytes>, End) {
    let end = match maker.dice.random_range(0..20) {
        0 => End::Stall,
        1 => End::Reset,
        _ => End::Clean,
    };
    let message = maker.encoded(input);
    let length = message.len() as u32;
    let chunks = match maker.dice.random_range(0..24) {
        0 => vec![prefixed(maker.dice.random(), length, &message)],
        1 => vec![prefixed(0, u32::MAX, &message)],
        2 => vec![prefixed(0, length + 1, &message)],
        3 => vec![prefixed(0, maker.dice.random(), &message)],
        4 => vec![prefixed(0, length, b"")],
        5 => vec![message],
        6 => vec![],
        // Many tiny ones, and the prefix in pieces.
        7 => vec![framed(b""); 500],
        8 => framed(&message).chunks(3).take(1000).map(Bytes::copy_from_slice).collect(),
        9..12 => (0..5).map(|_| framed(&maker.encoded(input))).collect(),
        _ => vec![framed(&message)],
    };
    (chunks, end)
}

async fn methods(fixture: &mut Fixture) -> anyhow::Result<Vec<Method>> {
    let mut pool = DescriptorPool::decode(dtc_proto::FILE_DESCRIPTOR_SET)?;
    pool.decode_file_descriptor_set(shop_proto::DESCRIPTORS.encoded())?;
    let addresses = Role::ALL.map(|role| fixture.cluster.process(role).address());
    let mut methods = Vec::new();
    for service in pool.services().filter(|service| OWN.contains(&service.package_name())) {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let before = methods.len();
            for address in addresses {
                if call::has(channel(address), &path).await? {
                    methods.push(Method { path: path.clone(), input: method.input(), address });
                }
            }
            ensure!(methods.len() > before, "{path} is served by nobody");
        }
    }
    Ok(methods)
}

fn open(process: &Process) -> anyhow::Result<Connection> {
    Ok(Connection::open_with_flags(process.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

/// The coordinator's identity and run, from its file.
fn run_of(coordinator: &Process) -> anyhow::Result<(String, u64, String)> {
    let sql = "SELECT store_id, epoch, incarnation FROM meta";
    Ok(open(coordinator)?.query_row(sql, [], |row| {
        let (id, epoch, incarnation): (_, i64, _) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let text = |bytes| Uuid::from_bytes(bytes).to_string();
        Ok((text(id), epoch.cast_unsigned(), text(incarnation)))
    })?)
}

/// Ends what was prepared in the name of a coordinator that there isn't.
async fn roll_back_forged(process: &Process) -> anyhow::Result<()> {
    let mut requests = Vec::new();
    {
        let connection = open(process)?;
        let mut select = connection.prepare(
            "SELECT transaction_id, branch, coordinator_id, known.epoch, known.incarnation
             FROM undecided JOIN coordinators AS known USING (coordinator_id)",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let text = |index| row.get(index).map(|bytes| Uuid::from_bytes(bytes).to_string());
            requests.push(RollbackRequest {
                origin: Some(Origin {
                    coordinator_id: text(2)?,
                    epoch: row.get::<_, i64>(3)?.cast_unsigned(),
                    incarnation: text(4)?,
                    recovery_address: String::new(),
                }),
                transaction_id: text(0)?,
                branch: row.get(1)?,
                decision_number: u32::MAX,
                ..RollbackRequest::default()
            });
        }
    }
    let mut client: ParticipantServiceClient<Channel> =
        ParticipantServiceClient::new(channel(process.address()));
    for request in requests {
        client.rollback(request).await?;
    }
    Ok(())
}
