//! Doubts about a coordinator's branches that has no link here: its recovery
//! service is asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dtc_proto::dtc::{
    GetOutcomeRequest, GetOutcomeResponse, recovery_service_client::RecoveryServiceClient,
};
use dtc_protocol::branch::{Outcome, Request, Step, step};
use futures::StreamExt;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    ResourceManager,
    engine::Engine,
    event_log,
    journal::InDoubtBranch,
    wire::{self, Batch, Decision, Origin},
};

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);
/// Questions that wait for an answer at a time.
const AT_A_TIME: usize = 32;

/// Asks about each of them once, at the address that came with it. Stops at an
/// address that can't be reached.
pub(crate) async fn ask<R: ResourceManager>(engine: Arc<Engine<R>>, doubts: Vec<InDoubtBranch>) {
    let mut by_address: BTreeMap<String, Vec<InDoubtBranch>> = BTreeMap::new();
    for doubt in doubts {
        by_address.entry(doubt.recovery_address.clone()).or_default().push(doubt);
    }
    for (address, doubts) in by_address {
        let Some(endpoint) = endpoint(&engine, &address) else {
            let (branches, first) = (doubts.len(), &doubts[0].branch);
            tracing::warn!(
                branches, coordinator = %first.coordinator, address,
                "in doubt, with no link and no recovery address; set --coordinator"
            );
            continue;
        };
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(ANSWER);
        let channel = engine.environment.network.connect_lazy(&endpoint);
        let client = RecoveryServiceClient::new(channel);
        // The first goes alone: it finds out whether anybody is there.
        let Some((first, others)) = doubts.split_first() else { continue };
        if let Err(error) = ask_one(&engine, client.clone(), first).await {
            tracing::info!(
                %error,
                "recovery service unreachable; {} branches remain in doubt",
                doubts.len()
            );
            continue;
        }
        futures::stream::iter(others)
            .for_each_concurrent(AT_A_TIME, |doubt| {
                let (engine, client) = (&engine, client.clone());
                async move {
                    if let Err(error) = ask_one(engine, client, doubt).await {
                        tracing::info!(transaction = %doubt.branch.transaction, %error, "no answer");
                    }
                }
            })
            .await;
    }
}

fn endpoint<R: ResourceManager>(engine: &Engine<R>, address: &str) -> Option<Endpoint> {
    let recorded = (!address.is_empty()).then(|| Endpoint::from_shared(address.to_owned()));
    recorded.and_then(Result::ok).or_else(|| engine.limits.coordinator.clone())
}

async fn ask_one<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    mut client: RecoveryServiceClient<Channel>,
    doubt: &InDoubtBranch,
) -> Result<(), Status> {
    event_log::asked(doubt);
    engine.metrics.inquiries.inc();
    let branch = doubt.branch;
    let request = GetOutcomeRequest {
        coordinator_id: branch.coordinator.to_string(),
        transaction_id: branch.transaction.to_string(),
        branch: branch.number,
        epoch: doubt.run.epoch,
        incarnation: doubt.run.incarnation.to_string(),
    };
    let response = client.get_outcome(request).await?.into_inner();
    apply(engine, doubt, &response).await
}

async fn apply<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    doubt: &InDoubtBranch,
    response: &GetOutcomeResponse,
) -> Result<(), Status> {
    let branch = doubt.branch;
    let origin = Origin::parse("origin", response.origin.as_ref())?;
    let outcome = response.outcome();
    tracing::info!(
        transaction = %branch.transaction, branch = branch.number, ?outcome,
        coordinator = %origin.coordinator, "in doubt, answered"
    );
    let own = origin.coordinator == branch.coordinator;
    // Another coordinator's 'pending' is of no transaction of its own either.
    let outcome = wire::outcome(outcome, response.decision_number);
    let Some(outcome) = outcome.or((!own).then_some(Outcome::NotMine)) else {
        return Ok(());
    };
    let request = Request::Outcome { outcome, own };
    // Where that decides nothing, it passes no fence either: another coordinator's run is
    // not kept here.
    match step(Some(&doubt.state), &request) {
        Step::ReportNotMine => {
            engine.not_mine.note(&[branch], &engine.metrics);
            return Ok(());
        }
        Step::Ignore => return Ok(()),
        _ => {}
    }
    let decisions = vec![Decision::new(branch, request)];
    let batch = Batch { decisions, ..Batch::default() };
    // The fence refuses the answer of a run that was replaced.
    let answers = engine.perform(Arc::new(origin), batch).await;
    event_log::log(&answers.map_err(|refused| Status::from(&refused))?);
    Ok(())
}
