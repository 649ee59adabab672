//! Which of the classes a run has, and what of each. Each
//! class draws from a seed of its own: the rest is the same with or without it.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::plan::{DiskFault, Fault, HEALED, Planned, Wire};
use crate::{
    Role,
    classes::{Class, Classes},
    neighbour::Manners,
};

/// What a run has of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Drawn {
    /// How long finished work is remembered, at both sides.
    pub(super) retention: Option<Duration>,
    /// The bound of bytes is always reached, and this is the floor of age.
    pub(super) floor: Option<Duration>,
    pub(super) neighbours: Option<Manners>,
    /// The largest payload of a neighbour.
    pub(super) payload: u32,
    pub(super) names: bool,
    pub(super) flags: bool,
    pub(super) operators: bool,
    pub(super) restores: bool,
    pub(super) faults: Vec<Planned>,
}

impl Drawn {
    /// For one seed; a class that is the only one is in every run.
    pub(super) fn of(seed: u64, classes: &Classes) -> Self {
        let mut drawn = Self { payload: 100, ..Self::default() };
        for class in &classes.0 {
            let own = (*class as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = StdRng::seed_from_u64(seed ^ own);
            if classes.0.len() == 1 || random.random_range(0..100) < share(*class) {
                drawn.draw(*class, &mut random);
            }
        }
        drawn
    }

    fn draw(&mut self, class: Class, random: &mut StdRng) {
        match class {
            Class::Retention => {
                self.retention = Some(Duration::from_millis(random.random_range(2_500..6_000)));
            }
            Class::Bytes => {
                self.floor = Some(Duration::from_millis(random.random_range(2_500..6_000)));
            }
            Class::Days => {
                for _ in 0..random.random_range(1..6) {
                    let fault = jump(random);
                    let at = Duration::from_millis(random.random_range(0..7_500));
                    let for_good = random.random_bool(0.3);
                    let length = random.random_range(500..2_500);
                    let length = Duration::from_millis(if for_good { u64::MAX } else { length });
                    self.faults.push(Planned { at, length, fault });
                }
            }
            Class::Neighbours | Class::Forgeries => {
                let manners = Manners {
                    trouble: *[0, 10, 30, 60].choose(random).unwrap_or(&10),
                    refusals: random.random_range(0..20),
                    output: 40,
                    forges: class == Class::Forgeries,
                };
                let forges = self.neighbours.is_some_and(|it| it.forges) || manners.forges;
                self.neighbours = Some(Manners { forges, ..manners });
                for _ in 0..random.random_range(0..4) {
                    self.faults.push(near_fault(random));
                }
            }
            Class::Sizes => {
                let manners = self.neighbours.unwrap_or(Manners {
                    trouble: 5,
                    refusals: 5,
                    output: 0,
                    forges: false,
                });
                let output = *[10_000, 200_000, 1 << 20].choose(random).unwrap_or(&10_000);
                self.neighbours = Some(Manners { output, ..manners });
                // Just below a MiB with what is around it, the largest by default.
                self.payload = *[10_000, 200_000, (1 << 20) - 64].choose(random).unwrap_or(&10_000);
            }
            Class::Names => self.names = true,
            Class::Flags => self.flags = true,
            Class::Operators => self.operators = true,
            Class::Displaced => {
                // Each database once: the end of one fault must not heal another.
                let first = random.random_range(0..Role::ALL.len());
                for next in 0..random.random_range(1..3) {
                    let role = Role::ALL[(first + next) % Role::ALL.len()];
                    let at = Duration::from_millis(random.random_range(300..4_500));
                    let length = Duration::from_millis(random.random_range(2_500..3_500));
                    self.faults.push(Planned { at, length, fault: Fault::Displaced(role) });
                }
            }
            Class::Restores => {
                self.restores = true;
                let backup = Duration::from_millis(random.random_range(300..4_000));
                let restore = backup + Duration::from_millis(random.random_range(300..3_500));
                let length = Duration::from_millis(random.random_range(50..1_500));
                let of = |at, length, fault| Planned { at, length, fault };
                self.faults.push(of(backup, Duration::ZERO, Fault::Backup));
                self.faults.push(of(restore, length, Fault::Restore));
            }
        }
    }
}

/// In how many of a hundred runs a class is.
fn share(class: Class) -> u32 {
    match class {
        Class::Retention | Class::Days | Class::Neighbours | Class::Names => 30,
        Class::Forgeries | Class::Flags | Class::Operators => 20,
        Class::Bytes | Class::Sizes | Class::Restores | Class::Displaced => 10,
    }
}

/// A clock that is off by hours to months.
fn jump(random: &mut StdRng) -> Fault {
    const HOUR: i64 = 3_600_000;
    let role = *Role::ALL.choose(random).unwrap_or(&Role::Coordinator);
    let hours = *[2, 25, 24 * 3, 24 * 40].choose(random).unwrap_or(&25);
    let sign = if random.random_bool(0.6) { 1 } else { -1 };
    Fault::Clock(role, sign * hours * HOUR + random.random_range(-HOUR..HOUR))
}

fn near_fault(random: &mut StdRng) -> Planned {
    let at = Duration::from_millis(random.random_range(300..7_500));
    let length = Duration::from_millis(random.random_range(50..4_000)).min(HEALED - at);
    let coordinator = Role::Coordinator.name();
    let other = if random.random() { HTTP } else { UNARY };
    let fault = match random.random_range(0..4) {
        0 => Fault::Wire(Wire::Slow(Duration::from_millis(1_500)), coordinator, other),
        1 => Fault::Disk(DiskFault::Slow(Duration::from_millis(300)), Role::Coordinator),
        _ => Fault::Wire(Wire::Cut, coordinator, other),
    };
    Planned { at, length, fault }
}

/// The neighbours' names.
pub(super) const HTTP: &str = "vouchers";
pub(super) const UNARY: &str = "points";
