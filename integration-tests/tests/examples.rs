//! The participants in other languages, in one transaction with one in Rust.
//!
//! They need Python, one of them with grpcio: `.ci/http-checks` runs these tests,
//! with the interpreter's path in `DTC_PYTHON`.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use integration_tests::{Addresses, Cluster, Process, Rest, Start, eventually};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde_json::{Value, json};

const WORTH: i64 = 10;

/// Inventory in Rust over a link, points in Python over gRPC, vouchers in Python over
/// HTTP.
struct Mixed {
    cluster: Cluster,
    points: Process,
    vouchers: Process,
    rest: Rest,
}

impl Mixed {
    async fn start() -> anyhow::Result<Self> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize()?;
        let python = env::var("DTC_PYTHON").unwrap_or_else(|_| "python3".into());
        stubs(&python, &examples)?;
        let cluster = Cluster::start().await?;
        let folder = cluster.folder().to_owned();
        let program = |name: &str| script(&python, &examples.join(name), &folder);
        let (grpc, http) = (program("python-grpc")?, program("python-http")?);
        // Two more of the cluster's kind of addresses.
        let more = Addresses::pick();
        let mut points = Process::new("points", &grpc, &folder, more.inventory);
        let issued = ["A", "B", "C", "D"].into_iter();
        let issued = issued.fold(Start::new(), |start, code| {
            start.arg("--voucher").arg(format!("{code}={WORTH}"))
        });
        let mut vouchers = Process::new("vouchers", &http, &folder, more.payment).always(issued);
        points.start().await?;
        vouchers.start().await?;
        let rest = Rest::new(cluster.coordinator.address());
        for (name, address) in [
            ("points", format!("http://{}", points.address())),
            ("vouchers", format!("http://{}/prepare", vouchers.address())),
        ] {
            let path = format!("/participants/{name}");
            let answer = rest.json("PUT", &path, &json!({ "address": address })).await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        cluster.shop().stock_up("teapot", 10).await?;
        Ok(Self { cluster, points, vouchers, rest })
    }

    /// A teapot for a voucher, and a point for it.
    fn branches(voucher: &str) -> [Value; 3] {
        [
            json!({"participant": "inventory", "payload": {"lines": [{"sku": "teapot", "quantity": 1}]}}),
            json!({"participant": "points", "payload": {"account": "ada", "points": 1}}),
            json!({"participant": "vouchers", "payload": {"code": voucher}}),
        ]
    }

    async fn run(&self, voucher: &str) -> anyhow::Result<Value> {
        let body = json!({"branches": Self::branches(voucher)});
        Ok(self.rest.json("POST", "/transactions?wait=60", &body).await?.body)
    }

    /// All three have promised, and the client has the word.
    async fn prepared(&self, voucher: &str) -> anyhow::Result<String> {
        let begun = self.rest.json("POST", "/transactions", &json!({"interactive": true})).await?;
        let id = begun.text("id").to_owned();
        for branch in Self::branches(voucher) {
            let path = format!("/transactions/{id}/branches");
            let answer = self.rest.json("POST", &path, &branch).await?;
            ensure!(answer.status == 201, "{answer:?}");
        }
        let path = format!("/transactions/{id}/prepare?wait=60");
        let prepared = self.rest.send("POST", &path, &[], "").await?;
        ensure!(prepared.text("phase") == "prepared", "{prepared:?}");
        Ok(id)
    }

    async fn commit(&self, id: &str) -> anyhow::Result<Value> {
        let path = format!("/transactions/{id}/commit?wait=60");
        Ok(self.rest.send("POST", &path, &[], "").await?.body)
    }

    /// Teapots sold, points given, and what became of the voucher.
    async fn is(&self, sold: i64, points: i64, voucher: (&str, &str)) -> anyhow::Result<()> {
        let path = self.cluster.folder().join("points.db");
        eventually("all three have the same outcome", async || {
            let stock = self.cluster.shop().stock("teapot").await?;
            ensure!((stock.on_hand, stock.reserved) == (10 - sold, 0), "{stock:?}");
            let given = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?
                .query_row("SELECT balance FROM accounts WHERE account = 'ada'", [], |row| {
                    row.get(0)
                })
                .optional()?;
            ensure!(given.unwrap_or(0) == points, "{given:?} points");
            let seen = Rest::new(self.vouchers.address());
            let seen = seen.get(&format!("/vouchers/{}", voucher.0)).await?;
            ensure!(seen.text("state") == voucher.1, "{seen:?}");
            Ok(())
        })
        .await
    }
}

