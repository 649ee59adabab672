//! Requests that make no sense: a 4xx that says why, and nothing is begun.

use integration_tests::Rest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::coordinator;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn every_malformed_request_is_refused_with_the_field_and_the_reason() {
    let (_coordinator, rest) = coordinator().await;
    for (path, body, status, field, says) in [
        ("/transactions", "", 400, "the body", "neither a list"),
        ("/transactions", "7", 400, "the body", "neither a list"),
        ("/transactions", "{", 400, "", "no JSON"),
        ("/transactions", "[]", 400, "branches", "at least one"),
        ("/transactions", "[1]", 400, "[0]", "expected a string"),
        ("/transactions", "[\"x\"]", 400, "branches[0].participant", "'x' is registered"),
        ("/transactions", "[\"http://x\"]", 400, "branches[0].participant", "is no address"),
        (
            "/transactions",
            "[\"https://127.0.0.1/prepare\"]",
            400,
            "branches[0].participant",
            "no address",
        ),
        ("/transactions", "{\"branchs\": []}", 400, "branchs", "unknown field"),
        ("/transactions", "{\"branches\": {}}", 400, "branches", "expected a sequence"),
        ("/transactions", "{\"branches\": [{}]}", 400, "branches[0]", "missing field"),
        (
            "/transactions",
            "{\"branches\": [{\"participant\": \"http://127.0.0.1:1/prepare\", \"payload\": 7}]}",
            400,
            "branches[0].payload",
            "expected a map",
        ),
        (
            "/transactions",
            "{\"branches\": [{\"participant\": \"http://127.0.0.1:1/prepare\", \"payload\": {\"a\": [9007199254740993]}}]}",
            400,
            "branches[0].payload.a[0]",
            "send it as a string",
        ),
        (
            "/transactions",
            "{\"branches\": [], \"options\": {\"prepare_timeout_ms\": 0}}",
            400,
            "options.prepare_timeout_ms",
            "out of range",
        ),
        (
            "/transactions",
            "{\"branches\": [], \"options\": {\"prepare_timeout_ms\": -1}}",
            400,
            "options.prepare_timeout_ms",
            "invalid value",
        ),
        ("/transactions", "{\"answer_at\": \"noon\"}", 400, "answer_at", "unknown variant"),
        ("/transactions?wait=soon", "[]", 400, "wait", "'soon' is not a whole number"),
        ("/transactions?wait=99999999", "[]", 400, "wait", "out of range; from 0s to 24h"),
        ("/transactions?wiat=1", "[]", 400, "wiat", "unknown field"),
        ("/transactions/7/commit", "", 400, "transaction_id", "'7' is not a UUID"),
        ("/transactions/7/branches", "{}", 400, "transaction_id", "'7' is not a UUID"),
        (
            "/transactions/0192f0c1-7a3e-7c5d-9b1e-3f2a6c8d4e5f/rollback",
            "",
            404,
            "",
            "never begun here",
        ),
        (
            "/transactions/0192f0c1-7a3e-7c5d-9b1e-3f2a6c8d4e5f/branches",
            "{\"participant\": \"x\"}",
            400,
            "participant",
            "'x' is registered",
        ),
        (
            "/transactions/0192f0c1-7a3e-7c5d-9b1e-3f2a6c8d4e5f/branches",
            "{\"participant\": \"x\", \"payload\": {\"a\": [9007199254740993]}}",
            400,
            "payload.a[0]",
            "send it as a string",
        ),
        ("/participants/nobody/renew", "", 404, "", "'nobody'"),
        ("/nothing", "", 404, "", "there is nothing at /nothing"),
    ] {
        let answer = rest.send("POST", path, &[JSON], body).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path} {body}");
        assert_eq!(answer.text("field"), field, "{path} {body}: {answer:?}");
        assert!(answer.text("detail").contains(says), "{path} {body}: {answer:?}");
    }
    for path in [
        "/transactions?page_size=0",
        "/transactions?page_size=1001",
        "/transactions?state=done",
        "/transactions?begun_after=noon",
        "/transactions?page_token=x",
        "/transactions/7",
        "/transactions?page_size=2&page_size=3",
    ] {
        let answer = rest.get(path).await.unwrap();
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(!answer.text("detail").is_empty(), "{path}: {answer:?}");
    }
    nothing_was_begun(&rest).await;
}

