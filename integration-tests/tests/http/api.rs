//! What clients may ask for, and what they are told.

use std::collections::BTreeSet;

use anyhow::ensure;
use integration_tests::{Alone, Cluster, Heard, Reply, Rest, Start, agree, eventually};
use serde_json::{Value, json};

use crate::{coordinator, http, states, urls};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_list_of_urls_is_a_transaction_that_is_known_from_the_answer_on() {
    let (mut coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    one.set_script(|_| Reply::Silence);
    let created = rest.json("POST", "/transactions", &urls(&[&one, &two])).await.unwrap();
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.text("id").to_owned();
    assert_eq!(created.header("location"), format!("/transactions/{id}"));
    assert_eq!(created.text("state"), "pending");
    eventually("it waits for a vote", async || {
        let look = rest.get(created.header("location")).await?;
        let waits = look.body["waiting_for"][0].as_str().unwrap_or_default();
        ensure!(waits.contains("the vote of branch 0"), "{look:?}");
        Ok(())
    })
    .await
    .unwrap();

    coordinator.process.kill();
    one.set_script(agree);
    coordinator.process.start().await.unwrap();
    let ended = rest.ended(&id).await.unwrap();
    assert_eq!(ended["state"], "rolledback");
    assert_eq!(ended["reason"]["code"], "COORDINATOR_RESTARTED");
    assert_eq!(ended["waiting_for"], json!([]));
}

#[tokio::test]
async fn who_waits_is_told_the_outcome() {
    let (_coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    let body = urls(&[&one, &two]);
    let committed = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    assert_eq!((committed.status.as_u16(), committed.text("state")), (201, "committed"));
    assert_eq!(committed.body["committed"], true);
    assert_eq!(states(&committed.body), ["committed"; 2]);

    let prefer = [JSON, ("prefer", "respond-async, wait=30")];
    two.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Refuse("SOLD_OUT".into()),
        heard => agree(heard),
    });
    let refused = rest.send("POST", "/transactions", &prefer, body.to_string()).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("state")), (201, "rolledback"));
    assert_eq!(refused.body["reason"]["code"], "SOLD_OUT");

    two.set_script(|_| Reply::Silence);
    let late = rest.json("POST", "/transactions?wait=0", &body).await.unwrap();
    assert_eq!((late.status.as_u16(), late.text("state")), (201, "pending"));
    let path = format!("/transactions/{}/rollback?wait=0", late.text("id"));
    let stopped = rest.send("POST", &path, &[], "").await.unwrap();
    assert_eq!((stopped.status.as_u16(), stopped.text("state")), (200, "rolledback"));
    let path = format!("/transactions/{}/rollback", committed.text("id"));
    let problem = rest.send("POST", &path, &[], "").await.unwrap();
    assert_eq!((problem.status.as_u16(), problem.text("code")), (409, "WRONG_STATE"));
}

