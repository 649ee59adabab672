//! Optimistic concurrency for resources in memory.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use dtc_protocol::TransactionId;

use super::resource::{BoxError, Branch, Participant, Vote};

/// A resource with a version that only one transaction at a time may raise.
///
/// The version that is seen when it is enlisted is checked when it is prepared: if it
/// has changed since, or another transaction has prepared it, the answer is no. From
/// there it is held until the decision, and a commit raises it by one.
///
/// ```
/// use dtc::{Closures, Error, TransactionCoordinator, OptimisticResource};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let coordinator = TransactionCoordinator::in_memory().await?;
/// let account = OptimisticResource::new(Closures::new(
///     || async { Ok(true) },
///     || async { Ok(()) },
///     || async { Ok(()) },
/// ));
/// let (first, second) =
///     (coordinator.begin_transaction().await?, coordinator.begin_transaction().await?);
/// coordinator.enlist_resource(first, account.clone()).await?;
/// coordinator.enlist_resource(second, account.clone()).await?;
/// coordinator.commit_transaction(first).await?;
/// assert_eq!(account.current_version(), 1);
/// let refused = coordinator.commit_transaction(second).await;
/// assert!(matches!(refused, Err(Error::Refused { .. })), "it saw version 0");
/// # Ok(()) }
/// ```
pub struct OptimisticResource<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    resource: P,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// The branch that has it prepared.
    held_by: Option<(TransactionId, u32)>,
}

impl<P> Clone for OptimisticResource<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Participant> OptimisticResource<P> {
    /// At version 0.
    pub fn new(resource: P) -> Self {
        Self { shared: Arc::new(Shared { resource, state: Mutex::default() }) }
    }

    /// The resource itself.
    pub fn get(&self) -> &P {
        &self.shared.resource
    }

    /// The version: how many transactions have committed it, or undone their commit.
    pub fn current_version(&self) -> u64 {
        self.state().version
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds it for a branch that saw the present version.
    fn hold(&self, branch: &Branch) -> Result<(), String> {
        let mut state = self.state();
        let own = (branch.transaction, branch.number);
        match state.held_by {
            Some(other) if other != own => Err(format!("transaction {} has it prepared", other.0)),
            _ if state.version != branch.version => {
                Err(format!("its version is {}, not {}", state.version, branch.version))
            }
            _ => {
                state.held_by = Some(own);
                Ok(())
            }
        }
    }

    /// Lets go of it, if the branch holds it.
    fn release(&self, branch: &Branch, raise: bool) {
        let mut state = self.state();
        if state.held_by == Some((branch.transaction, branch.number)) {
            state.held_by = None;
            state.version += u64::from(raise);
        }
    }
}

#[async_trait]
impl<P: Participant> Participant for OptimisticResource<P> {
    fn name(&self) -> Cow<'_, str> {
        self.shared.resource.name()
    }

    fn type_name(&self) -> &'static str {
        self.shared.resource.type_name()
    }

    async fn version(&self) -> u64 {
        self.current_version()
    }

    async fn prepare(&self, branch: &Branch) -> Result<Vote, BoxError> {
        if let Err(why) = self.hold(branch) {
            return Ok(Vote::Abort(why));
        }
        let vote = self.shared.resource.prepare(branch).await;
        match vote {
            // Read-only as it may be: what was checked has to hold until the decision.
            Ok(Vote::ReadOnly) => Ok(Vote::Commit(Vec::new())),
            Ok(Vote::Commit(output)) => Ok(Vote::Commit(output)),
            refused => {
                self.release(branch, false);
                refused
            }
        }
    }

    async fn commit(&self, branch: &Branch, output: &[u8]) -> Result<(), BoxError> {
        self.shared.resource.commit(branch, output).await?;
        self.release(branch, true);
        Ok(())
    }

    async fn rollback(&self, branch: &Branch, output: Option<&[u8]>) -> Result<(), BoxError> {
        self.shared.resource.rollback(branch, output).await?;
        let own = Some((branch.transaction, branch.number));
        if branch.compensating && self.state().held_by != own {
            // Committed, and undone: whoever saw either saw something else.
            self.state().version += 1;
        }
        self.release(branch, false);
        Ok(())
    }
}
