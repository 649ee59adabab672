//! Very many connections that do nothing.

use integration_tests::{Process, Rest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{coordinator, http, urls};

const IDLE: usize = 10_000;
/// What the test itself needs beside them.
const OTHERS: u64 = 500;

#[tokio::test]
async fn ten_thousand_idle_connections_do_not_stop_the_service() {
    let enough = raise_limit(IDLE as u64 + OTHERS);
    let count = enough.saturating_sub(OTHERS) as usize;
    assert!(count >= 1000, "the limit of open files is {enough}: raise it");
    let (coordinator, rest) = coordinator().await;
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        idle.push(one_request(&coordinator.process).await);
    }
    let (one, two) = (http().await, http().await);
    for _ in 0..10 {
        let fine = fine(&rest, &urls(&[&one, &two])).await;
        assert_eq!(fine, "committed");
    }
    assert!(coordinator.process.memory_kib().unwrap() < 400 << 10);
    drop(idle);
}

async fn fine(rest: &Rest, body: &serde_json::Value) -> String {
    rest.json("POST", "/transactions?wait=30", body).await.unwrap().text("state").to_owned()
}

/// A connection on which one request was answered, kept alive.
async fn one_request(coordinator: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(coordinator.address()).await.unwrap();
    stream.write_all(b"GET /transactions?page_size=1 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 256];
    let count = stream.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..count]);
    stream
}

/// As many open files as may be had, up to `wanted`.
fn raise_limit(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let current = current.max(limit.current.unwrap_or(current));
    let raised = Rlimit { current: Some(current), ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => current,
        Err(_) => limit.current.unwrap_or(current),
    }
}
