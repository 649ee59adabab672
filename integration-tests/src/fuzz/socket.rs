//! Connections that are no HTTP, or only the beginning of it.

use std::{net::SocketAddr, time::Duration};

use rand::{RngExt, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATIENCE: Duration = Duration::from_millis(100);

/// Some bytes that a web server might be sent.
pub(super) fn nonsense(dice: &mut StdRng) -> Vec<u8> {
    let mut noise = vec![0; dice.random_range(1..2000)];
    dice.fill(&mut noise[..]);
    match dice.random_range(0..8) {
        0 => noise,
        1 => PREFACE[..dice.random_range(1..PREFACE.len())].to_vec(),
        2 => [PREFACE, &noise].concat(),
        // Settings, then headers that promise more.
        3 => [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0, 1, &noise)].concat(),
        // Windows that overflow, pings and resets of nothing.
        4 => {
            let window = frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
            [PREFACE, &frame(4, 0, 0, &[]), &window, &window, &frame(3, 0, 9, &[0; 4])].concat()
        }
        // A frame of a length that it doesn't have.
        5 => [PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &noise].concat(),
        6 => [b"GET /metrics HTTP/1.1\r\n", &noise[..], b": x\r\n\r\n"].concat(),
        _ => {
            let header = "x: y\r\n".repeat(dice.random_range(1..300));
            format!("POST /dtc.v1.TransactionService/Execute HTTP/1.1\r\n{header}").into_bytes()
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Sends it, reads what comes for a moment, and hangs up.
pub(super) async fn send(to: SocketAddr, bytes: Vec<u8>) {
    let talk = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&bytes).await?;
        let mut answer = [0; 1024];
        while stream.read(&mut answer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whatever the answer is, the next check is what counts.
    let _ = tokio::time::timeout(PATIENCE, talk).await;
}
