//! `dtc.v1.ParticipantAdminService`: what is done by an operator when a coordinator is gone.

use std::{sync::Arc, time::Duration};

use dtc_proto::dtc::{
    BranchKey, ForgetBranchRequest, ForgetBranchResponse, ListResolvedRequest,
    ListResolvedResponse, ListUndecidedRequest, ListUndecidedResponse, Resolution,
    ResolveBranchRequest, ResolveBranchResponse, ResolvedBranch, UndecidedBranch,
    participant_admin_service_server::ParticipantAdminService,
};
use dtc_protocol::BranchId;
use dtc_service::Peer;
use tonic::{Request, Response, Status};

use crate::{
    ResourceManager,
    branches::ResolveError,
    engine::Engine,
    journal::{self, InDoubtBranch},
    resolutions::{self, HeuristicDecision},
    wire,
};

const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;
const MAX_REASON: usize = 1000;
const MAX_CALLER: usize = 200;

pub(crate) struct Admin<R: ResourceManager> {
    pub(crate) engine: Arc<Engine<R>>,
}

/// A branch as operators name it.
fn key(key: Option<&BranchKey>) -> Result<BranchId, Status> {
    let Some(key) = key else {
        return Err(Status::invalid_argument(
            "key is missing; it names the branch: coordinator_id, transaction_id, branch",
        ));
    };
    Ok(BranchId {
        coordinator: wire::uuid("key.coordinator_id", &key.coordinator_id)?,
        transaction: wire::uuid("key.transaction_id", &key.transaction_id)?,
        number: key.branch,
    })
}

fn shown(branch: &BranchId) -> BranchKey {
    BranchKey {
        coordinator_id: branch.coordinator.to_string(),
        transaction_id: branch.transaction.to_string(),
        branch: branch.number,
    }
}

/// Where a page ended: the last branch on it.
fn token(last: Option<&BranchId>, is_full: bool) -> String {
    let Some(last) = last.filter(|_| is_full) else { return String::new() };
    format!("{}/{}/{}", last.transaction, last.number, last.coordinator)
}

fn from_token(token: &str) -> Result<Option<BranchId>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut parts = token.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let branch = part().parse().ok().zip(part().parse().ok()).zip(part().parse().ok());
    let branch = branch.map(|((transaction, number), coordinator)| BranchId {
        transaction,
        number,
        coordinator,
    });
    let shown: String = token.chars().take(120).collect();
    let no_token = || {
        Status::invalid_argument(format!("page_token: '{shown}' is from no answer of this list"))
    };
    branch.map(Some).ok_or_else(no_token)
}

fn page_size(size: u32) -> Result<usize, Status> {
    match size {
        0 => Ok(PAGE as usize),
        1..=LARGEST_PAGE => Ok(size as usize),
        _ => Err(Status::invalid_argument(format!(
            "page_size: {size} is out of range; 1 to {LARGEST_PAGE}"
        ))),
    }
}

fn bounded(field: &str, text: &str, most: usize, what: &str) -> Result<(), Status> {
    let length = text.chars().count();
    if (1..=most).contains(&length) && !text.trim().is_empty() {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "{field}: has {length} characters; give {what}, in 1 to {most}"
    )))
}

/// Checks why and by whom; gives the caller with the address that the call came from.
fn signature<T>(request: &Request<T>) -> impl Fn(&str, &str) -> Result<String, Status> + use<T> {
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.to_string());
    let peer = peer.unwrap_or_else(|| "in process".into());
    move |reason, caller| {
        bounded("reason", reason, MAX_REASON, "the reason")?;
        bounded("caller", caller, MAX_CALLER, "your name")?;
        Ok(format!("{caller} ({peer})"))
    }
}

fn failed(error: &dtc_store::ReadError) -> Status {
    match error {
        dtc_store::ReadError::Closed => Status::unavailable(error.to_string()),
        dtc_store::ReadError::Damaged { .. } => Status::data_loss(error.to_string()),
        dtc_store::ReadError::Work(_) => Status::internal(error.to_string()),
    }
}

