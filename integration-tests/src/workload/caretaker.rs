//! The operator where finished work is forgotten after seconds. A branch of an aborted
//! transaction that was in doubt for longer than that is answered 'not mine', and is
//! resolved as rolled back: what committed is forgotten only when all its branches have
//! acknowledged.

use std::time::Duration;

use dtc_proto::dtc::{
    ListUndecidedRequest, Resolution, ResolveBranchRequest,
    participant_admin_service_client::ParticipantAdminServiceClient,
};
use tokio::{sync::watch, time::sleep};
use tonic::transport::Channel;

use super::client::within;

const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: Duration = Duration::from_secs(3);

/// Works while nothing new is begun.
pub(crate) async fn run(participants: Vec<Channel>, mut open: watch::Receiver<bool>) {
    let mut participants: Vec<_> =
        participants.into_iter().map(ParticipantAdminServiceClient::new).collect();
    while open.wait_for(|open| !open).await.is_ok() {
        sleep(ROUNDS).await;
        for participant in &mut participants {
            look_after(participant).await;
        }
    }
}

/// It may be away just now.
async fn look_after(participant: &mut ParticipantAdminServiceClient<Channel>) {
    let request = ListUndecidedRequest { page_size: 1000, ..Default::default() };
    let Ok(list) = within(PATIENCE, participant.list_undecided(request)).await else { return };
    for branch in list.into_inner().branches.into_iter().filter(|branch| branch.not_mine) {
        let request = ResolveBranchRequest {
            key: branch.key,
            resolution: Resolution::Rollback.into(),
            reason: "its transaction is forgotten".into(),
            caller: "caretaker".into(),
        };
        // What was resolved meanwhile is refused.
        let _ = within(PATIENCE, participant.resolve_branch(request)).await;
    }
}
