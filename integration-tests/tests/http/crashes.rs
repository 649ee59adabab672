//! The coordinator's rows of the crash table, with participants that speak HTTP: the
//! real process dies at the point, by SIGKILL or by a loss of power, and its next run
//! brings both to one outcome.

use integration_tests::{
    FakeParticipant, Fixture, Heard, Loss, Rest, Role::Coordinator, eventually,
};
use serde_json::Value;

use crate::{http, states, urls};

async fn dies_at(point: &str, loss: Loss, outcome: &str) {
    let mut fixture = Fixture::crashing(Coordinator, point).await.unwrap();
    let rest = Rest::new(fixture.cluster.coordinator.address());
    let (one, two) = (http().await, http().await);
    let body = urls(&[&one, &two]);
    let headers = [("content-type", "application/json"), ("idempotency-key", "order-1")];
    let send =
        async || rest.send("POST", "/transactions?wait=25", &headers, body.to_string()).await;
    assert!(send().await.is_err(), "{point}: it answered, and should have died");
    fixture.killed_itself(Coordinator).await.unwrap();
    if loss == Loss::Power {
        fixture.cluster.coordinator.lose_power().unwrap();
    }
    fixture.cluster.coordinator.start().await.unwrap();
    let all = eventually("it is known", async || {
        let all = rest.get("/transactions").await?.body["transactions"].take();
        anyhow::ensure!(all.as_array().is_some_and(|all| all.len() == 1), "{all}");
        Ok(all)
    })
    .await
    .unwrap();
    let id = all[0]["id"].as_str().unwrap();
    let ended = rest.ended(id).await.unwrap();
    check(point, &ended, outcome, &[&one, &two]);
    // The client's retry finds it.
    let again = send().await.unwrap();
    assert_eq!((again.text("id"), again.text("state")), (id, outcome), "{point}");
}

fn check(point: &str, ended: &Value, outcome: &str, participants: &[&FakeParticipant]) {
    assert_eq!(ended["state"], outcome, "{point}: {ended}");
    let committed = outcome == "committed";
    let state = if committed { "committed" } else { "rolledback" };
    assert_eq!(states(ended), [state; 2], "{point}: {ended}");
    for participant in participants {
        let heard = participant.heard();
        let has = |is: fn(&Heard) -> bool| heard.iter().any(is);
        let told =
            (has(|it| matches!(it, Heard::Commit(_))), has(|it| matches!(it, Heard::Rollback(_))));
        assert_eq!(told, (committed, !committed), "{point}: {heard:?}");
    }
}

macro_rules! rows {
    ($($row:ident: $point:literal => $outcome:literal;)*) => {$(
        mod $row {
            use super::*;

            #[tokio::test]
            async fn killed() {
                dies_at($point, Loss::Process, $outcome).await;
            }

            #[tokio::test]
            async fn power_lost() {
                dies_at($point, Loss::Power, $outcome).await;
            }
        }
    )*};
}

rows! {
    before_any_prepare_left: "coordinator-before-prepare" => "rolledback";
    before_the_decision_is_durable: "coordinator-before-decision-durable" => "rolledback";
    decision_durable_nobody_told: "coordinator-decision-durable" => "committed";
    some_told: "coordinator-first-acknowledged" => "committed";
    all_acknowledged_end_not_durable: "coordinator-before-end-durable" => "committed";
}
