//! What the machine asks the journal for: nobody waits meanwhile.

use std::sync::Arc;

use dtc_core::{Event, Inquirer};
use dtc_protocol::TransactionId;
use dtc_runtime::{Environment, Exit};

use super::{Driver, input::Input, keys, pending};
use crate::journal::JournalError;

impl Driver {
    /// One look at a time; keys that come meanwhile share the next.
    pub(super) fn find_keys(&mut self) {
        if self.looking || self.lookups.is_empty() {
            return;
        }
        self.looking = true;
        let (ids, keys): (Vec<_>, Vec<_>) = std::mem::take(&mut self.lookups).into_iter().unzip();
        let (journal, own) = (Arc::clone(&self.journal), self.own.clone());
        let environment = self.environment.clone();
        tokio::spawn(async move {
            match keys::find(&*journal, ids, keys).await {
                Ok(events) => drop(own.send(Input::KeysFound(events)).await),
                Err(error) => cannot_look_up(&environment, &error),
            }
        });
    }

    pub(super) fn find(&self, to: Inquirer, (id, branch): (TransactionId, u32), epoch: u64) {
        let (journal, own) = (Arc::clone(&self.journal), self.own.clone());
        let environment = self.environment.clone();
        tokio::spawn(async move {
            let recalled = journal.recall(id, epoch).await;
            match recalled.and_then(|it| pending::found(&it, branch).map_err(JournalError::from)) {
                Ok((found, notified)) => {
                    let found = Event::Found { to, id, branch, found };
                    let _ = own.send(Input::Events(vec![found])).await;
                    if notified {
                        journal.notified(id, branch);
                    }
                }
                // One bad row of history stops nobody else: who asks stays in doubt.
                Err(error @ JournalError::Damaged(_)) => {
                    tracing::error!(%id, branch, %error, "the outcome of a branch cannot be read; its inquiry stays unanswered");
                    let _ = own.send(Input::Unreadable { to, id, branch }).await;
                }
                Err(error) => cannot_look_up(&environment, &error),
            }
        });
    }
}

/// Fail stop: whether a key was used, or what was decided, cannot be known.
fn cannot_look_up(environment: &Environment, error: &JournalError) {
    let exit = match error {
        JournalError::Closed => return,
        JournalError::Failed(_) => Exit::Storage,
        JournalError::Damaged(_) => Exit::NotAJournal,
    };
    tracing::error!(%error, "the journal cannot be read; stopping. Restore the journal or repair its disk, then start again");
    (environment.exit)(exit);
}
