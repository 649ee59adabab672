//! The proxy holds back, releases, cuts and refuses.

use std::time::Duration;

use integration_tests::{Direction, Proxy};
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
