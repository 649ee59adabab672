//! Orders through four real processes.

use integration_tests::{Cluster, Purchase};
use shop_proto::OrderState;

#[tokio::test]
async fn an_order_commits_at_all_three_or_at_none() {
    let mut cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 5).await.unwrap();
    shop.open_account("ada", 10_000).await.unwrap();

    let placed = shop.place(&Purchase::new("a", "ada", "teapot", 2, 5_000)).await.unwrap();
    assert!(placed.committed, "{placed:?}");
    assert_eq!(shop.order("a").await.unwrap().state(), OrderState::Confirmed);

    let refused = shop.place(&Purchase::new("b", "ada", "teapot", 4, 1_000)).await.unwrap();
    assert!(!refused.committed, "{refused:?}");
    let refused = shop.place(&Purchase::new("c", "ada", "teapot", 1, 5_001)).await.unwrap();
    assert!(!refused.committed, "{refused:?}");

    cluster.check(&shop).await.unwrap();
    cluster.restart_all().await.unwrap();
    cluster.check(&shop).await.unwrap();
    cluster.lose_power_everywhere().await.unwrap();
    cluster.check(&shop).await.unwrap();
    for role in integration_tests::Role::ALL {
        assert!(cluster.process(role).stop().await.unwrap().success(), "{role:?}");
    }
}
