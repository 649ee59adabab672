//! The proxy holds back, releases, cuts, refuses, throttles and half-opens.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use integration_tests::{Direction, End, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A server that echoes, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Proxy::start(address).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    stream.read_exact(&mut [0; 5]).await.map(|_| ())
}

#[tokio::test]
async fn held_bytes_come_when_they_are_released() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        round_trip(&mut stream).await.unwrap();
        proxy.hold(direction);
        stream.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        let waiting = Duration::from_millis(100);
        assert!(tokio::time::timeout(waiting, stream.read_exact(&mut buffer)).await.is_err());
        proxy.release(direction);
        stream.read_exact(&mut buffer).await.unwrap();
    }
}

#[tokio::test]
async fn a_cut_ends_connections_and_a_refusal_new_ones() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    proxy.refuse(true);
    round_trip(&mut stream).await.unwrap();
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(round_trip(&mut refused).await.is_err());
    proxy.refuse(false);
    proxy.cut();
    assert!(round_trip(&mut stream).await.is_err());
    let mut again = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut again).await.unwrap();
}

#[tokio::test]
async fn a_cut_connection_is_reset() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    proxy.cut();
    let error = stream.read(&mut [0; 5]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_half_open_connection_answers_nothing_and_is_reset_when_that_ends() {
    let proxy = echo().await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut old).await.unwrap();
    proxy.half_open(Some(End::Client));
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    for stream in [&mut old, &mut new] {
        stream.write_all(b"hello").await.unwrap();
        let waiting = Duration::from_millis(100);
        assert!(tokio::time::timeout(waiting, stream.read(&mut [0; 5])).await.is_err());
    }
    proxy.half_open(None);
    for mut stream in [old, new] {
        assert!(stream.read_exact(&mut [0; 5]).await.is_err());
    }
    let mut whole = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut whole).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_open_at_the_server_only_is_closed_at_the_client() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    proxy.half_open(Some(End::Server));
    assert!(stream.read_exact(&mut [0; 5]).await.is_err());
}

#[tokio::test]
async fn a_throttled_connection_takes_its_time() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.throttle(NonZeroU32::new(1000));
    let begun = Instant::now();
    stream.write_all(&[7; 200]).await.unwrap();
    stream.read_exact(&mut [0; 200]).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
}
