//! The scripted ends understand each other, by calls and by link.

use dtc_proto::dtc::{Acknowledgement, LinkCommit, LinkPrepare, LinkRequest, Payload, Vote};

use integration_tests::{
    FakeCoordinator, FakeParticipant, Heard, Reply, Speaks, agree, eventually,
};
use shop_proto::ReserveStock;
use tonic::Code;
use uuid::Uuid;

fn coordinator(participant: &FakeParticipant) -> FakeCoordinator {
    FakeCoordinator::new(participant.address(), Uuid::from_u128(1), 7, Uuid::from_u128(2))
}

fn payload() -> Payload {
    integration_tests::typed(&ReserveStock::default())
}

#[tokio::test]
async fn by_calls() {
    let participant = FakeParticipant::start(Speaks::Calls).await.unwrap();
    let coordinator = coordinator(&participant);
    let transaction = Uuid::from_u128(3);
    let vote = coordinator.prepare(transaction, 0, payload()).await.unwrap();
    assert_eq!(vote.vote(), Vote::Commit);
    coordinator.commit(transaction, 0).await.unwrap();
    participant.set_script(|heard| match heard {
        Heard::Prepare(_) => Reply::Refuse("NO".into()),
        Heard::Commit(_) => Reply::Unknown,
        heard => agree(heard),
    });
    let vote = coordinator.prepare(transaction, 1, payload()).await.unwrap();
    assert_eq!((vote.vote(), vote.abort_reason.unwrap().code.as_str()), (Vote::Abort, "NO"));
    let status = coordinator.commit(transaction, 1).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    coordinator.rollback(transaction, 1).await.unwrap();
    assert_eq!(coordinator.link().await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(participant.heard().len(), 5);
}

#[tokio::test]
async fn by_link() {
    let participant = FakeParticipant::start(Speaks::Link).await.unwrap();
    let mut link = coordinator(&participant).link().await.unwrap();
    assert!(link.next().await.unwrap().hello.is_some());
    let transaction_id = prost::bytes::Bytes::copy_from_slice(&[5; 16]);
    let prepare = LinkPrepare {
        transaction_id: transaction_id.clone(),
        payload: Some(payload()),
        ..LinkPrepare::default()
    };
    link.send(LinkRequest { prepares: vec![prepare], ..Default::default() }).await.unwrap();
    let votes = link.next().await.unwrap().votes;
    assert_eq!((votes[0].vote(), &votes[0].transaction_id), (Vote::Commit, &transaction_id));
    let commit = LinkCommit { transaction_id, decision_number: 1, ..LinkCommit::default() };
    link.send(LinkRequest { commits: vec![commit], ..Default::default() }).await.unwrap();
    let acknowledgements = link.next().await.unwrap().acknowledgements;
    assert_eq!(acknowledgements[0].acknowledgement(), Acknowledgement::Committed);
    assert_eq!(acknowledgements[0].decision_number, 1);
    assert!(participant.ask(Default::default()).await);
    assert_eq!(link.next().await.unwrap().inquiries.len(), 1);
    eventually("all was heard", async || {
        anyhow::ensure!(participant.heard().len() == 3);
        Ok(())
    })
    .await
    .unwrap();
}
