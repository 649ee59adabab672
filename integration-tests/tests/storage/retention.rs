//! Forgetting what has finished, while there is traffic.

use std::time::Duration;

use anyhow::ensure;
use dtc_proto::dtc::{GetTransactionRequest, Transaction, get_transaction_request::By};
use integration_tests::{
    Addresses, Binaries, Cluster, Fixture,
    Role::{self, Coordinator},
    Start, eventually,
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

async fn order(fixture: &Fixture, number: i64) -> anyhow::Result<Transaction> {
    let purchase = Fixture::purchase(&format!("order-{number}"));
    let request = purchase.request_with_key(&format!("key-{number}"), Duration::from_secs(25));
    Ok(fixture.shop.execute(request).await?.transaction.unwrap_or_default())
}

async fn by_key(fixture: &Fixture, number: i64) -> Result<Transaction, Status> {
    let request = GetTransactionRequest { by: Some(By::RequestKey(format!("key-{number}"))) };
    let answer = fixture.shop.transactions.clone().get(request).await?.into_inner();
    Ok(answer.transaction.unwrap_or_default())
}

#[tokio::test]
async fn finished_rows_and_their_keys_go_on_both_sides_while_traffic_goes_on() {
    let mut cluster = Cluster::prepare(Binaries::test().unwrap(), Addresses::pick()).unwrap();
    for role in Role::ALL {
        let start = Start::new().arg("--retention").arg("1s");
        cluster.process(role).start_with(start).await.unwrap();
    }
    let mut fixture = Fixture::of(cluster).await.unwrap();
    let first = order(&fixture, 0).await.unwrap();
    let mut placed = 1;
    eventually("both sides have forgotten the first order", async || {
        let last = order(&fixture, placed).await?;
        ensure!(last.committed, "order {placed} did not commit: {last:?}");
        ensure!(by_key(&fixture, placed).await?.id == last.id, "the key of {placed} is lost");
        placed += 1;
        let key = by_key(&fixture, 0).await;
        ensure!(key.is_err_and(|status| status.code() == Code::NotFound), "its key is kept");
        ensure!(fixture.shop.transaction(&first.id).await.is_err(), "its transaction is kept");
        for role in PARTICIPANTS {
            let (_, kept, _) = fixture.branches(role)?;
            ensure!(kept < placed, "{role:?} keeps all of {kept}");
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(fixture.count(Coordinator, INCONSISTENT).unwrap(), 0);
    // Forgotten: what comes with the key is new, and finds the order there.
    let again = order(&fixture, 0).await.unwrap();
    assert!(again.id != first.id && !again.committed, "{again:?}");
    fixture.check_sold(placed).await.unwrap();
    assert_eq!(fixture.count(Coordinator, INCONSISTENT).unwrap(), 0);
}