/// An executable that runs an example's participant with the interpreter.
fn script(python: &str, example: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let name = example.file_name().context("an example has a name")?;
    let path = folder.join(name).with_extension("sh");
    let program = example.join("participant.py");
    fs::write(&path, format!("#!/bin/sh\nexec '{python}' '{}' \"$@\"\n", program.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// gRPC's stubs, from the project's own protos, as the example's README says.
fn stubs(python: &str, examples: &Path) -> anyhow::Result<()> {
    let generated = examples.join("python-grpc/generated");
    if generated.join("dtc/v1/recovery_pb2_grpc.py").exists() {
        return Ok(());
    }
    fs::create_dir_all(&generated)?;
    let status = Command::new(python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(examples.join("../proto"))
        .arg(format!("--python_out={}", generated.display()))
        .arg(format!("--grpc_python_out={}", generated.display()))
        .args(["types", "participant", "recovery"].map(|it| format!("dtc/v1/{it}.proto")))
        .status()
        .with_context(|| format!("'{python}' cannot be run; set DTC_PYTHON"))?;
    ensure!(status.success(), "no stubs: '{python}' needs examples/python-grpc/requirements.txt");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Python with grpcio"]
async fn a_mixed_transaction_commits_aborts_and_survives_a_kill_of_each() {
    let mut mixed = Mixed::start().await.unwrap();
    let committed = mixed.run("A").await.unwrap();
    assert_eq!(committed["state"], "committed", "{committed}");
    mixed.is(1, 1, ("A", "redeemed")).await.unwrap();
    let aborted = mixed.run("A").await.unwrap();
    assert_eq!(aborted["reason"]["code"], "VOUCHER_NOT_FREE", "{aborted}");
    mixed.is(1, 1, ("A", "redeemed")).await.unwrap();

    // Each of the three, killed with its promise on disk, keeps it.
    for (sold, voucher) in [(2, "B"), (3, "C"), (4, "D")] {
        let id = mixed.prepared(voucher).await.unwrap();
        let victim = match voucher {
            "B" => &mut mixed.points,
            "C" => &mut mixed.vouchers,
            _ => &mut mixed.cluster.inventory,
        };
        victim.kill();
        victim.start().await.unwrap();
        let committed = mixed.commit(&id).await.unwrap();
        assert_eq!(committed["state"], "committed", "{committed}");
        mixed.is(sold, sold, (voucher, "redeemed")).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Python with grpcio"]
async fn a_coordinator_that_was_killed_finishes_a_mixed_transaction() {
    let mut mixed = Mixed::start().await.unwrap();
    // Undecided: rolled back everywhere.
    let id = mixed.prepared("A").await.unwrap();
    mixed.cluster.coordinator.kill();
    mixed.cluster.coordinator.start().await.unwrap();
    assert_eq!(mixed.rest.ended(&id).await.unwrap()["state"], "rolledback");
    mixed.is(0, 0, ("A", "free")).await.unwrap();

    // Decided, and two of the three could not be told.
    let id = mixed.prepared("B").await.unwrap();
    mixed.points.kill();
    mixed.vouchers.kill();
    let path = format!("/transactions/{id}/commit?wait=1");
    let decided = mixed.rest.send("POST", &path, &[], "").await.unwrap();
    assert_eq!((decided.text("state"), decided.text("phase")), ("committed", "committing"));
    mixed.cluster.coordinator.kill();
    mixed.points.start().await.unwrap();
    mixed.vouchers.start().await.unwrap();
    mixed.cluster.coordinator.start().await.unwrap();
    assert_eq!(mixed.rest.ended(&id).await.unwrap()["state"], "committed");
    mixed.is(1, 1, ("B", "redeemed")).await.unwrap();
}
