//! Clients and participants that speak HTTP.

mod api;
mod calls;
mod crashes;
mod hostile;
mod idle_connections;
mod malformed;
mod participants;
mod payloads;
mod registry;

use integration_tests::{Alone, FakeParticipant, Rest, Speaks};
use serde_json::{Value, json};

async fn coordinator() -> (Alone, Rest) {
    let coordinator = Alone::start().await.unwrap();
    let rest = Rest::new(coordinator.process.address());
    (coordinator, rest)
}

async fn http() -> FakeParticipant {
    FakeParticipant::start(Speaks::Http).await.unwrap()
}

/// A plain list of participants' URLs.
fn urls(participants: &[&FakeParticipant]) -> Value {
    json!(participants.iter().map(|it| it.uri()).collect::<Vec<_>>())
}

fn states(transaction: &Value) -> Vec<&str> {
    let branches = transaction["branches"].as_array().into_iter().flatten();
    branches.filter_map(|branch| branch["state"].as_str()).collect()
}
