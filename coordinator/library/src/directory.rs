//! Participants by name, and what is known of each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dtc_core::ParticipantId;
use dtc_protocol::JournalId;
use tokio::time::Instant;

use crate::{
    address::Address,
    journal::{Capabilities, Registration},
};

/// How many participants that were never registered are kept, each by the address that
/// a client gave. Above it those that were used longest ago go, where nothing is
/// unfinished there.
const MAX_ADDRESSES: usize = 4096;
/// How many more there may be until those have gone.
const EXCESS: usize = 4096;
/// After so long without use an address goes, where nothing is unfinished there.
const UNUSED: Duration = Duration::from_secs(60);
/// Above the bound it goes after this, in which a request that named it has begun.
const UNUSED_ABOVE: Duration = Duration::from_secs(2);

/// A participant, as it was registered or named by its address.
#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub id: ParticipantId,
    pub name: Arc<str>,
    /// Where it is; none for a name in the journal that is not registered now.
    pub address: Option<Arc<Address>>,
    pub capabilities: Capabilities,
    /// None for one that is known by its address alone.
    pub status: Option<RegistrationStatus>,
    pub link: LinkState,
    pub last_error: Arc<str>,
    /// What its last link said that it can do; before the first one, nothing.
    pub on_its_link: Option<Capabilities>,
    /// Its link is quarantined: it says that it knows a run of this coordinator of this
    /// epoch.
    pub newer_epoch: Option<u64>,
    pub journal: Option<JournalId>,
    /// When it was named last, in milliseconds of the directory's own time; kept for
    /// those that are known by their address alone.
    used: Arc<AtomicU64>,
}

impl Participant {
    /// Whether it is known by its address alone.
    fn is_address(&self) -> bool {
        self.status.is_none() && self.address.is_some()
    }
}

/// How the coordinator reaches a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Not reached; tried again.
    Disconnected,
    /// gRPC, batches over a stream.
    Stream,
    /// gRPC, one call a message.
    Unary,
    /// HTTP, one request a message.
    Http,
    /// It says that it knows a newer run of this coordinator.
    Quarantined,
}

/// How long a registration is good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RegistrationStatus {
    pub lease: Option<Duration>,
    pub renewed: Instant,
    pub draining: bool,
}

impl RegistrationStatus {
    /// What is left of the lease; none where it has no end.
    pub(crate) fn lease_left(&self) -> Option<Duration> {
        self.lease.map(|lease| lease.saturating_sub(self.renewed.elapsed()))
    }
}

/// Participants' names by their numbers.
pub(crate) trait Names {
    fn name(&self, id: ParticipantId) -> Arc<str>;

    /// The number of a name, a new one if need be.
    fn intern(&self, name: &str) -> ParticipantId;
}

impl Names for Directory {
    fn name(&self, id: ParticipantId) -> Arc<str> {
        self.name(id)
    }

    fn intern(&self, name: &str) -> ParticipantId {
        self.intern(name)
    }
}

/// All participants. Numbers are given in the order of their first mention and
/// are good for one run.
#[derive(Debug)]
pub(crate) struct Directory {
    known: RwLock<Known>,
    since: Instant,
}

impl Default for Directory {
    fn default() -> Self {
        Self { known: RwLock::default(), since: Instant::now() }
    }
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Arc<str>, ParticipantId>,
    by_id: BTreeMap<ParticipantId, Participant>,
    /// A number is never given twice.
    next: u32,
    /// How many are known by their address alone.
    addresses: usize,
}

