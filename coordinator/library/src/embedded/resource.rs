//! What takes part within the process: [`Participant`], and [`Resource`], its simple form.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use dtc_protocol::TransactionId;

/// An error of any kind, as [`Participant`] has it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Something within this process that changes together with others: the simple form, with
/// no input and no output. One that takes an input, or whose prepare finds out what commit
/// and rollback need, implements [`Participant`], which every resource is.
///
/// Calls of one branch never overlap. A call may come again: commit and rollback until
/// they succeed, and both again after a restart.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// See [`Participant::name`].
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// What errors call it where it has no name.
    #[doc(hidden)]
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
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
}

/// Something within this process that changes together with others: the rich form, with the
/// branch's input, an output that prepare hands on to commit and rollback, a vote with its
/// reason, and errors of any kind. What holds of [`Resource`]'s calls holds of these.
///
/// ```
/// use dtc::{BoxError, Branch, Participant, TransactionCoordinator, Vote, async_trait};
///
/// /// Writes what it is given to a file, whose name is its output.
/// struct Files(std::path::PathBuf);
///
/// #[async_trait]
/// impl Participant for Files {
///     async fn prepare(&self, branch: &Branch) -> Result<Vote, BoxError> {
///         if branch.input.is_empty() {
///             return Ok(Vote::Abort("there is nothing to write".into()));
///         }
///         let name = format!("{}-{}", branch.transaction, branch.number);
///         std::fs::write(self.0.join(&name), &branch.input)?;
///         Ok(Vote::Commit(name.into_bytes()))
///     }
///     async fn commit(&self, _branch: &Branch, output: &[u8]) -> Result<(), BoxError> {
///         let name = std::str::from_utf8(output)?;
///         match std::fs::rename(self.0.join(name), self.0.join("current")) {
///             // It was called before.
///             Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
///             done => Ok(done?),
///         }
///     }
///     async fn rollback(&self, _branch: &Branch, output: Option<&[u8]>) -> Result<(), BoxError> {
///         if let Some(name) = output.map(std::str::from_utf8).transpose()? {
///             let _ = std::fs::remove_file(self.0.join(name));
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(std::process::id().to_string());
/// # std::fs::create_dir_all(&folder)?;
/// let coordinator = TransactionCoordinator::in_memory().await?;
/// let id = coordinator.begin_transaction().await?;
/// coordinator.enlist_resource_with(id, Files(folder.clone()), b"text".to_vec()).await?;
/// coordinator.commit_transaction(id).await?;
/// assert_eq!(std::fs::read(folder.join("current"))?, b"text");
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Participant: Send + Sync + 'static {
    /// What the journal calls it. After a restart its unfinished branches are found
    /// by this name ([`attach`](crate::TransactionCoordinator::attach)); those without one
    /// can't be attached again, and errors call them by their types. Names are for kinds of
    /// resources, not for single ones (those are inputs): what is known of a name stays in
    /// memory.
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// What errors call it where it has no name.
    #[doc(hidden)]
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Its version, which is remembered when it is enlisted ([`Branch::version`]).
    async fn version(&self) -> u64 {
        0
    }

    /// Promises that commit will succeed, or says why it can't. An error means that it is
    /// broken.
    ///
    /// # Errors
    ///
    /// What is broken.
    async fn prepare(&self, branch: &Branch) -> Result<Vote, BoxError>;

    /// Makes it final, with what prepare returned. Cannot refuse: an error is logged, and it
    /// is called again.
    ///
    /// # Errors
    ///
    /// Why not now.
    async fn commit(&self, branch: &Branch, output: &[u8]) -> Result<(), BoxError>;

    /// Undoes what prepare did, with what that returned, where it did. Cannot refuse.
    ///
    /// # Errors
    ///
    /// Why not now.
    async fn rollback(&self, branch: &Branch, output: Option<&[u8]>) -> Result<(), BoxError>;
}

#[async_trait]
impl<R: Resource + ?Sized> Participant for R {
    fn name(&self) -> Cow<'_, str> {
        Resource::name(self)
    }

    fn type_name(&self) -> &'static str {
        Resource::type_name(self)
    }

    async fn version(&self) -> u64 {
        Resource::version(self).await
    }

    async fn prepare(&self, _branch: &Branch) -> Result<Vote, BoxError> {
        Ok(match Resource::prepare(self).await? {
            true => Vote::Commit(Vec::new()),
            false => Vote::Abort("it cannot".into()),
        })
    }

    async fn commit(&self, _branch: &Branch, _output: &[u8]) -> Result<(), BoxError> {
        Ok(Resource::commit(self).await?)
    }

    async fn rollback(&self, _branch: &Branch, _output: Option<&[u8]>) -> Result<(), BoxError> {
        Ok(Resource::rollback(self).await?)
    }
}

/// What points to a resource or a participant is one, so that different ones can be in one
/// list.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        impl<R: Resource + ?Sized> Resource for $pointer<R> {
            fn name(&self) -> Cow<'_, str> {
                Resource::name(&**self)
            }

            fn type_name(&self) -> &'static str {
                Resource::type_name(&**self)
            }

            async fn prepare(&self) -> Result<bool, String> {
                Resource::prepare(&**self).await
            }

            async fn commit(&self) -> Result<(), String> {
                Resource::commit(&**self).await
            }

            async fn rollback(&self) -> Result<(), String> {
                Resource::rollback(&**self).await
            }

            async fn version(&self) -> u64 {
                Resource::version(&**self).await
            }
        }

        #[async_trait]
        impl Participant for $pointer<dyn Participant> {
            fn name(&self) -> Cow<'_, str> {
                (**self).name()
            }

            fn type_name(&self) -> &'static str {
                (**self).type_name()
            }

            async fn version(&self) -> u64 {
                (**self).version().await
            }

            async fn prepare(&self, branch: &Branch) -> Result<Vote, BoxError> {
                (**self).prepare(branch).await
            }

            async fn commit(&self, branch: &Branch, output: &[u8]) -> Result<(), BoxError> {
                (**self).commit(branch, output).await
            }

            async fn rollback(
                &self,
                branch: &Branch,
                output: Option<&[u8]>,
            ) -> Result<(), BoxError> {
                (**self).rollback(branch, output).await
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
    /// What [`Participant::version`] said when it was enlisted; 0 after a restart.
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
    /// It changed nothing, and need not be notified of the outcome.
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
