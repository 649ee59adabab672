//! What takes part within the process.

use std::{borrow::Cow, sync::Arc};

use dtc_protocol::TransactionId;
use tonic::async_trait;

/// Something within this process that changes together with others.
///
/// The simple form has no input and no output: implement [`prepare`](Self::prepare),
/// [`commit`](Self::commit) and [`rollback`](Self::rollback). One that takes an input, or
/// whose prepare finds out what commit and rollback need, implements the three that end
/// in `_with`; the simple ones are not called then.
///
/// Calls of one branch never overlap. A call may come again: commit and rollback until
/// they succeed, and both again after a restart.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// What the journal calls it. After a restart its unfinished branches are found
    /// by this name ([`attach`](crate::TransactionCoordinator::attach)); resources
    /// without one can't be attached again. Names are for kinds of resources, not for
    /// single ones (those are inputs): what is known of a name stays in memory.
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// Promises that commit will succeed: true; or can't: false. An error means that it
    /// is broken. Either way the transaction rolls back.
    ///
    /// # Errors
    ///
    /// What is broken, in words.
    async fn prepare(&self) -> Result<bool, String>;

    /// Makes it final. Cannot refuse: an error is logged, and it is called again.
    ///
    /// # Errors
    ///
    /// Why not now, in words.
    async fn commit(&self) -> Result<(), String>;

    /// Undoes what prepare did. Also called after a prepare that failed, panicked, was
    /// ended in its midst, or never began; and with
    /// [`CommitPolicy::Compensate`](crate::CommitPolicy::Compensate) after a commit that
    /// succeeded, which is undone then. Cannot refuse.
    ///
    /// # Errors
    ///
    /// Why not now, in words.
    async fn rollback(&self) -> Result<(), String>;

    /// Its version, which is remembered when it is enlisted ([`Branch::version`]).
    async fn version(&self) -> u64 {
        0
    }

    /// [`prepare`](Self::prepare) with the branch's input, and with an output.
    ///
    /// # Errors
    ///
    /// As of prepare.
    async fn prepare_with(&self, _branch: &Branch) -> Result<Vote, String> {
        Ok(match self.prepare().await? {
            true => Vote::Commit(Vec::new()),
            false => Vote::Abort("it cannot".into()),
        })
    }

    /// [`commit`](Self::commit) with what prepare returned.
    ///
    /// # Errors
    ///
    /// As of commit.
    async fn commit_with(&self, _branch: &Branch, _output: &[u8]) -> Result<(), String> {
        self.commit().await
    }

    /// [`rollback`](Self::rollback) with what prepare returned, where it did.
    ///
    /// # Errors
    ///
    /// As of rollback.
    async fn rollback_with(&self, _branch: &Branch, _output: Option<&[u8]>) -> Result<(), String> {
        self.rollback().await
    }
}

/// What points to a resource is one, so that different ones can be in one list.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        impl<R: Resource + ?Sized> Resource for $pointer<R> {
            fn name(&self) -> Cow<'_, str> {
                (**self).name()
            }

            async fn prepare(&self) -> Result<bool, String> {
                (**self).prepare().await
            }

            async fn commit(&self) -> Result<(), String> {
                (**self).commit().await
            }

            async fn rollback(&self) -> Result<(), String> {
                (**self).rollback().await
            }

            async fn version(&self) -> u64 {
                (**self).version().await
            }

            async fn prepare_with(&self, branch: &Branch) -> Result<Vote, String> {
                (**self).prepare_with(branch).await
            }

            async fn commit_with(&self, branch: &Branch, output: &[u8]) -> Result<(), String> {
                (**self).commit_with(branch, output).await
            }

            async fn rollback_with(
                &self,
                branch: &Branch,
                output: Option<&[u8]>,
            ) -> Result<(), String> {
                (**self).rollback_with(branch, output).await
            }
        }
    )*};
}

pointers!(Arc, Box);

/// A resource's part of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Branch {
    /// The transaction.
    pub transaction: TransactionId,
    /// The branch's number within it, from 0.
    pub number: u32,
    /// What [`Resource::version`] said when it was enlisted; 0 after a restart.
    pub version: u64,
    /// What it was enlisted with; empty after a restart.
    pub input: Vec<u8>,
    /// Rollback only: the decision to commit was compensated
    /// ([`CommitPolicy::Compensate`](crate::CommitPolicy::Compensate)), so that commit
    /// may have succeeded before, and is to be undone.
    pub compensating: bool,
}

/// What a resource says to prepare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vote {
    /// A promise, with what commit and rollback will get.
    Commit(Vec<u8>),
    /// It changed nothing, and need not be told of the outcome.
    ReadOnly,
    /// It can't be done, and why.
    Abort(String),
}

/// A resource of three closures, for a quick one.
///
/// ```
/// use dtc::{Closures, TransactionCoordinator};
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering::SeqCst}};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let coordinator = TransactionCoordinator::in_memory().await?;
/// let committed = Arc::new(AtomicU32::new(0));
/// let count = Arc::clone(&committed);
/// let counting = Closures::new(
///     || async { Ok(true) },
///     move || { count.fetch_add(1, SeqCst); async { Ok(()) } },
///     || async { Ok(()) },
/// );
/// let id = coordinator.begin_transaction().await?;
/// coordinator.enlist_resource(id, counting).await?;
/// coordinator.commit_transaction(id).await?;
/// assert_eq!(committed.load(SeqCst), 1);
/// # Ok(()) }
/// ```
pub struct Closures<P, C, R> {
    prepare: P,
    commit: C,
    rollback: R,
}

impl<P, C, R> Closures<P, C, R> {
    /// With what is called to prepare, commit and roll back.
    pub fn new(prepare: P, commit: C, rollback: R) -> Self {
        Self { prepare, commit, rollback }
    }
}

#[async_trait]
impl<P, PF, C, CF, R, RF> Resource for Closures<P, C, R>
where
    P: Fn() -> PF + Send + Sync + 'static,
    C: Fn() -> CF + Send + Sync + 'static,
    R: Fn() -> RF + Send + Sync + 'static,
    PF: Future<Output = Result<bool, String>> + Send,
    CF: Future<Output = Result<(), String>> + Send,
    RF: Future<Output = Result<(), String>> + Send,
{
    async fn prepare(&self) -> Result<bool, String> {
        (self.prepare)().await
    }

    async fn commit(&self) -> Result<(), String> {
        (self.commit)().await
    }

    async fn rollback(&self) -> Result<(), String> {
        (self.rollback)().await
    }
}