#[tokio::test]
async fn an_idempotency_key_makes_a_request_safe_to_repeat() {
    let (mut coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    let body = urls(&[&one, &two]);
    let keyed = [JSON, ("idempotency-key", "order-7")];
    let send = async |body: &Value| {
        rest.send("POST", "/transactions?wait=30", &keyed, body.to_string()).await.unwrap()
    };
    let first = send(&body).await;
    assert_eq!(first.text("state"), "committed");
    assert_eq!(first.text("request_key"), "order-7");
    let again = send(&body).await;
    assert_eq!((again.status.as_u16(), again.text("id")), (201, first.text("id")));
    coordinator.process.restart().await.unwrap();
    assert_eq!(send(&body).await.text("id"), first.text("id"));
    let prepares = one.heard().iter().filter(|it| matches!(it, Heard::Prepare(_))).count();
    assert_eq!(prepares, 1);

    let other = send(&urls(&[&two, &one])).await;
    assert_eq!((other.status.as_u16(), other.text("code")), (422, "REQUEST_KEY_TAKEN"));
    assert_eq!(other.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn an_interactive_transaction_is_driven_call_by_call() {
    let (_coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    let begin = json!({"interactive": true, "options": {"idle_timeout_ms": 60_000}});
    for commit in [true, false] {
        let begun = rest.json("POST", "/transactions", &begin).await.unwrap();
        assert_eq!((begun.status.as_u16(), begun.text("phase")), (201, "active"), "{begun:?}");
        let path = format!("/transactions/{}", begun.text("id"));
        for (number, participant) in [&one, &two].into_iter().enumerate() {
            let branch = json!({"participant": participant.uri(), "payload": {"seat": 7}});
            let at = format!("{path}/branches");
            let enlisted = rest.json("POST", &at, &branch).await.unwrap();
            assert_eq!(
                (enlisted.status.as_u16(), &enlisted.body),
                (201, &json!({"branch": number}))
            );
        }
        let prepared = rest.send("POST", &format!("{path}/prepare"), &[], "").await.unwrap();
        assert_eq!((prepared.text("state"), prepared.text("phase")), ("pending", "prepared"));
        assert_eq!(prepared.body["waiting_for"], json!(["its client: commit or roll back"]));
        let (call, state) = match commit {
            true => ("commit", "committed"),
            false => ("rollback", "rolledback"),
        };
        let ended = rest.send("POST", &format!("{path}/{call}"), &[], "").await.unwrap();
        assert_eq!((ended.status.as_u16(), ended.text("state")), (200, state));
        let late = json!({"participant": one.uri()});
        let late = rest.json("POST", &format!("{path}/branches"), &late).await.unwrap();
        assert_eq!((late.status.as_u16(), late.text("code")), (409, "WRONG_STATE"));
    }
}

#[tokio::test]
async fn transactions_are_listed_by_state_in_pages() {
    let (_coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    let body = urls(&[&one, &two]);
    for _ in 0..5 {
        rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    }
    two.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Refuse("NO".into()),
        heard => agree(heard),
    });
    rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
    let count = async |query: &str| {
        let (mut found, mut token) = (0, String::new());
        loop {
            let path = format!("/transactions?page_size=2&page_token={token}{query}");
            let page = rest.get(&path).await.unwrap();
            assert_eq!(page.status, 200, "{page:?}");
            found += page.body["transactions"].as_array().unwrap().len();
            match page.body["next_page_token"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return found,
            }
        }
    };
    assert_eq!(count("").await, 6);
    assert_eq!(count("&state=committed").await, 5);
    assert_eq!(count("&state=rolledback").await, 1);
    assert_eq!(count("&state=heuristic_mixed").await, 0);
    assert_eq!(count("&begun_before=2020-01-01T00:00:00Z").await, 0);
    assert_eq!(count("&begun_after=2020-01-01T00:00:00Z&stalled=false").await, 6);
    assert_eq!(count(&format!("&participant={}", one.uri())).await, 6);
}

#[tokio::test]
async fn a_broken_promise_is_a_state_of_its_own() {
    let (_coordinator, rest) = coordinator().await;
    let (one, two) = (http().await, http().await);
    one.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::RolledBack,
        heard => agree(heard),
    });
    let mixed = rest.json("POST", "/transactions?wait=30", &urls(&[&one, &two])).await.unwrap();
    assert_eq!(mixed.text("state"), "heuristic_mixed");
    assert_eq!(states(&mixed.body), ["heuristic", "committed"]);
}

#[tokio::test]
async fn an_order_is_placed_over_http_at_participants_that_speak_grpc() {
    let cluster = Cluster::start().await.unwrap();
    let shop = cluster.shop();
    shop.stock_up("teapot", 10).await.unwrap();
    shop.open_account("ada", 50_000).await.unwrap();
    let rest = Rest::new(cluster.coordinator.address());
    let order = |quantity: u64| {
        json!({"branches": [
            {"participant": "inventory", "payload": {"lines": [{"sku": "teapot", "quantity": quantity}]}},
            {"participant": "payment", "payload": {"account": "ada", "amount_minor": 100, "currency": "EUR"}},
        ]})
    };
    let placed = rest.json("POST", "/transactions?wait=30", &order(2)).await.unwrap();
    assert_eq!(placed.text("state"), "committed", "{placed:?}");
    let refused = rest.json("POST", "/transactions?wait=30", &order(1000)).await.unwrap();
    assert_eq!(refused.body["reason"]["code"], "OUT_OF_STOCK", "{refused:?}");
    assert_eq!(shop.stock("teapot").await.unwrap().on_hand, 8);
    assert_eq!(shop.account("ada").await.unwrap().held_minor, 0);
}

#[tokio::test]
async fn an_address_in_a_request_must_be_allowed() {
    let only = Start::new().arg("--allow-participant").arg("*.shop.internal:8080");
    let coordinator = Alone::start_with(only).await.unwrap();
    let rest = Rest::new(coordinator.process.address());
    let one = http().await;
    let refused = rest.json("POST", "/transactions", &urls(&[&one])).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("code")), (403, "PARTICIPANT_NOT_ALLOWED"));
    assert_eq!(refused.text("field"), "branches[0].participant");
    let way_out = format!("--allow-participant {}", one.address());
    assert!(refused.text("detail").contains(&way_out), "{refused:?}");
    let put = json!({"address": one.uri()});
    let refused = rest.json("PUT", "/participants/one", &put).await.unwrap();
    assert_eq!(refused.status, 403, "who may be registered is who may be called: {refused:?}");
    let metadata = json!(["http://169.254.169.254/prepare"]);
    let refused = rest.json("POST", "/transactions", &metadata).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("code")), (400, "INVALID_ARGUMENT"));
    assert!(one.heard().is_empty());
}