impl Known {
    fn intern(&mut self, name: &str, now: u64) -> &mut Participant {
        let id = match self.by_name.get(name) {
            Some(id) => *id,
            None => {
                let id = ParticipantId(self.next);
                self.next += 1;
                self.by_name.insert(name.into(), id);
                self.addresses += usize::from(name.parse::<Address>().is_ok());
                id
            }
        };
        self.by_id.entry(id).or_insert_with(|| Participant {
            id,
            name: name.into(),
            address: name.parse().ok().map(Arc::new),
            capabilities: Capabilities::default(),
            status: None,
            link: LinkState::Disconnected,
            last_error: "".into(),
            on_its_link: None,
            newer_epoch: None,
            journal: None,
            used: Arc::new(AtomicU64::new(now)),
        })
    }
}

impl Directory {
    /// The number of a name, a new one if need be. For names in the journal.
    pub(crate) fn intern(&self, name: &str) -> ParticipantId {
        let now = self.now();
        self.write().intern(name, now).id
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that an address is still of use.
    fn touch(&self, found: &Participant) {
        if found.status.is_none() {
            found.used.store(self.now(), Relaxed);
        }
    }

    /// A participant that can be reached, by its name.
    pub(crate) fn find(&self, name: &str) -> Option<Participant> {
        let known = self.read();
        let found = known.by_name.get(name).and_then(|id| known.by_id.get(id))?;
        self.touch(found);
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
        let found = all.find(|known| known.address.as_deref() == Some(address))?;
        self.touch(found);
        Some(found.clone())
    }

    /// Takes in an address that a client gave; none when there are too many.
    pub(crate) fn add_address(&self, address: &Address) -> Option<Participant> {
        let now = self.now();
        let mut known = self.write();
        let name = address.to_string();
        if !known.by_name.contains_key(&*name) && known.addresses >= MAX_ADDRESSES + EXCESS {
            return None;
        }
        let added = known.intern(&name, now);
        added.used.store(now, Relaxed);
        Some(added.clone())
    }

    /// Addresses that nobody has used for long, those first that were used longest ago;
    /// above the bound as many more as there are too many.
    pub(crate) fn unused(&self) -> Vec<ParticipantId> {
        let (known, now) = (self.read(), self.now());
        let excess = known.addresses.saturating_sub(MAX_ADDRESSES);
        let addresses = known.by_id.values().filter(|known| known.is_address());
        let mut all: Vec<_> = addresses.map(|known| (known.used.load(Relaxed), known.id)).collect();
        all.sort_unstable();
        let is_old =
            |used: u64, limit: Duration| u128::from(now.saturating_sub(used)) >= limit.as_millis();
        // Some of them may have unfinished work, and others go in their place.
        let for_excess = all.iter().filter(|(used, _)| is_old(*used, UNUSED_ABOVE));
        let old = all.iter().take_while(|(used, _)| is_old(*used, UNUSED)).count();
        let count = old.max(if excess > 0 { for_excess.count() } else { 0 });
        all.into_iter().take(count).map(|(_, id)| id).collect()
    }

    /// Something is unfinished there.
    pub(crate) fn note_use(&self, id: ParticipantId) {
        if let Some(found) = self.read().by_id.get(&id) {
            self.touch(found);
        }
    }

    /// Forgets an address, unless it was used just now or may stay. True if it has gone.
    pub(crate) fn let_go(&self, id: ParticipantId) -> bool {
        let now = self.now();
        let mut known = self.write();
        let limit = match known.addresses > MAX_ADDRESSES {
            true => UNUSED_ABOVE,
            false => UNUSED,
        };
        let Some(found) = known.by_id.get(&id).filter(|found| found.is_address()) else {
            return false;
        };
        let unused = now.saturating_sub(found.used.load(Relaxed));
        if u128::from(unused) < limit.as_millis() {
            return false;
        }
        let name = Arc::clone(&found.name);
        known.by_id.remove(&id);
        known.by_name.remove(&name);
        known.addresses -= 1;
        true
    }

    /// Registers a participant, or moves it to another address.
    pub(crate) fn register(&self, registration: &Registration) -> Participant {
        let now = self.now();
        let mut known = self.write();
        let participant = known.intern(&registration.name, now);
        participant.address = Some(Arc::new(registration.address.clone()));
        participant.capabilities = registration.capabilities;
        participant.status = Some(RegistrationStatus {
            lease: registration.lease,
            renewed: Instant::now(),
            draining: registration.draining,
        });
        participant.clone()
    }

    /// Begins a lease anew; none where nobody is registered by the name.
    pub(crate) fn renew(&self, name: &str) -> Option<RegistrationStatus> {
        let mut known = self.write();
        let id = *known.by_name.get(name)?;
        let status = known.by_id.get_mut(&id)?.status.as_mut()?;
        status.renewed = Instant::now();
        Some(*status)
    }

    /// Takes a registration away. Its name keeps its number.
    pub(crate) fn deregister(&self, id: ParticipantId) {
        self.update(id, |participant| {
            participant.status = None;
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
        let is_draining = |known: &&Participant| known.status.is_some_and(|status| status.draining);
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

/// Whether a participant may have the name.
pub fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    if first && name.len() <= 64 && name.chars().all(good) {
        return Ok(());
    }
    Err(format!(
        "'{}' is no name of a participant; use 1 to 64 of a-z, 0-9 and '-', beginning with a letter, \
         such as inventory",
        name.chars().take(80).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(address: &str) -> Registration {
        Registration::permanent("inventory", address.parse().unwrap(), Capabilities::default())
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

    fn at(port: usize) -> Address {
        format!("http://127.0.0.1:{port}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_nobody_uses_go_and_their_numbers_are_not_given_again() {
        let directory = Directory::default();
        let old = directory.add_address(&at(1)).unwrap().id;
        tokio::time::advance(UNUSED / 2).await;
        let used = directory.add_address(&at(2)).unwrap().id;
        tokio::time::advance(UNUSED / 2).await;
        assert_eq!(directory.unused(), [old]);
        assert!(directory.find(&at(1).to_string()).is_some(), "which uses it");
        assert!(directory.unused().is_empty() && !directory.let_go(old));
        tokio::time::advance(UNUSED).await;
        assert_eq!(directory.unused(), [used, old]);
        assert!(directory.let_go(old) && directory.let_go(used) && !directory.let_go(used));
        assert!(directory.find(&at(1).to_string()).is_none());
        let again = directory.add_address(&at(1)).unwrap().id;
        assert!(again > old && again > used);
        let named = directory.register(&registration("http://127.0.0.1:3")).id;
        tokio::time::advance(UNUSED * 2).await;
        assert_eq!(directory.unused(), [again], "the registered stay");
        assert!(!directory.let_go(named));
    }

    #[tokio::test(start_paused = true)]
    async fn above_the_bound_the_ones_used_longest_ago_go_sooner() {
        let directory = Directory::default();
        for port in 1..=MAX_ADDRESSES + EXCESS {
            assert!(directory.add_address(&at(port)).is_some(), "{port}");
        }
        assert!(directory.add_address(&at(60_000)).is_none(), "until some have gone");
        tokio::time::advance(UNUSED_ABOVE).await;
        directory.find(&at(1).to_string()).unwrap();
        let unused = directory.unused();
        assert_eq!(unused.len(), MAX_ADDRESSES + EXCESS - 1, "all but the one in use");
        for id in unused {
            directory.let_go(id);
        }
        assert!(directory.add_address(&at(60_000)).is_some());
        assert_eq!(directory.all().len(), MAX_ADDRESSES + 1, "no more than need be");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_unless_it_is_renewed() {
        let directory = Directory::default();
        let lease = Some(Duration::from_secs(10));
        directory.register(&Registration { lease, ..registration("http://127.0.0.1:1") });
        let left = || directory.find("inventory").unwrap().status.unwrap().lease_left();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(left(), Some(Duration::from_secs(3)));
        directory.renew("inventory").unwrap();
        assert_eq!(left(), lease);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(left(), Some(Duration::ZERO));
    }
}
