//! The client: what it has asked for, and what it was told.

use coordinator_core::{Outcome, Reply};

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

    /// The coordinator has gone: its calls were cut off and may be made again.
    pub(crate) fn cut_off(&mut self) {
        self.asked_prepare = false;
        self.asked_commit = false;
        self.asked_rollback = false;
    }
}
