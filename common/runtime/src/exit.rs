//! What a service's process ends with when it cannot go on.

use std::process::ExitCode;

/// Exit codes, after `sysexits.h` where that has a fitting one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A flag, environment variable or address is wrong.
    Configuration = 2,
    /// The file is no journal of this service's.
    NotAJournal = 65,
    /// The port is in use.
    PortInUse = 69,
    /// A bug.
    Software = 70,
    /// The disk failed: what was being written may or may not be there.
    Storage = 74,
    /// Another process holds the journal.
    Held = 75,
    /// A newer run of the same coordinator has taken over.
    Fenced = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
