//! `dtc bench` against real processes.

use std::{fs, path::Path, process::ExitCode};

use anyhow::ensure;
use integration_tests::{Addresses, Cluster, eventually};
use serde_json::Value;

const TRANSACTIONS: u64 = 500;

/// Runs `dtc bench` with these flags too, and returns what it wrote.
async fn bench(addresses: Addresses, folder: &Path, flags: &[&str]) -> Value {
    let file = folder.join("results.json");
    let mut args = vec!["dtc".to_owned(), "bench".into(), "--quiet".into()];
    for (flag, address) in [
        ("--coordinator", addresses.coordinator),
        ("--inventory", addresses.inventory),
        ("--payment", addresses.payment),
        ("--order", addresses.order),
    ] {
        args.extend([flag.into(), format!("http://{address}")]);
    }
    args.extend(["--json".into(), file.display().to_string(), "--warm-up".into(), "0".into()]);
    args.extend(flags.iter().map(ToString::to_string));
    let code = tokio::task::spawn_blocking(|| dtc_cli::run(args)).await.unwrap();
    let json = fs::read_to_string(file).unwrap_or_default();
    assert_eq!(code, ExitCode::SUCCESS, "{json}");
    serde_json::from_str(&json).unwrap()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn check(results: &Value, points: usize) {
    assert_eq!(results["points"].as_array().unwrap().len(), points, "{results}");
    for point in results["points"].as_array().unwrap() {
        assert_eq!(number(point, "tried"), TRANSACTIONS);
        assert_eq!(number(point, "committed") + number(point, "aborted"), TRANSACTIONS, "{point}");
        assert!(number(point, "committed") > 0 && number(point, "aborted") > 0, "{point}");
        assert_eq!((number(point, "errors"), number(point, "unknown")), (0, 0), "{point}");
        let processes = point["processes"].as_array().unwrap();
        assert_eq!(processes.len(), 4);
        for process in processes {
            assert!(number(process, "syncs") > 0, "{process}");
        }
    }
}

#[tokio::test]
async fn orders_over_a_stream_and_as_calls_keep_the_books_right() {
    let cluster = Cluster::start().await.unwrap();
    let transactions = TRANSACTIONS.to_string();
    let flags = ["--transactions", &transactions, "--in-flight", "32", "--aborts", "0.3"];
    for more in [
        &["--mode", "stream", "--runs", "2"][..],
        &["--mode", "unary", "--connections", "2", "--skew", "0.5"],
        &["--mode", "stream", "--streams", "2", "--no-keys", "--branches", "7", "--skew", "1"],
    ] {
        let results =
            bench(cluster.addresses(), cluster.folder(), &[&flags[..], more].concat()).await;
        check(&results, if more.contains(&"--runs") { 2 } else { 1 });
        let committed: u64 = results["points"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| number(point, "committed"))
            .sum();
        assert_eq!(number(&results["check"], "committed"), committed);
    }
}

#[tokio::test]
async fn answers_that_a_crash_of_the_coordinator_lost_are_asked_for() {
    let mut cluster = Cluster::start().await.unwrap();
    let (addresses, folder) = (cluster.addresses(), cluster.folder().to_owned());
    let running = tokio::spawn(async move {
        bench(addresses, &folder, &["--seconds", "600", "--in-flight", "64"]).await
    });
    let shop = cluster.shop();
    let under_way = async || {
        ensure!(!shop.all_orders().await?.is_empty(), "no orders yet");
        Ok(())
    };
    eventually("orders are placed", under_way).await.unwrap();
    cluster.coordinator.restart().await.unwrap();
    let results = running.await.unwrap();
    let point = &results["points"][0];
    assert!(number(point, "unknown") > 0, "{point}");
    assert_eq!(number(&results["check"], "unresolved"), 0);
}
