//! A network that fails on demand: a TCP proxy in this process.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected to who listens.
    ToServer,
    /// Back.
    ToClient,
}

#[derive(Debug, Clone, Default)]
struct Weather {
    held_to_server: bool,
    held_to_client: bool,
    refusing: bool,
    delay: Duration,
    /// Connections of an earlier number are cut.
    generation: u64,
}

impl Weather {
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
    weather: Arc<watch::Sender<Weather>>,
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
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&weather)));
        Ok(Self { address, weather, accepting })
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
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Cuts all connections; what was held back on them is lost.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.weather.send_modify(|weather| weather.refusing = refusing);
    }

    fn set_held(&self, direction: Direction, held: bool) {
        self.weather.send_modify(|weather| match direction {
            Direction::ToServer => weather.held_to_server = held,
            Direction::ToClient => weather.held_to_client = held,
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, weather: Arc<watch::Sender<Weather>>) {
    while let Ok((client, _)) = listener.accept().await {
        if weather.borrow().refusing {
            continue;
        }
        tokio::spawn(carry(client, server, weather.subscribe()));
    }
}

/// Carries one connection until one end closes it or it is cut.
async fn carry(client: TcpStream, server: SocketAddr, weather: watch::Receiver<Weather>) {
    let generation = weather.borrow().generation;
    let mut cut = weather.clone();
    let carried = async {
        let server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::select! {
            result = pump(client_read, server_write, Direction::ToServer, weather.clone()) => result,
            result = pump(server_read, client_write, Direction::ToClient, weather) => result,
        }
    };
    // Whichever ends first, both sockets are closed.
    tokio::select! {
        _ = carried => {}
        _ = cut.wait_for(|weather| weather.generation > generation) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if weather.wait_for(|weather| !weather.held(direction)).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..size]).await?;
    }
}
