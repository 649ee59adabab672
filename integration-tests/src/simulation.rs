//! `simulate`: the real services of all four, in one process on a simulated network
//! with virtual time, and their real SQLite on disks that lose what was not synced.
//! Faults, timing and clients come from a seed: the same seed gives the same
//! history, to the last event.

mod audience;
mod classes;
mod command;
mod fault_injector;
mod network;
mod node;
mod opening;
mod plan;
mod run;

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

pub use command::run;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Simulated time since the run began.
fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| NOW.get())
}

fn set_now(now: Duration) {
    NOW.set(now);
}

/// Milliseconds since 1970, by a clock that no fault sets; none where nothing is
/// simulated.
fn clock() -> Option<i64> {
    let elapsed = turmoil::sim_elapsed()?;
    i64::try_from((node::EPOCH + elapsed).as_millis()).ok()
}

/// From here on a panic anywhere is noted for the run on its thread: tasks
/// swallow theirs.
fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
    }));
}

fn take_panics() -> Vec<String> {
    PANICS.take()
}
