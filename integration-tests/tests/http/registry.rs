//! Registration while the coordinator runs.

use dtc_proto::dtc::{DeregisterRequest, RenewRequest};
use integration_tests::{Heard, Proxy, Reply, agree, eventually};
use serde_json::json;
use tonic::Code;

use crate::{coordinator, http, states};

#[tokio::test]
async fn a_participant_is_registered_renewed_and_deregistered() {
    let (mut coordinator, rest) = coordinator().await;
    let one = http().await;
    let put = json!({"address": one.uri(), "lease_ms": 60_000});
    let registered = rest.json("PUT", "/participants/one", &put).await.unwrap();
    assert_eq!((registered.status.as_u16(), registered.text("address")), (200, &*one.uri()));
    eventually("its health is seen", async || {
        let known = rest.get("/participants/one").await?;
        anyhow::ensure!(known.text("link") == "http", "{known:?}");
        Ok(())
    })
    .await
    .unwrap();
    let run = json!({"branches": [{"participant": "one"}]});
    for _ in 0..2 {
        let committed = rest.json("POST", "/transactions?wait=30", &run).await.unwrap();
        assert_eq!(committed.text("state"), "committed", "{committed:?}");
        coordinator.process.restart().await.unwrap();
    }
    let renewed = rest.send("POST", "/participants/one/renew", &[], "").await.unwrap();
    assert!(renewed.body["lease_left_ms"].as_u64().unwrap() > 50_000, "{renewed:?}");
    let lease = coordinator.registry.renew(RenewRequest { name: "one".into() }).await.unwrap();
    assert_eq!(lease.into_inner().lease.unwrap().seconds, 60);
    eventually("what the restart left unfinished has ended", async || {
        let gone = rest.send("DELETE", "/participants/one", &[], "").await?;
        anyhow::ensure!(gone.status == 204, "{gone:?}");
        Ok(())
    })
    .await
    .unwrap();
    coordinator.process.restart().await.unwrap();
    let unknown = rest.json("POST", "/transactions", &run).await.unwrap();
    assert_eq!((unknown.status.as_u16(), unknown.text("field")), (400, "branches[0].participant"));
    assert_eq!(rest.get("/participants/one").await.unwrap().status, 404);
    let renewed = rest.send("POST", "/participants/one/renew", &[], "").await.unwrap();
    assert_eq!((renewed.status.as_u16(), renewed.text("code")), (404, "UNKNOWN_PARTICIPANT"));
}

#[tokio::test]
async fn a_lease_that_has_run_out_takes_no_new_transactions() {
    let (_coordinator, rest) = coordinator().await;
    let one = http().await;
    let put = json!({"address": one.uri(), "lease_ms": 1000});
    rest.json("PUT", "/participants/one", &put).await.unwrap();
    let run = json!({"branches": [{"participant": "one"}]});
    eventually("it has run out", async || {
        let refused = rest.json("POST", "/transactions?wait=30", &run).await?;
        anyhow::ensure!(refused.text("code") == "PARTICIPANT_NOT_OPEN", "{refused:?}");
        Ok(())
    })
    .await
    .unwrap();
    rest.send("POST", "/participants/one/renew", &[], "").await.unwrap();
    let committed = rest.json("POST", "/transactions?wait=30", &run).await.unwrap();
    assert_eq!(committed.text("state"), "committed", "{committed:?}");
}

#[tokio::test]
async fn one_with_unfinished_transactions_stays_or_is_drained() {
    let (mut coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    for (name, participant) in [("one", &one), ("two", &two)] {
        let put = json!({"address": participant.uri()});
        rest.json("PUT", &format!("/participants/{name}"), &put).await.unwrap();
    }
    one.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Failed("not yet".into()),
        heard => agree(heard),
    });
    let run = json!({"branches": [{"participant": "one"}, {"participant": "two"}], "answer_at": "decision"});
    let committed = rest.json("POST", "/transactions?wait=30", &run).await.unwrap();
    assert_eq!(committed.text("state"), "committed", "{committed:?}");

    let refused = rest.send("DELETE", "/participants/one", &[], "").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("code")), (409, "PARTICIPANT_UNFINISHED"));
    let request = DeregisterRequest { name: "one".into(), drain: false };
    let refused = coordinator.registry.deregister(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    let draining = rest.send("DELETE", "/participants/one?drain=true", &[], "").await.unwrap();
    assert_eq!((draining.status.as_u16(), &draining.body["draining"]), (202, &json!(true)));
    let refused = rest.json("POST", "/transactions", &run).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("code")), (409, "PARTICIPANT_NOT_OPEN"));
    coordinator.process.kill();
    coordinator.process.start().await.unwrap();
    let known = rest.get("/participants/one").await.unwrap();
    assert_eq!(known.body["draining"], true, "a crash does not forget it: {known:?}");
    one.set_script(agree);
    rest.ended(committed.text("id")).await.unwrap();
    eventually("it is gone", async || {
        anyhow::ensure!(rest.get("/participants/one").await?.status == 404);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_that_is_back_elsewhere_takes_its_unfinished_branches_over() {
    let (_coordinator, rest) = coordinator().await;
    let (here, there, two) = (http().await, http().await, http().await);
    let put = async |participant: &integration_tests::FakeParticipant| {
        let put = json!({"address": participant.uri()});
        assert_eq!(rest.json("PUT", "/participants/one", &put).await.unwrap().status, 200);
    };
    put(&here).await;
    here.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Silence,
        heard => agree(heard),
    });
    let run = json!({"branches": [{"participant": "one"}, {"participant": two.uri()}], "answer_at": "decision"});
    let committed = rest.json("POST", "/transactions?wait=30", &run).await.unwrap();
    assert_eq!(committed.text("state"), "committed", "{committed:?}");
    put(&there).await;
    let ended = rest.ended(committed.text("id")).await.unwrap();
    assert_eq!(states(&ended), ["committed"; 2]);
    assert!(there.heard().iter().any(|it| matches!(it, Heard::Commit(_))));
}

#[tokio::test]
async fn its_health_is_watched_while_nothing_is_asked_of_it() {
    let (_coordinator, rest) = coordinator().await;
    let one = http().await;
    let proxy = Proxy::start(one.address()).await.unwrap();
    let put = json!({"address": one.uri_at(proxy.address())});
    rest.json("PUT", "/participants/one", &put).await.unwrap();
    let becomes = async |link: &str| {
        eventually("its health is seen", async || {
            let known = rest.get("/participants/one").await?;
            anyhow::ensure!(known.text("link") == link, "{known:?}");
            Ok(known)
        })
        .await
        .unwrap()
    };
    becomes("http").await;
    let address = proxy.address();
    drop(proxy);
    let gone = becomes("disconnected").await;
    assert!(gone.text("last_error").contains("refused"), "{gone:?}");
    assert!(one.heard().is_empty(), "nothing was asked of it");
    let _again = tokio::net::TcpListener::bind(address).await.unwrap();
    becomes("http").await;
}
