//! Limits of sizes and numbers.

use super::*;

#[tokio::test]
async fn payloads_over_the_limit_and_messages_over_grpc_s_are_refused() {
    let (cluster, shop) = open_shop().await;
    let big = |size: usize| {
        let bytes = vec![0_u8; size];
        with_branch(0, |it| it.payload = Some(Payload { kind: Some(Kind::Typed(bytes.into())) }))
    };
    let limit = (1_usize << 20).to_string();
    let words = ["branches[0].payload", limit.as_str(), "--max-payload"];
    refused(shop.execute(big(1 << 20)).await, Code::InvalidArgument, &words);
    shop.execute(big(8 << 20)).await.unwrap_err();
    let id = shop.begin(&purchase()).await.unwrap();
    let branch = big(1 << 20).branches.into_iter().next();
    let request = EnlistRequest { transaction_id: id.clone(), branch, ..EnlistRequest::default() };
    let enlisted = shop.transactions.clone().enlist(request).await;
    refused(enlisted, Code::InvalidArgument, &["branch.payload", &limit]);
    // One that fits is carried, if only to be refused by its participant.
    let carried = shop.execute(big((1 << 20) - 64)).await.unwrap();
    assert_eq!(carried.transaction.unwrap().abort_reason.unwrap().code, "BAD_PAYLOAD");
    let request = RollbackTransactionRequest { transaction_id: id, ..Default::default() };
    shop.transactions.clone().rollback(request).await.unwrap();
    assert!(shop.place(&purchase()).await.unwrap().committed);
    cluster.check(&shop).await.unwrap();
}

#[tokio::test]
async fn transactions_branches_and_bytes_in_flight_are_bounded() {
    let start = Start::new().arg("--max-in-flight").arg("2").arg("--max-branches").arg("3");
    let start = start.arg("--max-in-flight-bytes").arg("5000");
    let coordinator = Alone::start_with(start).await.unwrap();
    let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
    let uri = participant.uri();
    let request = |branches: usize| {
        let branches = branches_at(std::iter::repeat_n(uri.as_str(), branches));
        let options = TransactionOptions { prepare_timeout: seconds(100), ..Default::default() };
        ExecuteRequest { branches, options: Some(options), ..ExecuteRequest::default() }
    };
    let many = coordinator.execute(request(4)).await;
    refused(many, Code::InvalidArgument, &["branches", "3", "--max-branches"]);
    let mut heavy = request(2);
    let bytes = vec![0_u8; 3000];
    for branch in &mut heavy.branches {
        branch.payload = Some(Payload { kind: Some(Kind::Typed(bytes.clone().into())) });
    }
    assert!(heavy.encoded_len() > 5000);
    let heavy = coordinator.execute(heavy).await;
    refused(heavy, Code::ResourceExhausted, &["5000 bytes", "--max-in-flight-bytes"]);

    let mut client = coordinator.transactions.clone();
    let begun = client.begin(BeginRequest::default()).await.unwrap().into_inner().transaction_id;
    let enlist = || EnlistRequest {
        transaction_id: begun.clone(),
        branch: request(1).branches.pop(),
        ..EnlistRequest::default()
    };
    for _ in 0..3 {
        client.enlist(enlist()).await.unwrap();
    }
    let fourth = client.enlist(enlist()).await;
    refused(fourth, Code::ResourceExhausted, &["branches", "3", "--max-branches"]);

    participant.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Silence,
        heard => agree(heard),
    });
    let stuck = tokio::spawn({
        let (mut client, request) = (client.clone(), request(2));
        async move { client.execute(request).await.unwrap().into_inner() }
    });
    eventually("two are in flight", async || {
        let request = ListTransactionsRequest::default();
        let answer = coordinator.transactions.clone().list(request).await?.into_inner();
        ensure!(answer.transactions.len() == 2);
        Ok(())
    })
    .await
    .unwrap();
    let words = ["2 transactions are in flight", "--max-in-flight"];
    refused(coordinator.execute(request(2)).await, Code::ResourceExhausted, &words);
    refused(client.begin(BeginRequest::default()).await, Code::ResourceExhausted, &words);
    // What ends makes room.
    participant.set_script(agree);
    assert!(stuck.await.unwrap().committed);
    eventually("there is room", async || {
        ensure!(coordinator.execute(request(2)).await?.committed);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn of_a_hundred_orders_at_once_for_forty_teapots_forty_are_confirmed() {
    let (cluster, shop) = open_shop().await;
    let orders: Vec<_> = (0..100)
        .map(|number| {
            let purchase = Purchase::new(&format!("order-{number}"), "ada", "teapot", 1, 100);
            let options =
                TransactionOptions { prepare_timeout: seconds(100), ..Default::default() };
            let request = ExecuteRequest { options: Some(options), ..purchase.request() };
            let shop = shop.clone();
            tokio::spawn(async move { shop.execute(request).await.unwrap() })
        })
        .collect();
    let (mut committed, mut reasons) = (0, HashSet::new());
    for order in orders {
        let answer = order.await.unwrap();
        committed += usize::from(answer.committed);
        reasons.extend(answer.transaction.unwrap().abort_reason.map(|reason| reason.code));
    }
    assert_eq!(committed, 40);
    assert_eq!(reasons, HashSet::from(["OUT_OF_STOCK".to_owned()]));
    cluster.check(&shop).await.unwrap();
    let stock = shop.stock("teapot").await.unwrap();
    assert_eq!((stock.on_hand, stock.reserved), (0, 0));
    assert_eq!(shop.account("ada").await.unwrap().balance_minor, 1_000_000 - 40 * 100);
}

#[tokio::test]
async fn with_too_little_disk_new_work_is_refused_and_what_was_promised_goes_on() {
    let (mut cluster, shop) = open_shop().await;
    let full = || Start::new().arg("--min-free").arg(u64::MAX.to_string());

    // At a participant: a vote to abort, and nothing is left behind.
    let id = shop.begin(&purchase()).await.unwrap();
    let prepare = PrepareTransactionRequest { transaction_id: id.clone(), wait: None };
    assert!(shop.transactions.clone().prepare(prepare).await.unwrap().into_inner().prepared);
    cluster.payment.stop().await.unwrap();
    cluster.payment.start_with(full()).await.unwrap();
    let refused_by_payment = eventually("payment refuses", async || {
        let other = Purchase::new("other", "ada", "teapot", 2, 500);
        let answer = shop.place(&other).await?.transaction.context("a transaction")?;
        let reason = answer.abort_reason.context("a reason")?;
        ensure!(reason.code == "DISK_FULL", "{reason:?}");
        Ok(reason)
    });
    assert_eq!(refused_by_payment.await.unwrap().participant, "payment");
    let commit = CommitTransactionRequest { transaction_id: id, ..Default::default() };
    let committed = shop.transactions.clone().commit(commit).await.unwrap().into_inner();
    assert!(committed.committed, "what was promised: {committed:?}");
    cluster.payment.restart().await.unwrap();

    // At the coordinator: a status that says what to do.
    cluster.coordinator.stop().await.unwrap();
    cluster.coordinator.start_with(full()).await.unwrap();
    let answer = shop.place(&Purchase::new("third", "ada", "teapot", 2, 500)).await;
    refused(answer, Code::ResourceExhausted, &["disk", "--min-free"]);
    cluster.coordinator.restart().await.unwrap();
    cluster.check(&shop).await.unwrap();
}