fn timestamp(millis: i64) -> prost_types::Timestamp {
    let nanos = millis.rem_euclid(1000) as i32 * 1_000_000;
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

impl<R: ResourceManager> Admin<R> {
    fn undecided(&self, doubt: &InDoubtBranch, now: i64) -> UndecidedBranch {
        UndecidedBranch {
            key: Some(shown(&doubt.branch)),
            prepared_at: Some(timestamp(doubt.prepared_at)),
            age: Duration::from_millis(doubt.age(now)).try_into().ok(),
            decided: match doubt.state.pending() {
                None => Resolution::Unspecified.into(),
                Some(pending) if pending.commit => Resolution::Commit.into(),
                Some(_) => Resolution::Rollback.into(),
            },
            recovery_address: doubt.recovery_address.clone(),
            not_mine: self.engine.not_mine.has(&doubt.branch),
        }
    }
}

#[tonic::async_trait]
impl<R: ResourceManager> ParticipantAdminService for Admin<R> {
    async fn list_undecided(
        &self,
        request: Request<ListUndecidedRequest>,
    ) -> Result<Response<ListUndecidedResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size)?;
        let older_than: Duration = match request.older_than {
            None => Duration::ZERO,
            Some(span) => span.try_into().map_err(|_| {
                Status::invalid_argument(format!("older_than: {span} is out of range"))
            })?,
        };
        let now = self.engine.now();
        let is_old = |doubt: &InDoubtBranch| u128::from(doubt.age(now)) >= older_than.as_millis();
        let mut after = from_token(&request.page_token)?;
        // Ids grow with time, and so do pages of them, but what is asked for is a time.
        let (mut branches, mut is_full) = (Vec::new(), true);
        while is_full && branches.len() < limit {
            let (from, left) = (after, limit - branches.len());
            let read = move |connection: &rusqlite::Connection| {
                journal::undecided_page(connection, None, from.as_ref(), left)
            };
            let page = self.engine.store.read(read).await.map_err(|error| failed(&error))?;
            is_full = page.len() == left;
            after = page.last().map(|doubt| doubt.branch).or(after);
            branches.extend(page.into_iter().filter(|doubt| is_old(doubt)));
        }
        Ok(Response::new(ListUndecidedResponse {
            branches: branches.iter().map(|doubt| self.undecided(doubt, now)).collect(),
            next_page_token: token(after.as_ref(), is_full),
        }))
    }

    async fn resolve_branch(
        &self,
        request: Request<ResolveBranchRequest>,
    ) -> Result<Response<ResolveBranchResponse>, Status> {
        let signed = signature(&request);
        let request = request.into_inner();
        let branch = key(request.key.as_ref())?;
        let commit = match request.resolution() {
            Resolution::Commit => true,
            Resolution::Rollback => false,
            Resolution::Unspecified => {
                let problem = "resolution: is missing; RESOLUTION_COMMIT or RESOLUTION_ROLLBACK";
                return Err(Status::invalid_argument(problem));
            }
        };
        let caller = signed(&request.reason, &request.caller)?;
        let reason = request.reason;
        tracing::warn!(
            transaction = %branch.transaction, branch = branch.number,
            coordinator = %branch.coordinator, commit, reason, caller, "to be resolved by an operator"
        );
        let resolution = HeuristicDecision { commit, reason, caller };
        let done = self.engine.resolve(branch, resolution).await;
        match done.map_err(|refused| Status::from(&refused))? {
            Ok(()) => Ok(Response::new(ResolveBranchResponse {})),
            Err(error @ ResolveError::Unknown) => Err(Status::not_found(error.to_string())),
            Err(error @ ResolveError::Decided(_)) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error @ ResolveError::Failed(_)) => Err(Status::internal(error.to_string())),
        }
    }

    async fn list_resolved(
        &self,
        request: Request<ListResolvedRequest>,
    ) -> Result<Response<ListResolvedResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size)?;
        let before = from_token(&request.page_token)?;
        let read = move |connection: &rusqlite::Connection| {
            resolutions::page(connection, before.as_ref(), limit)
        };
        let page = self.engine.store.read(read).await.map_err(|error| failed(&error))?;
        let branches = page.iter().map(|it| ResolvedBranch {
            key: Some(shown(&it.branch)),
            resolution: match it.resolution.commit {
                true => Resolution::Commit.into(),
                false => Resolution::Rollback.into(),
            },
            at: Some(timestamp(it.at)),
            reason: it.resolution.reason.clone(),
            caller: it.resolution.caller.clone(),
        });
        let next = token(page.last().map(|it| &it.branch), page.len() == limit);
        let branches = branches.collect();
        Ok(Response::new(ListResolvedResponse { branches, next_page_token: next }))
    }

    async fn forget_branch(
        &self,
        request: Request<ForgetBranchRequest>,
    ) -> Result<Response<ForgetBranchResponse>, Status> {
        let signed = signature(&request);
        let request = request.into_inner();
        let branch = key(request.key.as_ref())?;
        let caller = signed(&request.reason, &request.caller)?;
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            resolutions::delete(transaction, &branch)
        };
        let deleted = self.engine.store.write(work).await;
        match deleted.map_err(|error| Status::unavailable(error.to_string()))? {
            0 => Err(Status::not_found(format!(
                "branch {branch} was not resolved by an operator here"
            ))),
            _ => {
                tracing::warn!(
                    transaction = %branch.transaction, branch = branch.number,
                    coordinator = %branch.coordinator, reason = request.reason, caller,
                    "forgotten by an operator; subject to retention again"
                );
                Ok(Response::new(ForgetBranchResponse {}))
            }
        }
    }
}
