//! Participants by name, and what is known of each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock},
    time::Duration,
};

use common::JournalId;
use coordinator_core::ParticipantId;
use proto::dtc::LinkState;
use tokio::time::Instant;

use crate::{
    address::Address,
    journal::{Declared, Registration},
};

/// How many participants that were never registered may be known, each by the
/// address that a client gave.
const MAX_ADDRESSES: usize = 4096;

/// A participant, as it was registered or named by its address.
#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub(crate) id: ParticipantId,
    pub(crate) name: Arc<str>,
    /// Where it is; none for a name in the journal that is not registered now.
    pub(crate) address: Option<Arc<Address>>,
    pub(crate) declared: Declared,
    /// None for one that is known by its address alone.
    pub(crate) standing: Option<Standing>,
    pub(crate) link: LinkState,
    pub(crate) last_error: Arc<str>,
    /// What its last link said that it can do; before the first one, nothing.
    pub(crate) on_its_link: Option<Declared>,
    /// Its link is quarantined: it says that it knows a run of this coordinator of this
    /// epoch.
    pub(crate) newer_epoch: Option<u64>,
    pub(crate) journal: Option<JournalId>,
}

/// How long a registration is good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) lease: Option<Duration>,
    pub(crate) renewed: Instant,
    pub(crate) draining: bool,
}

impl Standing {
    /// What is left of the lease; none where it has no end.
    pub(crate) fn lease_left(&self) -> Option<Duration> {
        self.lease.map(|lease| lease.saturating_sub(self.renewed.elapsed()))
    }
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
    fn intern(&mut self, name: &str) -> &mut Participant {
        let next = ParticipantId(self.by_name.len() as u32);
        let id = match self.by_name.get(name) {
            Some(id) => *id,
            None => {
                self.by_name.insert(name.into(), next);
                next
            }
        };
        self.by_id.entry(id).or_insert_with(|| Participant {
            id,
            name: name.into(),
            address: name.parse().ok().map(Arc::new),
            declared: Declared::default(),
            standing: None,
            link: LinkState::Disconnected,
            last_error: "".into(),
            on_its_link: None,
            newer_epoch: None,
            journal: None,
        })
    }
}

impl Directory {
    /// The number of a name, a new one if need be. For names in the journal.
    pub(crate) fn intern(&self, name: &str) -> ParticipantId {
        self.write().intern(name).id
    }

    /// A participant that can be reached, by its name.
    pub(crate) fn find(&self, name: &str) -> Option<Participant> {
        let known = self.read();
        let found = known.by_name.get(name).and_then(|id| known.by_id.get(id))?;
        found.address.is_some().then(|| found.clone())
    }

    /// Whether a name is known, and of nobody that can be reached any more.
    pub(crate) fn is_gone(&self, name: &str) -> bool {
        let known = self.read();
        let found = known.by_name.get(name).and_then(|id| known.by_id.get(id));
        found.is_some_and(|it| it.address.is_none())
    }

    /// A participant by where it is, whatever its name.
    pub(crate) fn at(&self, address: &Address) -> Option<Participant> {
        let known = self.read();
        let mut all = known.by_id.values();
        all.find(|known| known.address.as_deref() == Some(address)).cloned()
    }

    /// Takes in an address that a client gave; none when there are too many.
    pub(crate) fn add_address(&self, address: &Address) -> Option<Participant> {
        let mut known = self.write();
        let name = address.to_string();
        if !known.by_name.contains_key(&*name) {
            if known.addresses >= MAX_ADDRESSES {
                return None;
            }
            known.addresses += 1;
        }
        Some(known.intern(&name).clone())
    }

    /// Registers a participant, or moves it to another address.
    pub(crate) fn register(&self, registration: &Registration) -> Participant {
        let mut known = self.write();
        let participant = known.intern(&registration.name);
        participant.address = Some(Arc::new(registration.address.clone()));
        participant.declared = registration.declared;
        participant.standing = Some(Standing {
            lease: registration.lease,
            renewed: Instant::now(),
            draining: registration.draining,
        });
        participant.clone()
    }

    /// Begins a lease anew; none where nobody is registered by the name.
    pub(crate) fn renew(&self, name: &str) -> Option<Standing> {
        let mut known = self.write();
        let id = *known.by_name.get(name)?;
        let standing = known.by_id.get_mut(&id)?.standing.as_mut()?;
        standing.renewed = Instant::now();
        Some(*standing)
    }

    /// Takes a registration away. Its name keeps its number.
    pub(crate) fn deregister(&self, id: ParticipantId) {
        self.update(id, |participant| {
            participant.standing = None;
            participant.address = None;
            participant.link = LinkState::Disconnected;
        });
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

    /// Those that go when nothing is unfinished there.
    pub(crate) fn draining(&self) -> Vec<Participant> {
        let known = self.read();
        let is_draining =
            |known: &&Participant| known.standing.is_some_and(|standing| standing.draining);
        known.by_id.values().filter(is_draining).cloned().collect()
    }

    /// How many say that they know a newer run of this coordinator.
    pub(crate) fn quarantined(&self) -> usize {
        self.read().by_id.values().filter(|known| known.newer_epoch.is_some()).count()
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

    fn registration(address: &str) -> Registration {
        Registration::permanent("inventory", address.parse().unwrap(), Declared::default())
    }

    #[tokio::test]
    async fn a_name_keeps_its_number_when_its_address_changes() {
        let directory = Directory::default();
        let before = directory.intern("inventory");
        assert!(directory.find("inventory").is_none(), "in the journal only");
        let registered = directory.register(&registration("http://127.0.0.1:1"));
        assert_eq!(registered.id, before);
        let moved = directory.register(&registration("http://127.0.0.1:2/prepare"));
        assert_eq!(moved.id, before);
        let found = directory.find("inventory").unwrap().address.unwrap();
        assert_eq!(found.to_string(), "http://127.0.0.1:2/prepare");
        directory.deregister(before);
        assert!(directory.find("inventory").is_none() && directory.renew("inventory").is_none());
        assert_eq!(directory.intern("inventory"), before);
    }

    #[test]
    fn addresses_are_bounded() {
        let directory = Directory::default();
        let address = |port: usize| format!("http://127.0.0.1:{port}").parse().unwrap();
        for port in 1..=MAX_ADDRESSES {
            assert!(directory.add_address(&address(port)).is_some());
        }
        assert!(directory.add_address(&address(MAX_ADDRESSES + 1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_unless_it_is_renewed() {
        let directory = Directory::default();
        let lease = Some(Duration::from_secs(10));
        directory.register(&Registration { lease, ..registration("http://127.0.0.1:1") });
        let left = || directory.find("inventory").unwrap().standing.unwrap().lease_left();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(left(), Some(Duration::from_secs(3)));
        directory.renew("inventory").unwrap();
        assert_eq!(left(), lease);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(left(), Some(Duration::ZERO));
    }
}
