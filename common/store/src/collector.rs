//! The statistics as metrics, read when they are scraped.

use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{Statistics, Store};

/// Shows a store's [`Statistics`] in a `prometheus::Registry`.
#[derive(Debug)]
pub struct StatisticsCollector {
    store: Store,
    descriptions: Vec<Desc>,
}

type Value = fn(&Statistics) -> u64;

const COUNTERS: [(&str, &str, Value); 5] = [
    ("dtc_journal_syncs_total", "Batches that were committed and synced", |s| s.syncs),
    ("dtc_journal_jobs_total", "Works in these batches", |s| s.jobs),
    ("dtc_journal_rolled_back_total", "Batches rolled back before anything was promised", |s| {
        s.rolled_back
    }),
    ("dtc_journal_checkpoints_total", "Checkpoints that ran", |s| s.checkpoints),
    ("dtc_wall_clock_jumps_total", "Jumps of the wall clock that were seen", |s| {
        s.wall_clock_jumps
    }),
];
const GAUGES: [(&str, &str, Value); 2] = [
    ("dtc_journal_wal_bytes", "Length of the write-ahead log", |s| s.wal_bytes),
    ("dtc_journal_file_bytes", "Length of the journal's file", |s| s.file_bytes),
];
const BATCH: (&str, &str) = ("dtc_journal_batch_size", "Requests that share a sync");

impl StatisticsCollector {
    /// For `store`.
    ///
    /// # Errors
    ///
    /// None that the world can cause: the names are fixed.
    pub fn new(store: &Store) -> prometheus::Result<Self> {
        let names = COUNTERS.iter().chain(&GAUGES).map(|&(name, help, _)| (name, help));
        let descriptions = names
            .chain([BATCH])
            .map(|(name, help)| Desc::new(name.into(), help.into(), vec![], Default::default()))
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { store: store.clone(), descriptions })
    }
}

impl Collector for StatisticsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    #[allow(clippy::cast_precision_loss)]
    fn collect(&self) -> Vec<MetricFamily> {
        let statistics = self.store.statistics();
        let counters = COUNTERS.iter().map(|&(name, help, value)| {
            let mut counter = Counter::default();
            counter.set_value(value(&statistics) as f64);
            let mut metric = Metric::from_label(Vec::<LabelPair>::new());
            metric.set_counter(counter);
            family(name, help, MetricType::COUNTER, metric)
        });
        let gauges = GAUGES.iter().map(|&(name, help, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value(&statistics) as f64);
            let mut metric = Metric::from_label(Vec::<LabelPair>::new());
            metric.set_gauge(gauge);
            family(name, help, MetricType::GAUGE, metric)
        });
        let mut metric = Metric::from_label(Vec::<LabelPair>::new());
        metric.set_histogram(batch_sizes(&statistics));
        let batches = family(BATCH.0, BATCH.1, MetricType::HISTOGRAM, metric);
        counters.chain(gauges).chain([batches]).collect()
    }
}

#[allow(clippy::cast_precision_loss)]
fn batch_sizes(statistics: &Statistics) -> Histogram {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(statistics.syncs);
    histogram.set_sample_sum(statistics.weight as f64);
    let (_, bounded) = statistics.batches.split_last().expect("there are buckets");
    let mut cumulative = 0;
    let buckets = bounded.iter().enumerate().map(|(power, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(cumulative);
        bucket.set_upper_bound((1_u64 << power) as f64);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;
    use crate::Options;

    #[tokio::test]
    async fn statistics_are_shown_as_metrics() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a.db"), Options::default()).unwrap();
        store.write(|_| Ok(())).await.unwrap();
        let registry = Registry::new();
        registry.register(Box::new(StatisticsCollector::new(&store).unwrap())).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("dtc_journal_syncs_total 1\n"), "{text}");
        assert!(text.contains("dtc_journal_batch_size_bucket{le=\"1\"} 1\n"), "{text}");
        assert!(text.contains("dtc_journal_batch_size_bucket{le=\"2\"} 1\n"), "{text}");
        assert!(text.contains("dtc_journal_batch_size_count 1\n"), "{text}");
        let again = registry.register(Box::new(StatisticsCollector::new(&store).unwrap()));
        assert!(again.is_err(), "two stores would have the same names");
        let other = prometheus::IntGauge::new(BATCH.0, "Something else").unwrap();
        assert!(registry.register(Box::new(other)).is_err(), "the names are taken");
        store.close().await;
    }
}
