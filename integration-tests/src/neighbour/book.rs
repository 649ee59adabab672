//! The books of a participant that is no service of ours, and what it answers by them.
//! It keeps its promises and loses nothing.

use std::collections::BTreeMap;

use dtc_proto::dtc::Origin;
use uuid::Uuid;

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Prepare,
    Commit,
    Rollback,
}

/// A call, whatever it came by.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) call: Call,
    pub(crate) origin: Origin,
    pub(crate) transaction: Uuid,
    pub(crate) branch: u32,
    /// Of prepare the payload, of the others the output.
    pub(crate) content: Option<Vec<u8>>,
}

/// What the books say to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// Yes to prepare, with an output of so many bytes.
    Promised(usize),
    /// No, for ever.
    Refused,
    Committed,
    RolledBack,
    Unknown,
    /// A newer run of the coordinator is known, of this epoch.
    Fenced(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prepared,
    Committed,
    RolledBack,
}

#[derive(Debug)]
struct Entry {
    state: State,
    payload: Vec<u8>,
    output: usize,
}

/// All that a participant has on its disk.
#[derive(Debug, Default)]
pub(crate) struct Book {
    branches: BTreeMap<(String, Uuid, u32), Entry>,
    runs: BTreeMap<String, (u64, String)>,
    /// What must never have been sent.
    pub(crate) complaints: Vec<String>,
}

impl Book {
    /// Does what a call asks for. `refuse` and `output` are for a prepare that is new.
    pub(crate) fn answer(&mut self, asked: &Asked, refuse: bool, output: usize) -> Said {
        let Asked { call, origin, transaction, branch, content } = asked;
        if let Some(epoch) = self.fence(origin) {
            return Said::Fenced(epoch);
        }
        let key = (origin.coordinator_id.clone(), *transaction, *branch);
        let what = || format!("{call:?} of branch {branch} of {transaction}");
        let Some(entry) = self.branches.get_mut(&key) else {
            let (state, said) = match call {
                Call::Prepare if refuse => (State::RolledBack, Said::Refused),
                Call::Prepare => (State::Prepared, Said::Promised(output)),
                Call::Rollback => (State::RolledBack, Said::RolledBack),
                Call::Commit => {
                    self.complaints.push(format!("{}, which is unknown", what()));
                    return Said::Unknown;
                }
            };
            let payload = content.clone().unwrap_or_default();
            self.branches.insert(key, Entry { state, payload, output });
            return said;
        };
        match (call, entry.state) {
            (Call::Prepare, State::RolledBack) => Said::Refused,
            (Call::Prepare, _) if content.as_ref() != Some(&entry.payload) => {
                self.complaints.push(format!("{} came with another payload", what()));
                Said::Refused
            }
            (Call::Prepare, _) => Said::Promised(entry.output),
            (Call::Commit, State::RolledBack) => {
                self.complaints.push(format!("{}, which was rolled back", what()));
                Said::RolledBack
            }
            (Call::Commit, _) => {
                if content.as_ref().map(Vec::len) != Some(entry.output) {
                    let found = content.as_ref().map(Vec::len);
                    self.complaints.push(format!(
                        "{} came with an output of {found:?} bytes, not {}",
                        what(),
                        entry.output
                    ));
                }
                entry.state = State::Committed;
                Said::Committed
            }
            (Call::Rollback, State::Committed) => {
                self.complaints.push(format!("{}, which was committed", what()));
                Said::Committed
            }
            (Call::Rollback, _) => {
                entry.state = State::RolledBack;
                Said::RolledBack
            }
        }
    }

    /// The epoch that is known, if a call comes from an older run.
    fn fence(&mut self, origin: &Origin) -> Option<u64> {
        let known = self.runs.entry(origin.coordinator_id.clone()).or_default();
        if origin.epoch > known.0 {
            *known = (origin.epoch, origin.incarnation.clone());
        }
        let is_known = origin.epoch == known.0 && origin.incarnation == known.1;
        (!is_known).then_some(known.0)
    }

    /// How many branches wait for a decision.
    pub(crate) fn undecided(&self) -> i64 {
        self.branches.values().filter(|entry| entry.state == State::Prepared).count() as i64
    }

    /// Every branch that was decided: its transaction, and whether it committed.
    pub(crate) fn decided(&self) -> impl Iterator<Item = (Uuid, bool)> {
        let decided = self.branches.iter().filter(|(_, entry)| entry.state != State::Prepared);
        decided.map(|((_, id, _), entry)| (*id, entry.state == State::Committed))
    }
}