/// What stands under a key, wherever.
fn all<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    match value {
        Value::Array(values) => values.iter().flat_map(|it| all(it, key)).collect(),
        Value::Object(fields) => {
            let below = fields.values().flat_map(|it| all(it, key));
            below.chain(fields.get(key).and_then(Value::as_str)).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_name_does_not_lead_to_a_forbidden_address() {
    let all = Start::new().arg("--allow-participant").arg("*");
    let coordinator = Alone::start_with(all).await.unwrap();
    let rest = Rest::new(coordinator.process.address());
    // To the system's resolver this is a name, of 169.254.169.254.
    for url in ["http://0xa9fea9fe:80/prepare", "http://0xa9fea9fe:81"] {
        let branch = json!({"participant": url, "payload": {}});
        let body = json!({"branches": [branch], "options": {"prepare_timeout_ms": 300}});
        let aborted = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
        assert_eq!(aborted.text("state"), "rolledback", "{aborted:?}");
        let known = rest.get("/participants").await.unwrap();
        let known = known.body["participants"].as_array().unwrap();
        let known = known.iter().find(|it| it["address"] == url).unwrap();
        let error = known["last_error"].to_string();
        assert!(error.contains("169.254.169.254, where no service is called"), "{url}: {error}");
    }
}

#[tokio::test]
async fn the_document_and_the_page_are_served() {
    let (_coordinator, rest) = coordinator().await;
    let document = rest.get("/openapi.json").await.unwrap().body;
    assert_eq!(document["openapi"], "3.1.0");
    for path in ["/transactions", "/transactions/{id}/commit", "/participants/{name}"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    for reference in all(&document, "$ref") {
        let known = document.pointer(reference.trim_start_matches('#'));
        assert!(known.is_some(), "{reference}");
    }
    let paths = document["paths"].as_object().unwrap().values();
    let operations: Vec<_> = paths
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let named = all(&document, "operationId");
    assert_eq!(BTreeSet::from_iter(&operations), BTreeSet::from_iter(&named));
    assert_eq!(BTreeSet::from_iter(&operations).len(), operations.len(), "{operations:?}");
    let page = rest.get("/docs/").await.unwrap_err().to_string();
    assert!(page.contains("<html") && page.contains("swagger"), "{page}");
    eventually("metrics are beside it", async || {
        let text = rest.get("/metrics").await.unwrap_err().to_string();
        anyhow::ensure!(text.contains("dtc_transactions"), "{text}");
        Ok(())
    })
    .await
    .unwrap();
}
