//! A program that embeds the coordinator: its own resources and remote participants in
//! one transaction.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use dtc::{Closures, Error, Payload, Resource, TransactionCoordinator};
use integration_tests::{FakeParticipant, Heard, Reply, Speaks, agree, eventually};
use serde_json::json;

/// Counts its commits and rollbacks.
fn counting(commits: &Arc<AtomicU32>, rollbacks: &Arc<AtomicU32>) -> impl Resource {
    let (commits, rollbacks) = (Arc::clone(commits), Arc::clone(rollbacks));
    Closures::new(
        || async { Ok(true) },
        move || {
            commits.fetch_add(1, SeqCst);
            async { Ok(()) }
        },
        move || {
            rollbacks.fetch_add(1, SeqCst);
            async { Ok(()) }
        },
    )
}

#[tokio::test]
async fn resources_of_the_program_and_remote_participants_have_one_outcome() {
    let coordinator = TransactionCoordinator::in_memory().await.unwrap();
    let mut all = Vec::new();
    for speaks in Speaks::ALL {
        all.push(FakeParticipant::start(speaks).await.unwrap());
    }
    let (commits, rollbacks) = (Arc::default(), Arc::default());
    for refuses in [None, Some(0), Some(1), Some(2)] {
        for (number, participant) in all.iter().enumerate() {
            let refuses = refuses == Some(number);
            participant.set_script(move |heard| match heard {
                Heard::Prepare(_) if refuses => Reply::Refuse("SOLD_OUT".into()),
                heard => agree(heard),
            });
        }
        let id = coordinator.begin_transaction().await.unwrap();
        coordinator.enlist_resource(id, counting(&commits, &rollbacks)).await.unwrap();
        for participant in &all {
            let payload = Payload::json(json!({"seat": 7})).unwrap();
            coordinator.enlist_remote(id, &participant.uri(), payload).await.unwrap();
        }
        let Some(number) = refuses else {
            assert_eq!(coordinator.commit_transaction(id).await, Ok(()));
            assert_eq!((commits.load(SeqCst), rollbacks.load(SeqCst)), (1, 0));
            continue;
        };
        let refused = coordinator.commit_transaction(id).await.unwrap_err();
        let from: &FakeParticipant = &all[number];
        assert!(
            matches!(&refused, Error::Refused { resource, .. } if *resource == from.uri()),
            "{refused}"
        );
        let expected = number as u32 + 1;
        eventually("the program's own resource is rolled back", async || {
            anyhow::ensure!(rollbacks.load(SeqCst) == expected);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(commits.load(SeqCst), 1);
    }
}
