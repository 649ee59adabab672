//! Moving the write-ahead log into the file, beside the writer.
//!
//! A failed sync is a storage failure here too: after it, the operating system
//! may take pages for clean that never reached the disk.

use std::{
    fs,
    sync::{Arc, PoisonError, TryLockError, atomic::Ordering::Relaxed},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};

use tokio::{sync::mpsc::Receiver, time::timeout};

use crate::{Failure, identity, shared::Shared};

/// How often the room on the disk is looked at, and whether the files are in their
/// places: several times in the second within which a loss is to be noticed.
const REFRESH: Duration = Duration::from_millis(250);

/// Until the writer hangs up.
pub(crate) async fn run(shared: Arc<Shared>, connection: Connection, mut woken: Receiver<()>) {
    let mut is_locked = true;
    loop {
        match timeout(REFRESH, woken.recv()).await {
            Ok(Some(())) => {
                checkpoint(&shared, &connection, Mode::Passive);
                if shared.has_failed() {
                    return shared.halt().await;
                }
            }
            Ok(None) => return,
            Err(_) => {}
        }
        shared.time.watch(&shared.path.display().to_string());
        if !shared.is_in_place(shared.place.check()) {
            if shared.has_failed() {
                shared.halt().await;
            }
            return;
        }
        if let Err(displaced) = shared.place.check_lock() {
            if std::mem::take(&mut is_locked) {
                let file = shared.path.display();
                tracing::warn!(%file, "{displaced}; another process can take the file over");
            }
            if was_taken_over(&shared, &connection) {
                return shared.halt().await;
            }
        }
        shared.look_for_room();
        if let Ok(metadata) = fs::metadata(&shared.path) {
            shared.counters.file_bytes.store(metadata.len(), Relaxed);
        }
    }
}

/// A failure, if so. What cannot be read now the next batch finds out.
fn was_taken_over(shared: &Shared, connection: &Connection) -> bool {
    let own = shared.identity.epoch;
    match identity::current(connection, &shared.identity) {
        Ok((found, false)) => {
            shared.fail(&Failure::Fenced { path: shared.path.clone(), own, found });
            true
        }
        _ => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As far as it goes without waiting for anybody.
    Passive,
    /// All of it, and the log cut to nothing.
    Truncate,
}

/// False if it could not be done, or not all of it.
pub(crate) fn checkpoint(shared: &Shared, connection: &Connection, mode: Mode) -> bool {
    let _one = shared.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
    perform(shared, connection, mode)
}

/// False, at once, if another thread is at one.
pub(crate) fn try_passive(shared: &Shared, connection: &Connection) -> bool {
    let _one = match shared.checkpointing.try_lock() {
        Ok(one) => one,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    perform(shared, connection, Mode::Passive);
    true
}

fn perform(shared: &Shared, connection: &Connection, mode: Mode) -> bool {
    let sql = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    match connection.query_row(sql, [], |row| row.get::<_, bool>(0)) {
        Ok(busy) => {
            shared.counters.checkpoints.fetch_add(1, Relaxed);
            !busy
        }
        Err(cause) => {
            if can_wait(&cause) {
                tracing::warn!(file = %shared.path.display(), %cause, "the checkpoint was not possible; the write-ahead log stays as it is until the next one");
            } else {
                shared.fail(&Failure::Checkpoint { path: shared.path.clone(), cause });
            }
            false
        }
    }
}

/// Whether the log just stays as long as it is: somebody else is at work, or it keeps what
/// the file has no room for.
fn can_wait(cause: &rusqlite::Error) -> bool {
    matches!(
        cause.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
    )
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_failed_sync_is_the_end_and_a_full_disk_is_not() {
        for (code, expected) in [
            (ffi::SQLITE_BUSY, true),
            (ffi::SQLITE_LOCKED, true),
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_CORRUPT, false),
        ] {
            let cause = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(can_wait(&cause), expected, "{cause}");
        }
    }
}
