//! What the classes make of a run.

use std::time::Duration;

use dtc_runtime::Environment;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    Start,
    classes::{Class, Classes},
    neighbour::{Manners, Neighbour, Speech},
    workload::{catalog::Extras, registrar, witness::Remembered},
};

const RETENTION: Duration = Duration::from_secs(60);

/// How long finished work is remembered at the least. Bytes count only where nothing
/// goes sooner.
pub(super) fn remembered(seed: u64, classes: &Classes) -> Remembered {
    const FLOOR: Duration = Duration::from_secs(600);
    let least = match forgets_by_age(seed, classes) {
        true => RETENTION,
        false => FLOOR,
    };
    // A process may be paused for that long.
    let on_its_way = Duration::from_secs(25);
    Remembered { coordinator: least, participants: least, on_its_way }
}

fn forgets_by_age(seed: u64, classes: &Classes) -> bool {
    classes.has(Class::Retention) && (seed.is_multiple_of(2) || !classes.has(Class::Bytes))
}

/// Whether the coordinator's disk is lost in the end. Nothing may be compensated then.
pub(super) fn restores(seed: u64, classes: &Classes) -> bool {
    classes.has(Class::Restores) && seed.is_multiple_of(3)
}

/// For all four processes.
pub(super) fn flags(seed: u64, classes: &Classes) -> Start {
    if forgets_by_age(seed, classes) {
        return Start::new().arg("--retention").arg(format!("{}s", RETENTION.as_secs()));
    }
    match classes.has(Class::Bytes) {
        true => Start::new().arg("--retention-bytes").arg("1"),
        false => Start::new(),
    }
}

/// What transactions have beside the usual.
pub(super) fn extras(seed: u64, classes: &Classes) -> Extras {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut extras = Extras {
        forgets: classes.has(Class::Retention) || classes.has(Class::Bytes),
        operators: classes.has(Class::Operators) && random.random_bool(0.5),
        // In the end.
        loses: restores(seed, classes),
        refuses: classes.has(Class::Names) || classes.has(Class::Flags),
        ..Extras::default()
    };
    if classes.has(Class::Names) {
        let [inventory, payment] = registrar::NAMES;
        extras.names = [vec![inventory], vec![payment], Vec::new()];
    }
    let sizes = [10_000, 500_000, (1 << 20) - 64];
    let largest = match classes.has(Class::Sizes) {
        true => *sizes.choose(&mut random).unwrap_or(&10_000),
        false => 100,
    };
    let neighbours = [Class::Neighbours, Class::Forgeries, Class::Sizes];
    if neighbours.into_iter().any(|class| classes.has(class)) {
        extras.neighbours = vec![("vouchers", largest), ("points", largest)];
    }
    extras
}

/// Those that the transactions name, each with its address.
pub(super) async fn neighbours(
    seed: u64,
    extras: &Extras,
    classes: &Classes,
) -> anyhow::Result<Vec<(Neighbour, String)>> {
    let mut found = Vec::new();
    for (number, (name, largest)) in extras.neighbours.iter().enumerate() {
        let speech = if number == 0 { Speech::Http } else { Speech::Calls };
        let trouble = if classes.has(Class::Neighbours) { 15 } else { 2 };
        let forges = classes.has(Class::Forgeries);
        let manners = Manners { trouble, refusals: 5, output: *largest as usize, forges };
        let neighbour = Neighbour::new(name, speech, manners, seed ^ number as u64);
        let port = Environment::real().network.bind(([127, 0, 0, 1], 0).into()).await?;
        let path = if speech == Speech::Http { "/prepare" } else { "" };
        let address = format!("http://{}{path}", port.local_addr()?);
        tokio::spawn(neighbour.clone().serve(port));
        found.push((neighbour, address));
    }
    Ok(found)
}
