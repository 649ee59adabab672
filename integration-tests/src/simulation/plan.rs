//! What goes wrong in a run, and when: all of it drawn from the seed.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::classes::Drawn;
use crate::{Role, classes::Classes};

/// From here on faults come ...
const FIRST: Duration = Duration::from_millis(300);
/// ... until all is healed.
pub(super) const HEALED: Duration = Duration::from_secs(8);

/// How long before a stranger comes the coordinator's disk is slow, and the longest
/// that a step of it takes then.
const BEFORE: Duration = Duration::from_millis(700);
const SLOW: Duration = Duration::from_millis(300);

/// A machine on the network, by its name.
pub(super) type Host = &'static str;

/// Where the clients are.
pub(super) const CLIENTS: [Host; 2] = ["clients-0", "clients-1"];

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// SIGKILL: what it wrote is there, synced or not.
    Kill,
    /// SIGTERM.
    Stop,
    /// What was not synced is gone.
    PowerLoss,
    /// As that, in the middle of what it writes: after so many changes to its files.
    PowerLossAfter(u32),
}

/// What is wrong with the network between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Nothing arrives.
    Cut,
    /// Nothing from the first arrives at the second.
    CutOneWay,
    /// Everything arrives later, all at once.
    Held,
    /// Everything takes so long.
    Slow(Duration),
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskFault {
    /// It has no room for the log.
    Full,
    /// Syncs of the log fail.
    SyncError,
    /// Each step takes up to so long.
    Slow(Duration),
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Some processes end; they are started again after the fault's time.
    End(End, Roles),
    /// A connection is bad, for the fault's time.
    Wire(Wire, Host, Host),
    /// A disk is bad, for the fault's time.
    Disk(DiskFault, Role),
    /// A wall clock is off by so many milliseconds from now on.
    Clock(Role, i64),
    /// Another coordinator, with a journal of its own, serves where the one was;
    /// clients don't reach it.
    Stranger,
    /// A copy of the coordinator's files is made while it runs ...
    Backup,
    /// ... and is all that is left when it starts again, as restored.
    Restore,
    /// The database is moved away; back at the fault's end.
    Displaced(Role),
}

/// Some of the four, in the order of [`Role::ALL`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Roles([bool; 4]);

/// A fault at its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) at: Duration,
    /// How long until it is healed.
    pub(super) length: Duration,
    pub(super) fault: Fault,
}

/// A run's faults.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// In the order of their times.
    pub(super) faults: Vec<Planned>,
    pub(super) latency: Duration,
    /// How finely time is cut: what happens within a tick at two hosts happens at
    /// one after the other.
    pub(super) tick: Duration,
    /// Customers at each of their hosts.
    pub(super) clients: usize,
    /// The longest pause of a customer between two transactions.
    pub(super) rest: Duration,
    /// Attempts of commit after which a transaction is shown as stalled, and the
    /// like: flags for the coordinator.
    pub(super) flags: Vec<String>,
    /// What it has beside this.
    pub(super) drawn: Drawn,
}

impl Roles {
    fn one(role: Role) -> Self {
        Self(Role::ALL.map(|other| other == role))
    }

    pub(super) fn all(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().zip(self.0).filter_map(|(role, named)| named.then_some(role))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl Plan {
    /// The whole of it.
    pub(super) fn draw(seed: u64, classes: &Classes, random: &mut StdRng) -> Self {
        let drawn = Drawn::of(seed, classes);
        // A network that holds messages back can't be cut one way as well.
        let holds = random.random_bool(0.5);
        let count = match random.random_range(0..10) {
            0 => 0,
            1..4 => random.random_range(1..4),
            _ => random.random_range(4..16),
        };
        let mut faults: Vec<_> = (0..count)
            .map(|_| {
                let at = random.random_range(FIRST..HEALED);
                // Mostly short, so that much happens between two of them.
                let longest = *[200, 1_000, 3_000, 7_000].choose(random).unwrap_or(&1_000);
                let length = Duration::from_millis(random.random_range(50..longest));
                let length = length.min(HEALED - at);
                Planned { at, length, fault: fault(random, holds) }
            })
            .collect();
        // Apart from the others, which are the same with or without it.
        let mut apart = StdRng::seed_from_u64(!seed);
        if apart.random_bool(0.1) {
            let at = apart.random_range(FIRST + BEFORE..HEALED / 2);
            let length = apart.random_range(HEALED / 8..HEALED / 2);
            faults.push(Planned { at, length, fault: Fault::Stranger });
            // So that there are decisions that are durable and that nobody was told.
            let fault = Fault::Disk(DiskFault::Slow(SLOW), Role::Coordinator);
            faults.push(Planned { at: at - BEFORE, length: BEFORE, fault });
        }
        faults.extend(&drawn.faults);
        faults.sort_by_key(|planned| planned.at);
        let mut flags = Vec::new();
        if random.random_bool(0.3) {
            let attempts = random.random_range(1..4_u32);
            flags.extend(["--prepare-attempts".into(), attempts.to_string()]);
        }
        if random.random_bool(0.5) {
            let attempts = random.random_range(1..4_u32);
            flags.extend(["--stalled-after".into(), attempts.to_string()]);
        }
        if random.random_bool(0.3) {
            flags.extend(["--max-in-flight".into(), random.random_range(30..80_u32).to_string()]);
        }
        Self {
            faults,
            latency: Duration::from_millis(*[2, 10, 60].choose(random).unwrap_or(&10)),
            tick: Duration::from_millis(*[1, 5, 5, 5, 10, 10].choose(random).unwrap_or(&5)),
            clients: random.random_range(1..5),
            rest: Duration::from_millis(*[300, 1_000, 3_000].choose(random).unwrap_or(&1_000)),
            flags,
            drawn,
        }
    }
}

fn fault(random: &mut StdRng, holds: bool) -> Fault {
    let role = *Role::ALL.choose(random).unwrap_or(&Role::Coordinator);
    match random.random_range(0..20) {
        0..7 => {
            let end = match random.random_range(0..8) {
                0..3 => End::Kill,
                3 => End::Stop,
                4 => End::PowerLoss,
                _ => End::PowerLossAfter(random.random_range(0..40)),
            };
            let roles = match random.random_range(0..6) {
                0 => Roles([true; 4]),
                1 => Roles(random.random()),
                _ => Roles::one(role),
            };
            Fault::End(end, roles)
        }
        7..14 => {
            let (one, other) = pair(random);
            let wire = match random.random_range(0..4) {
                0 => Wire::Slow(Duration::from_millis(random.random_range(50..3_000))),
                1 if holds => Wire::Held,
                1 | 2 if !holds => Wire::CutOneWay,
                _ => Wire::Cut,
            };
            Fault::Wire(wire, one, other)
        }
        14..18 => {
            let fault = match random.random_range(0..3) {
                0 => DiskFault::Full,
                1 => DiskFault::SyncError,
                _ => DiskFault::Slow(Duration::from_millis(random.random_range(10..1_500))),
            };
            Fault::Disk(fault, role)
        }
        _ => Fault::Clock(role, random.random_range(-100_000..100_000)),
    }
}

/// Two hosts that talk to each other, in either order.
fn pair(random: &mut StdRng) -> (Host, Host) {
    let coordinator = Role::Coordinator.name();
    let others =
        [Role::Inventory.name(), Role::Payment.name(), Role::Order.name(), CLIENTS[0], CLIENTS[1]];
    let other = *others.choose(random).unwrap_or(&CLIENTS[0]);
    if random.random() { (coordinator, other) } else { (other, coordinator) }
}
