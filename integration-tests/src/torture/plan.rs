//! What is done to the processes, the network and the disks, and when: all of it
//! from a seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    Direction, End, Role,
    classes::{Class, Classes},
};

const ROUND: std::ops::Range<u64> = 15_000..30_000;
const PAUSE_BETWEEN: std::ops::Range<u64> = 100..1_800;

/// A TCP route with a proxy on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// From the coordinator to a participant.
    Down(Role),
    /// From a participant that asks to the coordinator.
    Up(Role),
    /// From every other client to the coordinator.
    Clients(usize),
}

impl Wire {
    /// All that there are.
    pub(super) const ALL: [Self; 8] = [
        Self::Down(Role::Inventory),
        Self::Down(Role::Payment),
        Self::Down(Role::Order),
        Self::Up(Role::Inventory),
        Self::Up(Role::Payment),
        Self::Up(Role::Order),
        Self::Clients(0),
        Self::Clients(1),
    ];
}

/// What a network does to a wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    Delay(Duration),
    Cut,
    Refuse,
    HalfOpen(End),
    Hold(Direction),
    Throttle(u32),
}

/// One thing that is done.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// SIGKILL; started again at the fault's end.
    Kill(Vec<Role>),
    /// SIGKILL, and what was not synced is lost.
    LosePower(Vec<Role>),
    /// SIGSTOP; SIGCONT at the fault's end.
    Pause(Role),
    /// The network.
    Network(Wire, Trouble),
    /// Files may grow to so many bytes more than the write-ahead log has.
    FileLimit(Role, u64),
    /// The VFS fails: one of [`vfs`](crate::vfs)'s names.
    Storage(Role, &'static str),
    /// The small file system has so many bytes left.
    SmallDisk(u64),
    /// A wall clock is off by so many milliseconds, right again at the fault's end.
    Clock(Role, i64),
    /// The database is moved away; back at the fault's end.
    Displaced(Role),
}

impl Fault {
    /// For the report.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Kill(roles) => ["SIGKILL", "SIGKILL to several", "SIGKILL to all"][many(roles)],
            Self::LosePower(roles) => {
                ["power loss", "power loss of several", "power loss of all"][many(roles)]
            }
            Self::Pause(_) => "SIGSTOP",
            Self::Network(_, Trouble::Delay(_)) => "network: latency",
            Self::Network(_, Trouble::Cut) => "network: reset",
            Self::Network(_, Trouble::Refuse) => "network: refused",
            Self::Network(_, Trouble::HalfOpen(_)) => "network: half open",
            Self::Network(_, Trouble::Hold(_)) => "network: one way only",
            Self::Network(_, Trouble::Throttle(_)) => "network: throttled",
            Self::FileLimit(..) => "disk: file size limit",
            Self::Storage(_, "sync-error") => "disk: sync error",
            Self::Storage(_, "sync-hang") => "disk: sync hangs",
            Self::Storage(..) => "disk: full in a write",
            Self::SmallDisk(_) => "disk: small file system full",
            Self::Clock(..) => "wall clock off by days",
            Self::Displaced(_) => "disk: database moved away",
        }
    }
}

fn many(roles: &[Role]) -> usize {
    match roles.len() {
        1 => 0,
        4 => 2,
        _ => 1,
    }
}

/// A fault and its time, from the beginning of its round.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) lasting: Duration,
    pub(super) fault: Fault,
}

/// Faults, one after the other and over each other; then everything is healed.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// With the binaries that can lose power.
    pub(super) power: bool,
    pub(super) length: Duration,
    pub(super) faults: Vec<Planned>,
}

/// Which rounds have power losses and failing storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Power {
    /// Every other round.
    Alternate,
    /// All.
    Always,
    /// None: the release binaries in all rounds.
    Never,
}

/// An endless plan.
pub(super) struct Plan {
    random: StdRng,
    power: Power,
    rounds: usize,
    /// Whether there is a small file system.
    small_disk: bool,
    classes: Classes,
}

impl Plan {
    pub(super) fn new(seed: u64, power: Power, small_disk: bool, classes: Classes) -> Self {
        Self { random: StdRng::seed_from_u64(seed), power, rounds: 0, small_disk, classes }
    }

