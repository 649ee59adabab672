//! What can go wrong, in words for the one who has to set it right.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Damaged, Displaced};

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "{path} is held by another process ({holder}); stop it, or give this process a data folder of its own"
    )]
    Held {
        /// The file.
        path: PathBuf,
        /// The other process, as far as it is known.
        holder: String,
    },
    /// Another program reads or writes it.
    #[error("{path} is in use by another program, such as a SQLite shell; close it there first")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Something else is in the file.
    #[error(
        "{path} is no journal of this software: {found}; give an empty folder, or one that this service created"
    )]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// It belongs to another service.
    #[error(
        "{path} is the journal of '{found}', this is '{expected}'; every service needs a data folder of its own"
    )]
    WrongRole {
        /// The file.
        path: PathBuf,
        /// The service that created it.
        found: String,
        /// The service that opens it.
        expected: &'static str,
    },
    /// It is ours, and holds what was not written there.
    #[error(
        "{path} is damaged: {damaged}; restore the file from a backup, or start with an empty folder, which means a new identity"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The place of the damage, and its kind.
        damaged: Damaged,
    },
    /// Another version of this software made it.
    #[error("{path} has format {found}, this version reads format {expected} only")]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The one that can be read.
        expected: i64,
    },
    /// The operating system refuses.
    #[error("{action} {path}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The error.
        cause: io::Error,
    },
    /// SQLite refuses.
    #[error("{action} {path}: {cause}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The error.
        cause: rusqlite::Error,
    },
}

impl OpenError {
    /// What the process should exit with (from `sysexits.h`, where that has one).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Held { .. } | Self::Busy { .. } => 75,
            Self::NotAJournal { .. }
            | Self::WrongRole { .. }
            | Self::WrongFormat { .. }
            | Self::Damaged { .. } => 65,
            Self::Io { .. } => 2,
            Self::Sqlite { .. } => 74,
        }
    }
}

/// Why work was not done. Nothing of it is in the file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// SQLite rolled the batch back before anything was promised.
    #[error("the storage rolled the batch back: {cause}")]
    RolledBack {
        /// SQLite's error.
        cause: String,
    },
    /// The work itself failed, and was undone.
    #[error("{0}")]
    Work(String),
    /// The store was closed.
    #[error("the storage is closed")]
    Closed,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The read itself failed.
    #[error("{0}")]
    Work(rusqlite::Error),
    /// The file holds what was not written there.
    #[error(
        "{path} is damaged: {damaged}; restore the file from a backup, or repair the named row; a branch whose record is lost may stay in doubt or end differently from its transaction"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The place of the damage, and its kind.
        damaged: Damaged,
    },
    /// The store was closed.
    #[error("the storage is closed")]
    Closed,
}

impl ReadError {
    pub(crate) fn new(path: &Path, cause: rusqlite::Error) -> Self {
        match Damaged::of(&cause) {
            Some(damaged) => Self::Damaged { path: path.into(), damaged },
            None => Self::Work(cause),
        }
    }
}

/// Why the storage has to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A COMMIT failed: what was in the batch may be on disk, or not.
    #[error(
        "{path}: COMMIT failed ({cause}); whether its records are on disk is unknown, so this process stops; start it again to find out"
    )]
    Commit {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// No batch could be begun.
    #[error("{path}: no write transaction could be begun ({cause})")]
    Begin {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// A checkpoint failed: what was to be synced may not be.
    #[error(
        "{path}: the checkpoint failed ({cause}); whether its pages are synced is unknown, so this process stops"
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// The file is not where it was opened any more: what is written is lost.
    #[error(
        "{path}: {displaced}; later starts would not find new records, so this process stops; put all files of this run back before starting it again"
    )]
    Displaced {
        /// The database.
        path: PathBuf,
        /// What is not there.
        displaced: Displaced,
    },
    /// Another run has taken the file over.
    #[error(
        "{path}: this run has epoch {own}, but the file has epoch {found}: another process has taken it over, so this one stops"
    )]
    Fenced {
        /// The file.
        path: PathBuf,
        /// Of this run.
        own: u64,
        /// Of the run that has the file now.
        found: u64,
    },
    /// A bug.
    #[error("{path}: the storage's own work panicked ({message}), so this process stops")]
    Panicked {
        /// The file.
        path: PathBuf,
        /// What the panic said.
        message: String,
    },
}

impl Failure {
    /// What the process exits with (from `sysexits.h`, where that has one).
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Commit { .. }
            | Self::Begin { .. }
            | Self::Checkpoint { .. }
            | Self::Displaced { .. } => 74,
            Self::Fenced { .. } => 77,
            Self::Panicked { .. } => 70,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_a_disk_from_a_takeover_and_from_a_bug() {
        let path = || PathBuf::from("a.db");
        let cause = || rusqlite::Error::InvalidQuery;
        for (failure, code) in [
            (Failure::Begin { path: path(), cause: cause() }, 74),
            (Failure::Commit { path: path(), cause: cause() }, 74),
            (Failure::Checkpoint { path: path(), cause: cause() }, 74),
            (Failure::Fenced { path: path(), own: 1, found: 2 }, 77),
            (Failure::Panicked { path: path(), message: "no message".into() }, 70),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure}");
        }
    }
}
