//! Where a round's faults are begun and ended, each at its time.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    environment::Environment,
    plan::{Fault, Round, Trouble, Wire},
};

/// How often each fault was injected.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<&'static str, usize>>);

impl Counts {
    pub(super) fn by_name(&self) -> BTreeMap<&'static str, usize> {
        self.lock().clone()
    }

    pub(super) fn total(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Turn<'a> {
    Begin(usize, &'a Fault),
    End(usize, &'a Fault),
}

/// Plays a round to its end; what still lasts then is left to [`Environment::heal`].
pub(super) async fn play(
    environment: &Environment,
    round: &Round,
    counts: &Counts,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut turns = Vec::new();
    for (number, planned) in round.faults.iter().enumerate() {
        let end = planned.at + planned.lasting.max(Duration::from_millis(1));
        turns.push((planned.at, Turn::Begin(number, &planned.fault)));
        if end < round.length {
            turns.push((end, Turn::End(number, &planned.fault)));
        }
    }
    turns.sort_by_key(|(at, _)| *at);
    let mut paused = BTreeMap::new();
    for (at, turn) in turns {
        sleep_until(begun + at).await;
        match turn {
            Turn::Begin(number, fault) => {
                *counts.lock().entry(fault.name()).or_default() += 1;
                if let Some(id) = begin(environment, fault)? {
                    paused.insert(number, id);
                }
            }
            Turn::End(number, fault) => end(environment, fault, paused.remove(&number)).await?,
        }
    }
    sleep_until(begun + round.length).await;
    Ok(())
}

/// Returns the id of the process that was paused, if one was.
fn begin(environment: &Environment, fault: &Fault) -> anyhow::Result<Option<u32>> {
    match fault {
        Fault::Kill(roles) => roles.iter().for_each(|role| environment.hold_down(*role)),
        Fault::LosePower(roles) => {
            // All of them first: power goes everywhere at once.
            roles.iter().for_each(|role| environment.hold_down(*role));
            roles.iter().try_for_each(|role| environment.lose_power(*role))?;
        }
        Fault::Pause(role) => return Ok(environment.pause(*role)),
        Fault::Network(wire, trouble) => disturb(environment, *wire, *trouble),
        Fault::FileLimit(role, bytes) => environment.limit_files(*role, Some(*bytes)),
        Fault::Storage(role, name) => environment.fail_storage(*role, Some(name))?,
        Fault::SmallDisk(bytes) => environment.shrink_disk(Some(*bytes)),
        Fault::Clock(role, milliseconds) => environment.set_clock(*role, *milliseconds)?,
        Fault::Displaced(role) => environment.displace(*role)?,
    }
    Ok(None)
}

async fn end(environment: &Environment, fault: &Fault, paused: Option<u32>) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(roles) | Fault::LosePower(roles) => {
            roles.iter().for_each(|role| environment.let_up(*role));
        }
        Fault::Pause(role) => environment.resume(*role, paused),
        Fault::Network(wire, trouble) => calm(environment, *wire, *trouble),
        Fault::FileLimit(role, _) => environment.limit_files(*role, None),
        Fault::Storage(role, _) => environment.fail_storage(*role, None)?,
        Fault::SmallDisk(_) => environment.shrink_disk(None),
        Fault::Clock(role, _) => environment.set_clock(*role, 0)?,
        Fault::Displaced(role) => environment.put_back(*role).await?,
    }
    Ok(())
}

fn disturb(environment: &Environment, wire: Wire, trouble: Trouble) {
    let proxy = environment.wire(wire);
    match trouble {
        Trouble::Delay(delay) => proxy.delay(delay),
        Trouble::Cut => proxy.cut(),
        Trouble::Refuse => {
            proxy.refuse(true);
            proxy.cut();
        }
        Trouble::HalfOpen(end) => proxy.half_open(Some(end)),
        Trouble::Hold(direction) => proxy.hold(direction),
        Trouble::Throttle(rate) => proxy.throttle(NonZeroU32::new(rate)),
    }
}

fn calm(environment: &Environment, wire: Wire, trouble: Trouble) {
    let proxy = environment.wire(wire);
    match trouble {
        Trouble::Delay(_) => proxy.delay(Duration::ZERO),
        Trouble::Cut => {}
        Trouble::Refuse => proxy.refuse(false),
        Trouble::HalfOpen(_) => proxy.half_open(None),
        Trouble::Hold(direction) => proxy.release(direction),
        Trouble::Throttle(_) => proxy.throttle(None),
    }
}
