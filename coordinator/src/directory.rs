//! Participants by name, and what is known of each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock},
};

use common::JournalId;
use coordinator_core::ParticipantId;
use proto::dtc::LinkState;

/// How many participants that were never registered may be known, each by the
/// address that a client gave.
const MAX_ADDRESSES: usize = 4096;

/// A participant, as it was registered or named by its address.
#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub(crate) id: ParticipantId,
    pub(crate) name: Arc<str>,
    /// Where it is; none for a name in the journal that is not registered now.
    pub(crate) address: Option<Arc<str>>,
    pub(crate) asks: bool,
    pub(crate) link: LinkState,
    pub(crate) last_error: Arc<str>,
    pub(crate) journal: Option<JournalId>,
}

/// All participants. Numbers are given in the order of their first mention and
/// are good for one run.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Arc<str>, ParticipantId>,
    by_id: BTreeMap<ParticipantId, Participant>,
    addresses: usize,
}

impl Known {
    fn intern(&mut self, name: &str) -> ParticipantId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = ParticipantId(self.by_name.len() as u32);
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), id);
        let participant = Participant {
            id,
            address: is_address(&name).then(|| name.clone()),
            name,
            asks: false,
            link: LinkState::Disconnected,
            last_error: "".into(),
            journal: None,
        };
        self.by_id.insert(id, participant);
        id
    }
}

/// Whether a participant's name is an address.
pub(crate) fn is_address(name: &str) -> bool {
    name.contains("://")
}

impl Directory {
    /// The number of a name, a new one if need be. For names in the journal.
    pub(crate) fn intern(&self, name: &str) -> ParticipantId {
        self.write().intern(name)
    }

    /// A participant that can be reached, by its name.
    pub(crate) fn find(&self, name: &str) -> Option<Participant> {
        let known = self.read();
        let found = known.by_name.get(name).and_then(|id| known.by_id.get(id))?;
        found.address.is_some().then(|| found.clone())
    }

    /// A participant by where it is, whatever its name.
    pub(crate) fn at(&self, address: &str) -> Option<Participant> {
        let known = self.read();
        let mut all = known.by_id.values();
        all.find(|known| known.address.as_deref() == Some(address)).cloned()
    }

    /// Takes in an address that a client gave; none when there are too many.
    pub(crate) fn add_address(&self, address: &str) -> Option<Participant> {
        let mut known = self.write();
        if !known.by_name.contains_key(address) {
            if known.addresses >= MAX_ADDRESSES {
                return None;
            }
            known.addresses += 1;
        }
        let id = known.intern(address);
        known.by_id.get(&id).cloned()
    }

    /// Registers a participant, or moves it to another address.
    pub(crate) fn register(&self, name: &str, address: &str, asks: bool) -> Participant {
        let mut known = self.write();
        let id = known.intern(name);
        let Some(participant) = known.by_id.get_mut(&id) else {
            unreachable!("participant {id:?} was just interned");
        };
        participant.address = Some(address.into());
        participant.asks = asks;
        participant.clone()
    }

    /// Notes how the link to a participant is.
    pub(crate) fn update(&self, id: ParticipantId, change: impl FnOnce(&mut Participant)) {
        if let Some(participant) = self.write().by_id.get_mut(&id) {
            change(participant);
        }
    }

    /// A participant's name.
    pub(crate) fn name(&self, id: ParticipantId) -> Arc<str> {
        self.read().by_id.get(&id).map_or_else(|| "?".into(), |known| known.name.clone())
    }

    /// All that can be reached, by their numbers.
    pub(crate) fn all(&self) -> Vec<Participant> {
        let known = self.read();
        known.by_id.values().filter(|known| known.address.is_some()).cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_when_its_address_changes() {
        let directory = Directory::default();
        let before = directory.intern("inventory");
        assert!(directory.find("inventory").is_none(), "in the journal only");
        let registered = directory.register("inventory", "http://127.0.0.1:1", false);
        assert_eq!(registered.id, before);
        let moved = directory.register("inventory", "http://127.0.0.1:2", true);
        assert_eq!(moved.id, before);
        assert_eq!(
            directory.find("inventory").unwrap().address.as_deref(),
            Some("http://127.0.0.1:2")
        );
    }

    #[test]
    fn addresses_are_bounded() {
        let directory = Directory::default();
        for port in 0..MAX_ADDRESSES {
            assert!(directory.add_address(&format!("http://127.0.0.1:{port}")).is_some());
        }
        assert!(directory.add_address("http://127.0.0.2:1").is_none());
    }
}
