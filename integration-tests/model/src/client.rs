//! The client: what it has asked for, and what it was told.

use dtc_core::{Outcome, Reply};

use crate::journal::Journal;

/// The client, all its calls together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// How often the request was sent.
    pub requests: u8,
    /// Interactive: the transaction was begun, and the client has its id.
    pub has_id: bool,
    /// Interactive: how many branches were asked for.
    pub enlisted: u8,
    /// Interactive: a repeated call was told the branch that the first one had enlisted.
    pub enlisted_again: bool,
    /// Interactive: a call was told another branch than its key's.
    pub told_other_branch: bool,
    /// Interactive: votes were asked for.
    pub asked_prepare: bool,
    /// Interactive: commit was asked for.
    pub asked_commit: bool,
    /// Interactive: rollback was asked for.
    pub asked_rollback: bool,
    /// It was told 'committed'.
    pub told_committed: bool,
    /// It was told 'aborted'.
    pub told_aborted: bool,
    /// It was told of a broken promise.
    pub told_heuristic: bool,
    /// A duplicate of its request was answered with the outcome of the first.
    pub told_again: bool,
}

/// A call that enlists a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnlistCall {
    /// The branch's number.
    pub(crate) number: u8,
    /// It was sent before.
    pub(crate) again: bool,
}

impl EnlistCall {
    /// What its answer is known by: not 0, which all other calls have.
    pub(crate) fn token(self) -> u64 {
        1 + (u64::from(self.number) << 1 | u64::from(self.again))
    }

    pub(crate) fn of(token: u64) -> Option<Self> {
        let bits = token.checked_sub(1)?;
        Some(Self { number: (bits >> 1) as u8, again: bits & 1 != 0 })
    }
}

impl Client {
    /// Hears a reply. Where the machine refers to the journal, the shell reads it.
    pub(crate) fn hear(&mut self, reply: &Reply, journal: &Journal) {
        match reply {
            Reply::Begun(_) => self.has_id = true,
            Reply::Transaction(view) => match view.outcome {
                Outcome::Committed => self.told_committed = true,
                Outcome::Aborted => self.told_aborted = true,
                Outcome::HeuristicMixed | Outcome::HeuristicHazard => self.told_heuristic = true,
                Outcome::Pending => {}
            },
            Reply::See(id) => {
                let number = crate::journal::number(*id);
                let heuristic = journal.end(number).is_some_and(|end| end.heuristic);
                match journal.commits(number) {
                    _ if heuristic => self.told_heuristic = true,
                    Some(true) => self.told_committed = true,
                    Some(false) => self.told_aborted = true,
                    None => {}
                }
                self.told_again = true;
            }
            Reply::NotHere | Reply::NoRepeat | Reply::Enlisted(_) | Reply::Refused(_) => {}
            // It takes no locks.
            Reply::Locked { .. } | Reply::Released(_) => {}
        }
    }

    /// Hears which branch a call has enlisted.
    pub(crate) fn hear_enlisted(&mut self, call: EnlistCall, branch: u32) {
        let own = u32::from(call.number) == branch;
        self.told_other_branch |= !own;
        self.enlisted_again |= own && call.again;
    }

    /// The coordinator has gone: its calls were cut off and may be made again.
    pub(crate) fn cut_off(&mut self) {
        self.asked_prepare = false;
        self.asked_commit = false;
        self.asked_rollback = false;
    }
}
