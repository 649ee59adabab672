//! What gRPC offers is offered over HTTP too.

use std::collections::BTreeSet;

use anyhow::ensure;
use integration_tests::{Answer, Heard, Reply, agree, eventually};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use crate::{coordinator, http, urls};

const JSON: (&str, &str) = ("content-type", "application/json");

fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.text("code")), (status, code), "{answer:?}");
}

/// Each method of gRPC with its operation, or why there is none.
const OPERATIONS: &[(&str, Result<&str, &str>)] = &[
    ("AdminService.Abandon", Ok("abandonBranch")),
    ("AdminService.Forget", Ok("forgetTransaction")),
    ("AdminService.Resolve", Ok("resolveTransaction")),
    ("AdminService.Retry", Ok("retryTransaction")),
    ("LockService.Acquire", Ok("beginSession")),
    ("LockService.List", Ok("listLocks")),
    ("LockService.Release", Ok("releaseSession")),
    ("LockService.Renew", Ok("renewSession")),
    ("RecoveryService.GetOutcome", Err("participants that speak HTTP do not ask")),
    ("RegistryService.Deregister", Ok("deregisterParticipant")),
    ("RegistryService.ListParticipants", Ok("listParticipants")),
    ("RegistryService.Register", Ok("registerParticipant")),
    ("RegistryService.Renew", Ok("renewRegistration")),
    ("TransactionService.Begin", Ok("createTransaction")),
    ("TransactionService.Commit", Ok("commitTransaction")),
    ("TransactionService.Enlist", Ok("enlistBranch")),
    ("TransactionService.Execute", Ok("createTransaction")),
    ("TransactionService.ExecuteStream", Err("HTTP/2 has many requests on one connection")),
    ("TransactionService.Get", Ok("getTransactionByKey")),
    ("TransactionService.List", Ok("listTransactions")),
    ("TransactionService.Prepare", Ok("prepareTransaction")),
    ("TransactionService.Rollback", Ok("rollbackTransaction")),
    ("TransactionService.Watch", Ok("watchTransaction")),
];

