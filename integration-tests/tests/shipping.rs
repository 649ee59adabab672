//! The example of a participant with the kit, as a process under a real coordinator.

use std::path::Path;

use anyhow::ensure;
use dtc_proto::dtc::{
    AnswerAt, BeginRequest, Branch, CommitTransactionRequest, EnlistRequest, ExecuteRequest,
    Payload, PrepareTransactionRequest, Transaction, payload::Kind,
};
use example_shipping::wire::{
    BookParcel, GetVanRequest, SetVanRequest, Van, shipping_service_client::ShippingServiceClient,
};
use integration_tests::{Addresses, Alone, Process, Start, channel, eventually, typed};
use tempfile::TempDir;
use tonic::transport::Channel;

const DAY: &str = "2026-12-24";
const PARTICIPANT: &str = "shipping";

struct Example {
    coordinator: Alone,
    process: Process,
    vans: ShippingServiceClient<Channel>,
    _folder: TempDir,
}

impl Example {
    async fn start(capacity: i64) -> Self {
        let address = Addresses::pick().order;
        let participant = format!("{PARTICIPANT}=http://{address}");
        let known = Start::new().arg("--participant").arg(participant);
        let coordinator = Alone::start_with(known).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_test-shipping"));
        let mut process = Process::new(PARTICIPANT, program, folder.path(), address);
        process.start().await.unwrap();
        let mut vans = ShippingServiceClient::new(channel(address));
        vans.set_van(SetVanRequest { day: DAY.into(), capacity }).await.unwrap();
        Self { coordinator, process, vans, _folder: folder }
    }

    async fn book(&self, payload: Payload) -> Transaction {
        let request = ExecuteRequest { branches: vec![branch(payload)], ..Default::default() };
        self.coordinator.execute(request).await.unwrap().transaction.unwrap()
    }

    /// What is booked and what is reserved.
    async fn taken(&self) -> (i64, i64) {
        let request = GetVanRequest { day: DAY.into() };
        let Van { booked, reserved, .. } =
            self.vans.clone().get_van(request).await.unwrap().into_inner();
        (booked, reserved)
    }
}

fn branch(payload: Payload) -> Branch {
    Branch { participant: PARTICIPANT.into(), payload: Some(payload) }
}

fn parcel() -> Payload {
    typed(&BookParcel { day: DAY.into(), recipient: "ada".into() })
}

fn json(fields: &[(&str, &str)]) -> Payload {
    let value = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.into())),
    };
    let fields = fields.iter().map(|(name, text)| ((*name).into(), value(text))).collect();
    Payload { kind: Some(Kind::Json(prost_types::Struct { fields })) }
}

#[tokio::test]
async fn parcels_are_booked_until_the_van_is_full() {
    let example = Example::start(2).await;
    assert!(example.book(parcel()).await.committed);
    assert!(example.book(json(&[("day", DAY), ("recipient", "ada")])).await.committed);
    assert_eq!(example.taken().await, (2, 0));

    let full = example.book(parcel()).await;
    assert!(!full.committed);
    assert_eq!(full.abort_reason.unwrap().code, "VAN_FULL");
    let wrong = example.book(json(&[("day", DAY), ("recipent", "ada")])).await;
    let reason = wrong.abort_reason.unwrap();
    assert_eq!(reason.code, "BAD_PAYLOAD");
    assert!(reason.message.contains("shipping.v1.BookParcel"), "{reason:?}");
    assert!(reason.message.contains("'recipent'"), "{reason:?}");
    assert_eq!(example.taken().await, (2, 0));
}

#[tokio::test]
async fn what_another_branch_refuses_is_given_back() {
    let example = Example::start(1).await;
    let request =
        ExecuteRequest { branches: vec![branch(parcel()), branch(parcel())], ..Default::default() };
    assert!(!example.coordinator.execute(request).await.unwrap().committed);
    assert_eq!(example.taken().await, (0, 0));
    assert!(example.book(parcel()).await.committed);
}

#[tokio::test]
async fn a_promise_outlives_kill_9() {
    let mut example = Example::start(1).await;
    let mut client = example.coordinator.transactions.clone();
    let begun = client.begin(BeginRequest::default()).await.unwrap().into_inner();
    let transaction_id = begun.transaction_id;
    let enlist = EnlistRequest {
        transaction_id: transaction_id.clone(),
        branch: Some(branch(parcel())),
        ..EnlistRequest::default()
    };
    client.enlist(enlist).await.unwrap();
    let prepare = PrepareTransactionRequest { transaction_id: transaction_id.clone(), wait: None };
    assert!(client.prepare(prepare).await.unwrap().into_inner().prepared);
    assert_eq!(example.taken().await, (0, 1));

    example.process.kill();
    let commit = CommitTransactionRequest {
        transaction_id: transaction_id.clone(),
        answer_at: AnswerAt::Decision.into(),
        wait: None,
    };
    assert!(client.commit(commit).await.unwrap().into_inner().committed);
    example.process.start().await.unwrap();
    eventually("the parcel is booked", async || {
        let taken = example.taken().await;
        ensure!(taken == (1, 0), "booked and reserved: {taken:?}");
        Ok(())
    })
    .await
    .unwrap();
    example.coordinator.ended(&transaction_id).await.unwrap();
}
