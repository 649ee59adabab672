//! The threads that read.

use std::{
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use rusqlite::Connection;

use crate::shared::Shared;

pub(crate) const THREADS: usize = 2;

/// Reads, and returns how to answer.
pub(crate) type Read = Box<dyn FnOnce(&Connection) -> Answer + Send>;

/// To be kept, and not called, after a failure: whoever waits is told nothing.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// Until every handle of the store is gone.
pub(crate) fn run(shared: &Shared, connection: &Connection, reads: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let read = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(read) = read else { return };
        if let Err(_halted) = perform(shared, connection, read) {
            park();
        }
    }
}

/// Reads and answers, unless the store has failed: what was read may be of a
/// batch whose fate is unknown.
pub(crate) fn perform(
    shared: &Shared,
    connection: &Connection,
    read: Read,
) -> Result<(), Option<Answer>> {
    match shared.guarded(|| read(connection)) {
        Some(answer) if !shared.has_failed() => {
            answer();
            Ok(())
        }
        answer => Err(answer),
    }
}

/// Goes no further, and drops nothing.
fn park() -> ! {
    loop {
        std::thread::park_timeout(Duration::from_secs(3600));
    }
}
