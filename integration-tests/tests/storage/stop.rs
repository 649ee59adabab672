//! A clean stop with transactions under way.

use anyhow::ensure;
use dtc_proto::dtc::{Branch, TransactionState};
use integration_tests::{
    FakeParticipant, Fixture, Heard, Reply,
    Role::{Coordinator, Inventory, Order, Payment},
    Speaks, Start, agree, eventually, typed,
};
use shop_proto::ReserveStock;

#[tokio::test]
async fn sigterm_ends_all_four_cleanly_while_transactions_are_under_way() {
    let drain = Start::new().arg("--drain-timeout").arg("300ms");
    let mut fixture = Fixture::start_with(Coordinator, drain).await.unwrap();
    let silent = FakeParticipant::start(Speaks::Link).await.unwrap();
    silent.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Silence,
        heard => agree(heard),
    });
    let prepared = fixture.prepare("prepared").await.unwrap();
    let mut request = Fixture::purchase("preparing").request();
    let payload = Some(typed(&ReserveStock::default()));
    request.branches.push(Branch { participant: silent.uri(), payload });
    let shop = fixture.shop.clone();
    let placing = tokio::spawn(async move { shop.execute(request).await });
    for role in [Inventory, Payment, Order] {
        eventually("both are promised", async || {
            ensure!(fixture.branches(role)?.0 == 2);
            Ok(())
        })
        .await
        .unwrap();
    }

    for role in [Payment, Coordinator, Inventory, Order] {
        let status = fixture.cluster.process(role).stop().await.unwrap();
        assert!(status.success(), "{role:?} ended with {status}");
    }
    let answer = placing.await.unwrap();
    assert!(!answer.as_ref().is_ok_and(|answer| answer.committed), "{answer:?}");
    fixture.cluster.start_all().await.unwrap();
    fixture.comes_to(&prepared, TransactionState::Aborted).await.unwrap();
    fixture.check_sold(0).await.unwrap();
}
