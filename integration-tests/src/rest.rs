//! A client of the coordinator's HTTP API.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::eventually;

/// Calls one coordinator.
#[derive(Debug, Clone)]
pub struct Rest {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null where there is none.
    pub body: Value,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A text in the body; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

impl Rest {
    /// For the coordinator at an address.
    pub fn new(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { base: format!("http://{address}"), client }
    }

    /// Sends any request.
    ///
    /// # Errors
    ///
    /// When no answer comes, or one that is no JSON.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into()))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .with_context(|| String::from_utf8_lossy(&body).into_owned())?,
        };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Sends JSON.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string()).await
    }

    /// Gets.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, &[], "").await
    }

    /// Gets a text, when all of it has come.
    ///
    /// # Errors
    ///
    /// When no answer comes, or its end does not.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.client.get(format!("{}{path}", self.base).parse()?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// A transaction, once it has ended.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        eventually("the transaction has ended", async || {
            let answer = self.get(&format!("/transactions/{id}")).await?;
            ensure!(answer.body["ended_at"].is_string(), "{answer:?}");
            Ok(answer.body)
        })
        .await
    }
}
