//! A network that fails on demand: a TCP proxy in this process.

use std::{io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Pieces a second of what is throttled.
const PIECES: u32 = 50;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected to who listens.
    ToServer,
    /// Back.
    ToClient,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who connected.
    Client,
    /// Who listens.
    Server,
}

#[derive(Debug, Clone, Default)]
struct Conditions {
    held_to_server: bool,
    held_to_client: bool,
    refusing: bool,
    delay: Duration,
    /// Bytes a second and direction; 0 for no limit.
    rate: u32,
    /// Connections are open at this end only.
    half_open: Option<End>,
    /// Connections of an earlier number are cut.
    generation: u64,
}

impl Conditions {
    fn held(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.held_to_server,
            Direction::ToClient => self.held_to_client,
        }
    }
}

/// Passes connections on to a server, until told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    conditions: Arc<watch::Sender<Conditions>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `server`, on a free port.
    ///
    /// # Errors
    ///
    /// When there is no port to be had.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let conditions = Arc::new(watch::Sender::new(Conditions::default()));
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&conditions)));
        Ok(Self { address, conditions, accepting })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds back bytes of one direction. They are not lost, as TCP loses none.
    pub fn hold(&self, direction: Direction) {
        self.set_held(direction, true);
    }

    /// Lets them through again.
    pub fn release(&self, direction: Direction) {
        self.set_held(direction, false);
    }

    /// Delays each piece, both ways.
    pub fn delay(&self, delay: Duration) {
        self.conditions.send_modify(|conditions| conditions.delay = delay);
    }

    /// Lets so many bytes a second through, each way of each connection; none for
    /// as many as there are.
    pub fn throttle(&self, bytes_per_second: Option<NonZeroU32>) {
        let rate = bytes_per_second.map_or(0, NonZeroU32::get);
        self.conditions.send_modify(|conditions| conditions.rate = rate);
    }

    /// Leaves connections open at one end only, as after a crash of the machine at
    /// the other: what is sent there vanishes, and nothing comes. New connections
    /// are accepted and lead nowhere. `None` ends that, and resets all of them.
    pub fn half_open(&self, end: Option<End>) {
        self.conditions.send_modify(|conditions| conditions.half_open = end);
    }

    /// Resets all connections; what was held back on them is lost.
    pub fn cut(&self) {
        self.conditions.send_modify(|conditions| conditions.generation += 1);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.conditions.send_modify(|conditions| conditions.refusing = refusing);
    }

    /// No faults any more. Connections stay as they are.
    pub fn clear(&self) {
        self.conditions.send_modify(|conditions| {
            let generation = conditions.generation;
            *conditions = Conditions { generation, ..Conditions::default() };
        });
    }

    fn set_held(&self, direction: Direction, held: bool) {
        self.conditions.send_modify(|conditions| match direction {
            Direction::ToServer => conditions.held_to_server = held,
            Direction::ToClient => conditions.held_to_client = held,
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    conditions: Arc<watch::Sender<Conditions>>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if conditions.borrow().refusing {
            continue;
        }
        tokio::spawn(carry(client, server, conditions.subscribe()));
    }
}

/// How one connection goes on.
enum Fate {
    Ended,
    Cut,
    HalfOpen(End),
}

/// Carries one connection until one end closes it or it is cut.
async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    conditions: watch::Receiver<Conditions>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    if conditions.borrow().half_open.is_some() {
        return swallow(client, conditions).await;
    }
    let generation = conditions.borrow().generation;
    let mut server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    // Whichever ends first, both sockets are closed.
    let fate = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let (to_server, to_client) = (Direction::ToServer, Direction::ToClient);
        tokio::select! {
            _ = pump(client_read, server_write, to_server, conditions.clone()) => Fate::Ended,
            _ = pump(server_read, client_write, to_client, conditions.clone()) => Fate::Ended,
            fate = disturbance(generation, conditions.clone()) => fate,
        }
    };
    match fate {
        Fate::Ended => Ok(()),
        Fate::Cut => reset(&client).and(reset(&server)),
        Fate::HalfOpen(End::Client) => {
            drop(server);
            swallow(client, conditions).await
        }
        Fate::HalfOpen(End::Server) => {
            drop(client);
            swallow(server, conditions).await
        }
    }
}

/// What becomes of a connection of this generation.
async fn disturbance(generation: u64, mut conditions: watch::Receiver<Conditions>) -> Fate {
    let hit = |conditions: &Conditions| {
        conditions.generation > generation || conditions.half_open.is_some()
    };
    match conditions.wait_for(hit).await {
        Ok(conditions) if conditions.generation == generation => {
            conditions.half_open.map_or(Fate::Cut, Fate::HalfOpen)
        }
        _ => Fate::Cut,
    }
}

/// Closing it will not end the connection in good order.
fn reset(stream: &TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}

/// Reads and forgets, until connections are whole again.
async fn swallow(
    mut stream: TcpStream,
    mut conditions: watch::Receiver<Conditions>,
) -> io::Result<()> {
    reset(&stream)?;
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        result = tokio::io::copy(&mut stream, &mut nowhere) => result.map(drop),
        _ = conditions.wait_for(|conditions| conditions.half_open.is_none()) => Ok(()),
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut conditions: watch::Receiver<Conditions>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        let delay = conditions.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut rest = &buffer[..size];
        while !rest.is_empty() {
            if conditions.wait_for(|conditions| !conditions.held(direction)).await.is_err() {
                return Ok(());
            }
            let piece = match conditions.borrow().rate {
                0 => rest.len(),
                rate => rest.len().min((rate / PIECES).max(1) as usize),
            };
            to.write_all(&rest[..piece]).await?;
            rest = &rest[piece..];
            if conditions.borrow().rate > 0 {
                tokio::time::sleep(Duration::from_secs(1) / PIECES).await;
            }
        }
    }
}
