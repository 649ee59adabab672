//! What a service's `/metrics` shows.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Reads `/metrics` of one service.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: Uri,
}

/// Values by name. Series of one name with several labels are added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(HashMap<String, f64>);

impl Page {
    /// Of the service at `url`.
    ///
    /// # Errors
    ///
    /// When that is no address.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let uri = format!("{url}/metrics").parse()?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build_http(), uri })
    }

    /// What it shows now. A service that is just being started again is waited for.
    ///
    /// # Errors
    ///
    /// When it cannot be reached or shows something else.
    pub(crate) async fn read(&self) -> anyhow::Result<Sample> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = tokio::time::timeout_at(deadline, self.text()).await;
            match text.map_err(anyhow::Error::from).flatten() {
                Ok(text) => return Ok(Sample::parse(&text)),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{} cannot be read", self.uri)));
                }
                Err(_) => sleep(POLL).await,
            }
        }
    }

    async fn text(&self) -> anyhow::Result<String> {
        let response = self.client.get(self.uri.clone()).await?;
        ensure!(response.status() == StatusCode::OK, "it answered {}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

impl Sample {
    fn parse(text: &str) -> Self {
        let mut values = HashMap::<String, f64>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let name = series.split('{').next().unwrap_or(series);
            if let Ok(value) = value.parse::<f64>() {
                *values.entry(name.into()).or_default() += value;
            }
        }
        Self(values)
    }

    /// A value.
    ///
    /// # Errors
    ///
    /// When there is none: then it is another kind of service.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<f64> {
        self.0.get(name).copied().with_context(|| format!("/metrics shows no {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read() {
        let sample = Sample::parse(
            "# HELP dtc_journal_syncs_total Batches\n\
             # TYPE dtc_journal_syncs_total counter\n\
             dtc_journal_syncs_total 12\n\
             dtc_journal_batch_size_bucket{le=\"1\"} 3\n\
             dtc_transactions_aborted_total{reason=\"OUT_OF_STOCK\"} 2\n\
             dtc_transactions_aborted_total{reason=\"a b\"} 3\n\
             process_cpu_seconds_total 0.25\n\
             huge 1.5e+09\n\
             nonsense\n",
        );
        let get = |name: &str| sample.get(name).unwrap();
        assert_eq!(get("dtc_journal_syncs_total"), 12.0);
        assert_eq!(get("dtc_transactions_aborted_total"), 5.0);
        assert_eq!(get("process_cpu_seconds_total"), 0.25);
        assert_eq!(get("huge"), 1.5e9);
        let error = sample.get("missing").unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
    }
}
