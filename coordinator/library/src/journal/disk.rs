//! The disk's own messages and enums, and the core's enums as these.

use dtc_core as core;

#[allow(clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/dtc.journal.v1.rs"));
}

pub(super) use generated::*;

/// An enum of the core whose names the disk has, too. A name that is added to one and
/// not to the other does not compile.
macro_rules! same_names {
    ($name:ident: $($variant:ident),* $(,)?) => {
        impl From<core::$name> for $name {
            fn from(value: core::$name) -> Self {
                match value { $(core::$name::$variant => Self::$variant,)* }
            }
        }

        impl $name {
            /// What a number on the disk stands for.
            pub(super) fn read(number: i32) -> Option<core::$name> {
                match Self::try_from(number).ok()? {
                    Self::Unspecified => None,
                    $(Self::$variant => Some(core::$name::$variant),)*
                }
            }
        }
    };
}

same_names!(
    BranchState: Enlisted, Preparing, Prepared, ReadOnly, Refused, Committing, Committed,
    RollingBack, RolledBack, RollbackUnacknowledged, Heuristic, Hazard, Asserted,
);
same_names!(
    TrailKind: Begun, Enlisted, PrepareSent, VotedCommit, VotedAbort, VotedReadOnly,
    DecidedCommit, DecidedAbort, CommitAcknowledged, RollbackAcknowledged, Retried,
    Unreachable, Stalled, RollbackUnacknowledged, Asked, Heuristic, Hazard, Recovered, Ended,
    CompensationDecided, Resolved, Asserted, Abandoned, LocksAwaited, LinksAwaited, Locked,
);
same_names!(InterventionAction: Commit, Rollback, Retry, Forget, Abandon);
same_names!(LockMode: Shared, Exclusive);
