//! HTTP participants that mean harm: they hurt their own transactions only.

use std::time::Duration;

use integration_tests::Rest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{coordinator, http, urls};

/// What is done with a connection once a request has begun to come.
#[derive(Debug, Clone, Copy)]
enum Harm {
    EndlessBody,
    EndlessHeaders,
    SlowDrip,
    Redirect,
    WrongType,
    ClosesMidway,
    Nonsense,
    ClaimsTooMuch,
    Silence,
}

const ALL: [Harm; 9] = [
    Harm::EndlessBody,
    Harm::EndlessHeaders,
    Harm::SlowDrip,
    Harm::Redirect,
    Harm::WrongType,
    Harm::ClosesMidway,
    Harm::Nonsense,
    Harm::ClaimsTooMuch,
    Harm::Silence,
];

async fn hostile(harm: Harm, trap: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prepare", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hurt(stream, harm, trap.clone()));
        }
    });
    url
}

async fn hurt(mut stream: TcpStream, harm: Harm, trap: String) -> std::io::Result<()> {
    let mut request = [0; 4096];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    match harm {
        Harm::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        Harm::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-more: and more and more and more\r\n").await?;
            }
        }
        Harm::SlowDrip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.write_all(b" ").await?;
            }
        }
        Harm::Redirect => {
            let answer = format!(
                "HTTP/1.1 307 Gone Fishing\r\nlocation: {trap}\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await
        }
        Harm::WrongType => {
            let page =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
            stream.write_all(page).await
        }
        Harm::ClosesMidway => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{").await
        }
        Harm::Nonsense => stream.write_all(b"\0\xff\xfe nonsense\r\n\r\n").await,
        Harm::ClaimsTooMuch => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await?;
            std::future::pending().await
        }
        Harm::Silence => std::future::pending().await,
    }
}

async fn is_served(rest: &Rest) {
    let (one, two) = (http().await, http().await);
    let fine = rest.json("POST", "/transactions?wait=30", &urls(&[&one, &two])).await.unwrap();
    assert_eq!(fine.text("state"), "committed", "{fine:?}");
}

#[tokio::test]
async fn hostile_participants_hurt_nobody_else() {
    let (coordinator, rest) = coordinator().await;
    let trap = http().await;
    let before = coordinator.process.memory_kib().unwrap();
    let mut stuck = Vec::new();
    for harm in ALL {
        let url = hostile(harm, trap.uri()).await;
        let innocent = http().await;
        let rest = rest.clone();
        stuck.push(tokio::spawn(async move {
            let body = json!({"branches": [{"participant": url}, {"participant": innocent.uri()}],
                              "options": {"prepare_timeout_ms": 1500, "prepare_attempt_timeout_ms": 300}});
            let aborted = rest.json("POST", "/transactions?wait=20&", &body).await;
            (harm, aborted.unwrap(), innocent)
        }));
    }
    for _ in 0..10 {
        is_served(&rest).await;
    }
    for running in stuck {
        // It stays unfinished, as rollback is owed to the hostile one; it is decided.
        let (harm, aborted, innocent) = running.await.unwrap();
        assert_eq!(aborted.text("state"), "rolledback", "{harm:?}: {aborted:?}");
        assert_eq!(aborted.body["branches"][1]["state"], "rolledback", "{harm:?}");
        drop(innocent);
    }
    assert!(trap.heard().is_empty(), "a redirect was followed");
    is_served(&rest).await;
    let after = coordinator.process.memory_kib().unwrap();
    assert!(after < before + (64 << 10), "{before} KiB before, {after} after");
}
