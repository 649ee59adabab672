//! Forgetting what has finished, while there is traffic.

use std::time::Duration;

use anyhow::ensure;
use dtc_proto::dtc::{GetTransactionRequest, Transaction, get_transaction_request::By};
use integration_tests::{
    Addresses, Binaries, Cluster,
    Role::{self, Coordinator},
    Scene, Start, eventually,
};
use tonic::{Code, Status};

use crate::PARTICIPANTS;

/// Keys without their transaction, and transactions without their key.
const INCONSISTENT: &str = "
    SELECT (SELECT count(*) FROM request_keys WHERE id NOT IN
               (SELECT id FROM finished UNION ALL SELECT id FROM unfinished))
         + (SELECT count(*) FROM (SELECT request_key FROM finished UNION ALL
                                  SELECT request_key FROM unfinished)
             WHERE request_key IS NOT NULL
               AND request_key NOT IN (SELECT request_key FROM request_keys))";

async fn order(scene: &Scene, number: i64) -> anyhow::Result<Transaction> {
    let purchase = Scene::purchase(&format!("order-{number}"));
    let request = purchase.request_with_key(&format!("key-{number}"), Duration::from_secs(25));
    Ok(scene.shop.execute(request).await?.transaction.unwrap_or_default())
}

async fn by_key(scene: &Scene, number: i64) -> Result<Transaction, Status> {
    let request = GetTransactionRequest { by: Some(By::RequestKey(format!("key-{number}"))) };
    let answer = scene.shop.transactions.clone().get(request).await?.into_inner();
    Ok(answer.transaction.unwrap_or_default())
}

#[tokio::test]
async fn finished_rows_and_their_keys_go_on_both_sides_while_traffic_goes_on() {
    let mut cluster = Cluster::prepare(Binaries::test().unwrap(), Addresses::pick()).unwrap();
    for role in Role::ALL {
        let start = Start::new().arg("--retention").arg("1s");
        cluster.process(role).start_with(start).await.unwrap();
    }
    let mut scene = Scene::of(cluster).await.unwrap();
    let first = order(&scene, 0).await.unwrap();
    let mut placed = 1;
    eventually("both sides have forgotten the first order", async || {
        let last = order(&scene, placed).await?;
        ensure!(last.committed, "order {placed} did not commit: {last:?}");
        ensure!(by_key(&scene, placed).await?.id == last.id, "the key of {placed} is lost");
        placed += 1;
        let key = by_key(&scene, 0).await;
        ensure!(key.is_err_and(|status| status.code() == Code::NotFound), "its key is kept");
        ensure!(scene.shop.transaction(&first.id).await.is_err(), "its transaction is kept");
        for role in PARTICIPANTS {
            let (_, kept, _) = scene.branches(role)?;
            ensure!(kept < placed, "{role:?} keeps all of {kept}");
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(scene.count(Coordinator, INCONSISTENT).unwrap(), 0);
    // Forgotten: what comes with the key is new, and finds the order there.
    let again = order(&scene, 0).await.unwrap();
    assert!(again.id != first.id && !again.committed, "{again:?}");
    scene.check_sold(placed).await.unwrap();
    assert_eq!(scene.count(Coordinator, INCONSISTENT).unwrap(), 0);
}