#[tokio::test]
async fn every_method_of_grpc_has_an_operation_or_a_reason_why_not() {
    // The participants' own services are served by them.
    let theirs = ["ParticipantService", "ParticipantAdminService"];
    let pool = DescriptorPool::decode(dtc_proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| !theirs.contains(&service.name()));
    let methods: BTreeSet<String> = services
        .flat_map(|service| {
            let name = service.name().to_owned();
            let methods: Vec<_> =
                service.methods().map(|method| format!("{name}.{}", method.name())).collect();
            methods
        })
        .collect();
    assert_eq!(methods, OPERATIONS.iter().map(|(name, _)| (*name).to_owned()).collect());

    let (_coordinator, rest) = coordinator().await;
    let document = rest.get("/openapi.json").await.unwrap().body;
    let paths = document["paths"].as_object().unwrap().values();
    let offered: BTreeSet<&str> = paths
        .flat_map(|path| path.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    for (method, operation) in OPERATIONS {
        if let Ok(operation) = operation {
            assert!(offered.contains(operation), "{method}: no {operation} in {offered:?}");
        }
    }
}

#[tokio::test]
async fn a_transaction_is_found_by_its_key() {
    let (_coordinator, rest) = coordinator().await;
    let one = http().await;
    let body = urls(&[&one]).to_string();
    let headers = [JSON, ("idempotency-key", "order/17 b")];
    let made = rest.send("POST", "/transactions?wait=30", &headers, body).await.unwrap();
    assert_eq!(made.text("state"), "committed", "{made:?}");
    let found = rest.get("/request-keys/order%2F17%20b").await.unwrap();
    assert_eq!((found.status.as_u16(), found.text("id")), (200, made.text("id")));
    assert_eq!(found.text("request_key"), "order/17 b");
    assert!(!found.body["trail"].as_array().unwrap().is_empty(), "{found:?}");
    let unknown = rest.get("/request-keys/order").await.unwrap();
    is_problem(&unknown, 404, "UNKNOWN_TRANSACTION");
    let long = rest.get(&format!("/request-keys/{}", "k".repeat(129))).await.unwrap();
    is_problem(&long, 400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn a_transaction_is_watched_until_it_has_finished() {
    let (_coordinator, rest) = coordinator().await;
    let one = http().await;
    let begun = rest.json("POST", "/transactions", &json!({"interactive": true})).await.unwrap();
    let path = format!("/transactions/{}", begun.text("id"));
    let watching = tokio::spawn({
        let (rest, path) = (rest.clone(), format!("{path}/watch"));
        async move { rest.text(&path).await }
    });
    let branch = json!({"participant": one.uri()});
    let enlisted = rest.json("POST", &format!("{path}/branches"), &branch).await.unwrap();
    assert_eq!(enlisted.status, 201, "{enlisted:?}");
    let committed = rest.send("POST", &format!("{path}/commit"), &[], "").await.unwrap();
    assert_eq!(committed.text("state"), "committed", "{committed:?}");

    let events = watching.await.unwrap().unwrap();
    let updates: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let last = updates.last().unwrap();
    assert_eq!(last["transaction"]["phase"], "committed", "{events}");
    assert!(updates[0].get("event").is_none(), "{events}");
    let kinds = updates.iter().filter_map(|update| update["event"]["kind"].as_str());
    assert!(kinds.clone().any(|kind| kind == "decided_commit"), "{events}");
    let unknown = rest.get("/transactions/01890000-0000-7000-8000-000000000000/watch").await;
    is_problem(&unknown.unwrap(), 404, "UNKNOWN_TRANSACTION");
}

#[tokio::test]
async fn locks_are_taken_listed_renewed_and_released() {
    let (_coordinator, rest) = coordinator().await;
    let wanted =
        json!({"locks": [{"key": "a"}, {"key": "b", "mode": "shared"}], "lease_ms": 60000});
    let headers = [JSON, ("idempotency-key", "session")];
    let send = async || rest.send("POST", "/sessions", &headers, wanted.to_string()).await.unwrap();
    let (session, again) = (send().await, send().await);
    assert_eq!(session.status, 201, "{session:?}");
    let id = session.text("session_id").to_owned();
    assert_eq!(again.text("session_id"), id, "the repeat is the same session");
    assert_eq!(session.body["locks"][0]["mode"], "exclusive");
    assert!(session.body["locks"][0]["token"].as_str().unwrap().parse::<u64>().unwrap() > 0);

    let begun = rest.json("POST", "/transactions", &json!({"interactive": true})).await.unwrap();
    let transaction = begun.text("id").to_owned();
    let lock = async |key: &str| {
        let body = json!({"locks": [{"key": key}]});
        rest.json("POST", &format!("/transactions/{transaction}/locks?wait=0"), &body)
            .await
            .unwrap()
    };
    is_problem(&lock("a").await, 409, "LOCK_TIMEOUT");
    assert_eq!(lock("c").await.body["locks"][0]["key"], "c");
    let all = rest.get("/locks").await.unwrap();
    let keys = |page: &Answer| -> Vec<String> {
        let locks = page.body["locks"].as_array().unwrap().iter();
        locks.map(|lock| lock["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&all), ["a", "b", "c"], "{all:?}");
    assert_eq!(all.body["locks"][0]["holders"][0]["owner"]["session_id"], id.as_str());
    let first = rest.get("/locks?page_size=1").await.unwrap();
    assert_eq!((keys(&first), first.text("next_page_token")), (vec!["a".into()], "a"));
    let own = rest.get(&format!("/locks?owner=transaction_id:{transaction}")).await.unwrap();
    assert_eq!(keys(&own), ["c"]);
    let untyped = rest.get(&format!("/locks?owner={id}")).await;
    is_problem(&untyped.unwrap(), 400, "INVALID_ARGUMENT");

    let renewed = rest.send("POST", &format!("/sessions/{id}/renew"), &[], "").await.unwrap();
    assert_eq!((renewed.status.as_u16(), &renewed.body["lease_ms"]), (200, &json!(60000)));
    let release = format!("/sessions/{id}/release");
    let one = rest.json("POST", &release, &json!({"keys": ["a"]})).await.unwrap();
    assert_eq!(one.body["released"], 1, "{one:?}");
    let rest_of_it = rest.send("POST", &release, &[], "").await.unwrap();
    assert_eq!(rest_of_it.body["released"], 1, "{rest_of_it:?}");
    let gone = rest.send("POST", &format!("/sessions/{id}/renew"), &[], "").await.unwrap();
    is_problem(&gone, 404, "UNKNOWN_SESSION");
    let short = json!({"locks": [{"key": "a"}], "lease_ms": 1});
    let short = rest.json("POST", "/sessions", &short).await.unwrap();
    is_problem(&short, 400, "INVALID_ARGUMENT");
    assert_eq!(short.text("field"), "lease_ms");
}

#[tokio::test]
async fn an_operator_retries_resolves_abandons_and_forgets() {
    let (_coordinator, rest) = coordinator().await;
    let one = http().await;
    one.set_script(|heard| match heard {
        Heard::Commit(_) => Reply::Silence,
        heard => agree(heard),
    });
    // Two, since a single branch is prepared and committed in one.
    let two = http().await;
    let made = rest.json("POST", "/transactions", &urls(&[&one, &two])).await.unwrap();
    let path = format!("/transactions/{}", made.text("id"));
    eventually("it is committed, and waits for a branch", async || {
        let look = rest.get(&path).await?;
        let states = &look.body["branches"];
        ensure!(states[0]["state"] == "committing" && states[1]["state"] == "committed");
        Ok(())
    })
    .await
    .unwrap();
    let post = async |call: &str, body: Value| {
        rest.json("POST", &format!("{path}/{call}"), &body).await.unwrap()
    };
    let signed = json!({"reason": "it is away", "caller": "ada"});
    let retried = post("retry", signed.clone()).await;
    assert_eq!(retried.status, 200, "{retried:?}");
    assert_eq!(retried.body["interventions"][0]["action"], "retry");
    is_problem(&post("forget", signed.clone()).await, 409, "WRONG_STATE");
    for wrong in [
        json!({"resolution": "commit", "reason": "", "caller": "ada"}),
        json!({"resolution": "perhaps", "reason": "why", "caller": "ada"}),
        json!({"reason": "why", "caller": "ada"}),
    ] {
        is_problem(&post("resolve", wrong).await, 400, "INVALID_ARGUMENT");
    }
    let resolution =
        json!({"resolution": "commit", "branch": 0, "reason": "asked", "caller": "ada"});
    let resolved = post("resolve", resolution).await;
    assert_eq!((resolved.status.as_u16(), resolved.text("state")), (200, "committed"));
    assert_eq!(resolved.body["branches"][0]["resolution"], "commit", "{resolved:?}");
    eventually("its participant is not waited for any more", async || {
        let look = rest.get(&path).await?;
        let branch = &look.body["branches"][0];
        ensure!(branch["state"] == "asserted" && branch["notification_owed"] == true, "{look:?}");
        Ok(())
    })
    .await
    .unwrap();
    let who = resolved.body["interventions"][1]["caller"].as_str().unwrap();
    assert!(who.starts_with("ada (127.0.0.1:"), "{who}");
    let abandoned = post("abandon", signed).await;
    assert_eq!(abandoned.status, 200, "{abandoned:?}");
    assert_eq!(abandoned.body["interventions"][2]["action"], "abandon");
}