    /// The next round, of `longest` at most.
    pub(super) fn next(&mut self, longest: Duration) -> Round {
        let power = match self.power {
            Power::Alternate => self.rounds % 2 == 1,
            Power::Always => true,
            Power::Never => false,
        };
        self.rounds += 1;
        let length = self.millis(ROUND).min(longest);
        let mut faults = Vec::new();
        let mut at = self.millis(PAUSE_BETWEEN);
        while at < length {
            let (fault, lasting) = self.fault(power);
            faults.push(Planned { at, lasting, fault });
            at += self.millis(PAUSE_BETWEEN);
        }
        Round { power, length, faults }
    }

    fn fault(&mut self, power: bool) -> (Fault, Duration) {
        let role = self.role();
        if let Some(fault) = self.edge(role, power) {
            return fault;
        }
        let kind = self.random.random_range(0..100);
        let kill = |roles| if power { Fault::LosePower(roles) } else { Fault::Kill(roles) };
        match kind {
            0..14 => (Fault::Kill(vec![role]), self.millis(0..3_000)),
            14..24 => (kill(vec![role]), self.millis(0..3_000)),
            24..28 => {
                let mut roles = Role::ALL.to_vec();
                roles.retain(|_| self.random.random_bool(0.6));
                if roles.is_empty() {
                    roles.push(role);
                }
                (kill(roles), self.millis(0..3_000))
            }
            28..31 => (kill(Role::ALL.to_vec()), self.millis(0..2_000)),
            31..40 => (Fault::Pause(role), self.millis(100..2_000)),
            40..43 => (Fault::Pause(role), self.millis(2_000..20_000)),
            43..82 => {
                let wire = *Wire::ALL.choose(&mut self.random).expect("there are wires");
                let trouble = self.trouble();
                (Fault::Network(wire, trouble), self.millis(100..6_000))
            }
            // The shadows would need room on their disk, and length, too.
            82..88 if !power => {
                let bytes = self.random.random_range(0..256 << 10);
                (Fault::FileLimit(role, bytes), self.millis(200..4_000))
            }
            88..94 if self.small_disk && !power => {
                let bytes = self.random.random_range(0..1_500 << 10);
                (Fault::SmallDisk(bytes), self.millis(500..6_000))
            }
            _ if power => {
                let names = ["sync-error", "sync-hang", "write-full"];
                let name = names[self.random.random_range(0..names.len())];
                (Fault::Storage(role, name), self.millis(100..4_000))
            }
            _ => (Fault::Pause(role), self.millis(100..1_000)),
        }
    }

    /// A fault of one of the classes.
    fn edge(&mut self, role: Role, power: bool) -> Option<(Fault, Duration)> {
        if self.classes.has(Class::Displaced) && self.random.random_bool(0.03) {
            return Some((Fault::Displaced(role), self.millis(1_000..3_000)));
        }
        // Only the programs of tests let us.
        if power && self.classes.has(Class::Days) && self.random.random_bool(0.1) {
            let hours = *[2, 25, 24 * 3, 24 * 40].choose(&mut self.random).unwrap_or(&25);
            let sign = if self.random.random_bool(0.6) { 1 } else { -1 };
            return Some((Fault::Clock(role, sign * hours * 3_600_000), self.millis(100..6_000)));
        }
        None
    }

    fn trouble(&mut self) -> Trouble {
        match self.random.random_range(0..100) {
            0..25 => Trouble::Delay(self.millis(1..400)),
            25..50 => Trouble::Cut,
            50..60 => Trouble::Refuse,
            60..75 => {
                let client = self.random.random_bool(0.5);
                Trouble::HalfOpen(if client { End::Client } else { End::Server })
            }
            75..90 => {
                let there = self.random.random_bool(0.5);
                Trouble::Hold(if there { Direction::ToServer } else { Direction::ToClient })
            }
            _ => Trouble::Throttle(self.random.random_range(200..50_000)),
        }
    }

    fn role(&mut self) -> Role {
        Role::ALL[self.random.random_range(0..Role::ALL.len())]
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }
}

/// Whose data is on the small file system in a run with this seed.
pub(super) fn small_disk(seed: u64) -> Role {
    Role::ALL[(seed % Role::ALL.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64) -> Vec<String> {
        let mut plan = Plan::new(seed, Power::Alternate, true, Classes::default());
        (0..20).map(|_| format!("{:?}", plan.next(Duration::from_secs(60)))).collect()
    }

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
    }

    #[test]
    fn a_long_plan_has_every_fault() {
        let mut plan = Plan::new(3, Power::Alternate, true, Classes::default());
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let faults = plan.next(Duration::from_secs(60)).faults;
            names.extend(faults.iter().map(|planned| planned.fault.name()));
        }
        assert_eq!(names.len(), 20, "{names:?}");
    }
}
