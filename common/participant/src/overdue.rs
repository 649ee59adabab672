//! Branches that stay in doubt for long are logged until they are decided.

use std::time::Duration;

use tokio::time::Instant;

use crate::{journal::InDoubtBranch, metrics::Metrics};

/// How often they are logged.
const REPEAT: Duration = Duration::from_secs(60);
/// How many of them by name.
const NAMED: usize = 5;

/// When they were last logged.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    logged_at: Option<Instant>,
}

impl Overdue {
    /// `doubts` are all that are undecided, `now` the wall clock in milliseconds.
    pub(crate) fn look(
        &mut self,
        doubts: &[InDoubtBranch],
        now: i64,
        limit: Duration,
        metrics: &Metrics,
    ) {
        let is_overdue = |doubt: &&InDoubtBranch| u128::from(doubt.age(now)) >= limit.as_millis();
        let overdue: Vec<&InDoubtBranch> = doubts.iter().filter(is_overdue).collect();
        metrics.overdue.set(overdue.len().cast_signed() as i64);
        if overdue.is_empty() {
            if self.logged_at.take().is_some() {
                tracing::info!("no branch is in doubt for longer than --overdue-after any more");
            }
            return;
        }
        if self.logged_at.is_some_and(|at| at.elapsed() < REPEAT) {
            return;
        }
        self.logged_at = Some(Instant::now());
        let names: Vec<_> = overdue.iter().take(NAMED).map(|it| it.branch.to_string()).collect();
        let oldest = overdue.iter().map(|doubt| doubt.age(now)).max().unwrap_or_default();
        let oldest = Duration::from_millis(oldest);
        tracing::warn!(
            branches = overdue.len(),
            ?limit,
            ?oldest,
            first = names.join(", "),
            "in doubt for long; their coordinator has to be found, or they have to be resolved \
             by hand (ParticipantAdminService.ListUndecided)"
        );
    }
}

#[cfg(test)]
mod tests {
    use dtc_protocol::{
        BranchId, CoordinatorId, Incarnation, TransactionId, branch::Branch, fence::Run,
    };

    use super::*;

    fn prepared_at(prepared_at: i64) -> InDoubtBranch {
        let branch = BranchId {
            coordinator: CoordinatorId::from_bytes([1; 16]),
            transaction: TransactionId::from_bytes([2; 16]),
            number: 0,
        };
        let run = Run { epoch: 1, incarnation: Incarnation::from_bytes([3; 16]) };
        InDoubtBranch {
            branch,
            run,
            prepared_at,
            recovery_address: String::new(),
            state: Branch::PREPARED,
        }
    }

    #[test]
    fn a_clock_that_was_set_back_hides_no_branch_and_a_small_step_alarms_nobody() {
        let (now, hour) = (10_000_000, 3_600_000);
        assert_eq!(prepared_at(now).age(now), 0);
        assert_eq!(prepared_at(now - hour).age(now), 3_600_000);
        assert_eq!(prepared_at(now + hour).age(now), 3_600_000, "prepared before it was set back");
        assert_eq!(prepared_at(now + 50).age(now), 50, "a step of the clock");
    }

    #[test]
    fn it_is_logged_once_a_minute_until_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = dtc_store::Store::open(&folder.path().join("a.db"), Default::default());
        let metrics = Metrics::new(&prometheus::Registry::new(), &store.unwrap()).unwrap();
        let (now, limit) = (10_000_000, Duration::from_secs(60));
        let (young, old) = (prepared_at(now - 59_999), prepared_at(now - 60_000));
        let mut overdue = Overdue::default();
        overdue.look(std::slice::from_ref(&young), now, limit, &metrics);
        assert_eq!((overdue.logged_at, metrics.overdue.get()), (None, 0));
        overdue.look(&[young.clone(), old.clone()], now, limit, &metrics);
        let first = overdue.logged_at.expect("it is logged");
        assert_eq!(metrics.overdue.get(), 1);
        overdue.look(std::slice::from_ref(&old), now, limit, &metrics);
        assert_eq!(overdue.logged_at, Some(first), "within a minute");
        let earlier = first.checked_sub(REPEAT).expect("the machine has run for a minute");
        overdue.logged_at = Some(earlier);
        overdue.look(&[old], now, limit, &metrics);
        assert!(overdue.logged_at.is_some_and(|again| again > earlier));
        overdue.look(&[young], now, limit, &metrics);
        assert_eq!((overdue.logged_at, metrics.overdue.get()), (None, 0));
    }
}