async fn nothing_was_begun(rest: &Rest) {
    let all = rest.get("/transactions").await.unwrap();
    assert_eq!(all.body["transactions"], json!([]), "{all:?}");
}

#[tokio::test]
async fn methods_types_sizes_and_keys_are_checked() {
    let (_coordinator, rest) = coordinator().await;
    let body = "[\"http://127.0.0.1:1/prepare\"]";
    let wrong = rest.send("PUT", "/transactions", &[JSON], body).await.unwrap();
    assert_eq!((wrong.status.as_u16(), wrong.text("code")), (405, "METHOD_NOT_ALLOWED"));
    assert!(wrong.header("allow").contains("POST"), "{wrong:?}");
    for headers in [&[][..], &[("content-type", "text/plain")]] {
        let wrong = rest.send("POST", "/transactions", headers, body).await.unwrap();
        assert_eq!(wrong.status, 415, "{wrong:?}");
    }
    let large = format!("[\"{}\"]", "x".repeat(20 << 20));
    let wrong = rest.send("POST", "/transactions", &[JSON], large).await.unwrap();
    assert_eq!(wrong.status, 413, "{wrong:?}");
    let long = "k".repeat(129);
    for key in ["", &*long] {
        let headers = [JSON, ("idempotency-key", key)];
        let wrong = rest.send("POST", "/transactions", &headers, body).await.unwrap();
        assert_eq!(wrong.status, 400, "{wrong:?}");
    }
    let twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
    let wrong = rest.send("POST", "/transactions", &twice, body).await.unwrap();
    assert_eq!((wrong.status.as_u16(), wrong.text("field")), (400, "idempotency-key"));
    let interactive = json!({"interactive": true, "branches": [{"participant": "x"}]});
    let wrong = rest.json("POST", "/transactions", &interactive).await.unwrap();
    assert_eq!((wrong.status.as_u16(), wrong.text("field")), (400, "branches"));
    nothing_was_begun(&rest).await;
    // The key of a good one does not make them good.
    let keyed = [JSON, ("idempotency-key", "begun")];
    let send = async |body: &Value| {
        rest.send("POST", "/transactions", &keyed, body.to_string()).await.unwrap()
    };
    assert_eq!(send(&json!({"interactive": true})).await.status, 201);
    let locks = json!({"interactive": true, "locks": [{"key": "a"}]});
    for (body, field) in [(&interactive, "branches"), (&locks, "locks")] {
        let wrong = send(body).await;
        assert_eq!((wrong.status.as_u16(), wrong.text("field")), (400, field));
    }
}

#[tokio::test]
async fn an_array_is_no_object_of_any_call() {
    let (_coordinator, rest) = coordinator().await;
    let id = "01890000-0000-7000-8000-000000000000";
    for (method, path, body) in [
        ("POST", format!("/transactions/{id}/resolve"), json!(["rollback", null, "why", "ada"])),
        ("POST", format!("/transactions/{id}/retry"), json!(["why", "ada"])),
        ("POST", format!("/transactions/{id}/abandon"), json!([null, "why", "ada"])),
        ("POST", format!("/transactions/{id}/forget"), json!(["why", "ada"])),
        ("POST", format!("/transactions/{id}/branches"), json!(["x", {}])),
        ("POST", format!("/transactions/{id}/locks"), json!([[{"key": "a"}]])),
        ("POST", "/sessions".into(), json!([[{"key": "a"}], 1000, ""])),
        ("POST", format!("/sessions/{id}/release"), json!([["a"]])),
        ("PUT", "/participants/x".into(), json!(["http://127.0.0.1:1", false, false, null])),
    ] {
        let wrong = rest.json(method, &path, &body).await.unwrap();
        assert_eq!(
            (wrong.status.as_u16(), wrong.text("code")),
            (400, "INVALID_ARGUMENT"),
            "{path}"
        );
    }
    assert_eq!(rest.get("/locks").await.unwrap().body["locks"], json!([]));
}

#[tokio::test]
async fn bytes_that_are_no_http_hurt_nobody() {
    let (coordinator, rest) = coordinator().await;
    let address = coordinator.process.address();
    for bytes in [
        &b"\0\0\0\0"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /transactions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
    }
    nothing_was_begun(&rest).await;
}
