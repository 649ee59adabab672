//! The threads that read.

use std::sync::{Mutex, PoisonError, mpsc};

use rusqlite::Connection;

use crate::{store::Shared, writer};

pub(crate) const THREADS: usize = 2;

/// Reads, and returns how to answer.
pub(crate) type Read = Box<dyn FnOnce(&Connection) -> Box<dyn FnOnce()> + Send>;

pub(crate) fn run(shared: &Shared, connection: &Connection, reads: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let read = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(read) = read else { return };
        let answer = writer::guarded(shared, || read(connection));
        match answer {
            // What was read may be of a batch whose fate is unknown.
            _ if shared.has_failed() => writer::park(),
            Some(answer) => answer(),
            None => writer::park(),
        }
    }
}
