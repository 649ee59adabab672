//! Participants by name, and what participants in doubt are answered.

use dtc_proto::dtc::{
    BranchOutcome, ExecuteRequest, GetOutcomeRequest, LinkState, ListParticipantsRequest,
    Participant, RegisterRequest,
};
use integration_tests::{Alone, FakeParticipant, Speaks, branches_at, eventually};
use tonic::Code;
use uuid::Uuid;

use crate::{Gate, at_decision, is_commit, is_prepare, linked, prepared_ids, request_at};

async fn register(coordinator: &Alone, name: &str, participant: &FakeParticipant) {
    let participant =
        Participant { name: name.into(), address: participant.uri(), ..Default::default() };
    let request = RegisterRequest { participant: Some(participant), lease: None };
    coordinator.registry.clone().register(request).await.unwrap();
}

#[tokio::test]
async fn registered_names_outlive_a_restart_and_may_move() {
    let mut coordinator = Alone::start().await.unwrap();
    let by_name =
        |name| ExecuteRequest { branches: branches_at([name, name]), ..Default::default() };
    let unknown = coordinator.execute(by_name("warehouse")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.message().contains("'warehouse'"), "{unknown}");

    let (first, second) = (linked().await, FakeParticipant::start(Speaks::Calls).await.unwrap());
    register(&coordinator, "warehouse", &first).await;
    register(&coordinator, "till", &second).await;
    for _ in 0..2 {
        assert!(coordinator.execute(by_name("warehouse")).await.unwrap().committed);
        assert!(coordinator.execute(by_name("till")).await.unwrap().committed);
        eventually("the list says how each is linked", async || {
            let mut registry = coordinator.registry.clone();
            let answer = registry.list_participants(ListParticipantsRequest {}).await?;
            let mut all = answer.into_inner().participants;
            all.sort_by_key(|status| status.participant.clone().map(|it| it.name));
            let links: Vec<_> = all.iter().map(|status| status.link()).collect();
            anyhow::ensure!(links == [LinkState::Unary, LinkState::Stream], "{all:?}");
            let supports_inquiry =
                all.iter().map(|it| it.participant.as_ref().is_some_and(|it| it.supports_inquiry));
            anyhow::ensure!(supports_inquiry.eq([false, true]), "who has a link asks: {all:?}");
            anyhow::ensure!(all.iter().all(|status| status.unfinished == 0), "{all:?}");
            anyhow::ensure!(!all[1].journal_id.is_empty(), "{all:?}");
            Ok(())
        })
        .await
        .unwrap();
        coordinator.process.restart().await.unwrap();
    }
    let heard = first.heard().len();
    register(&coordinator, "warehouse", &second).await;
    assert!(coordinator.execute(by_name("warehouse")).await.unwrap().committed);
    assert_eq!(first.heard().iter().skip(heard).filter(|it| is_prepare(it)).count(), 0);
}

#[tokio::test]
async fn a_participant_in_doubt_is_told_what_is_known_and_no_more() {
    let mut coordinator = Alone::start().await.unwrap();
    let (one, two) = (linked().await, linked().await);
    let gate = Gate::before(&two, is_commit);
    let answer = coordinator.execute(at_decision(request_at(&[&one, &two]))).await.unwrap();
    let committed = answer.transaction.unwrap().id;
    let origin = |heard: &_| match heard {
        integration_tests::Heard::Prepare(prepare) => prepare.origin.clone(),
        _ => None,
    };
    let origin = one.heard().iter().find_map(origin).unwrap();
    let ask = async |id: &str, branch, change: fn(&mut GetOutcomeRequest)| {
        let mut request = GetOutcomeRequest {
            coordinator_id: origin.coordinator_id.clone(),
            transaction_id: id.into(),
            branch,
            epoch: origin.epoch,
            incarnation: origin.incarnation.clone(),
        };
        change(&mut request);
        let mut recovery = coordinator.recovery.clone();
        let answer = recovery.get_outcome(request).await.unwrap().into_inner();
        assert_eq!(answer.origin.as_ref().unwrap().coordinator_id, origin.coordinator_id);
        answer.outcome()
    };
    assert_eq!(ask(&committed, 1, |_| {}).await, BranchOutcome::Committed);

    Gate::before(&one, is_prepare);
    let pending = tokio::spawn({
        let (mut client, request) = (coordinator.transactions.clone(), request_at(&[&one, &two]));
        async move { client.execute(request).await }
    });
    let id = eventually("it is prepared", async || {
        let ids = prepared_ids(&one);
        anyhow::ensure!(ids.len() == 2);
        Ok(ids[1].clone())
    })
    .await
    .unwrap();
    assert_eq!(ask(&id, 1, |_| {}).await, BranchOutcome::Pending);

    let unknown = Uuid::from_u128(7).to_string();
    assert_eq!(ask(&unknown, 0, |_| {}).await, BranchOutcome::Aborted, "presumed");
    for id in [&unknown, &committed] {
        let other = |it: &mut GetOutcomeRequest| it.coordinator_id = Uuid::from_u128(1).to_string();
        assert_eq!(ask(id, 1, other).await, BranchOutcome::NotMine, "another coordinator's");
        assert_eq!(ask(id, 1, |it| it.epoch += 1).await, BranchOutcome::NotMine, "unknown run");
        let other = |it: &mut GetOutcomeRequest| it.incarnation = Uuid::from_u128(1).to_string();
        assert_eq!(ask(id, 1, other).await, BranchOutcome::NotMine, "unknown run");
    }
    assert_eq!(ask(&committed, 99, |_| {}).await, BranchOutcome::NotMine, "no such branch");

    coordinator.process.restart().await.unwrap();
    assert!(pending.await.unwrap().is_err());
    let mut recovery = coordinator.recovery.clone();
    let mut ask = async |id: &str| {
        let request = GetOutcomeRequest {
            coordinator_id: origin.coordinator_id.clone(),
            transaction_id: id.into(),
            branch: 1,
            epoch: origin.epoch,
            incarnation: origin.incarnation.clone(),
        };
        recovery.get_outcome(request).await.unwrap().into_inner().outcome()
    };
    assert_eq!(ask(&id).await, BranchOutcome::Aborted, "its run is over");
    assert_eq!(ask(&committed).await, BranchOutcome::Committed);
    gate.open();
    coordinator.ended(&committed).await.unwrap();
    assert_eq!(ask(&committed).await, BranchOutcome::Committed, "from the journal");
}
