//! A disk of a simulated machine: one database with its log, in a process that
//! plays several machines. Its power can be cut at once or at a later write.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
};

use super::shadow;
use crate::power;

static DISKS: LazyLock<Mutex<HashMap<PathBuf, Arc<Disk>>>> = LazyLock::new(Mutex::default);

/// What a disk does wrong, as `<database>.fault` names it.
const FAULTS: [&str; 3] = ["", "sync-error", "write-full"];

/// The disk of one database.
#[derive(Debug)]
pub struct Disk {
    database: PathBuf,
    /// Changes until the power fails; negative once it has.
    changes: AtomicI64,
    fault: AtomicUsize,
}

impl Disk {
    /// The disk for a database that is to be made there.
    pub fn of(database: &Path) -> Arc<Self> {
        let disk = Arc::new(Self {
            database: database.into(),
            changes: AtomicI64::new(i64::MAX),
            fault: AtomicUsize::new(0),
        });
        disks().insert(database.into(), Arc::clone(&disk));
        disk
    }

    /// The machine stops: whatever is still open changes nothing any more.
    pub fn cut(&self) {
        self.changes.store(-1, SeqCst);
    }

    /// The power fails after `changes` more writes, syncs or deletions.
    pub fn cut_after(&self, changes: u32) {
        self.changes.store(i64::from(changes), SeqCst);
    }

    /// Whether the power has failed.
    pub fn is_cut(&self) -> bool {
        self.changes.load(SeqCst) < 0
    }

    /// What was not synced is gone. The power must have been cut, and all
    /// connections closed.
    ///
    /// # Errors
    ///
    /// When files cannot be replaced.
    pub fn lose_unsynced(&self) -> std::io::Result<()> {
        assert!(self.is_cut(), "{} still has power", self.database.display());
        power::lose(&self.database)?;
        self.unload();
        Ok(())
    }

    /// Has a copy's files from now on. As with [`Self::lose_unsynced`].
    ///
    /// # Errors
    ///
    /// When files cannot be replaced.
    pub fn replace(&self, copy: &Path) -> std::io::Result<()> {
        assert!(self.is_cut(), "{} still has power", self.database.display());
        power::replace(&self.database, copy)?;
        self.unload();
        // The power may fail before anybody has opened it.
        let files = power::SUFFIXES.map(|suffix| power::with_suffix(&self.database, suffix));
        files
            .iter()
            .filter(|file| file.exists())
            .try_for_each(|file| std::fs::copy(file, super::shadow_path(file)).map(drop))
    }

    /// Takes it out of the machine, for good.
    pub fn remove(&self) {
        disks().remove(&self.database);
        self.unload();
    }

    fn unload(&self) {
        for suffix in power::SUFFIXES {
            shadow::unload(&power::with_suffix(&self.database, suffix));
        }
    }

    /// The machine starts again.
    pub fn restore(&self) {
        self.changes.store(i64::MAX, SeqCst);
    }

    /// Makes the log's storage fail: `sync-error` or `write-full`; none lets it
    /// work again.
    ///
    /// # Panics
    ///
    /// If there is no such fault.
    pub fn set_fault(&self, fault: Option<&str>) {
        let known = FAULTS.iter().position(|known| *known == fault.unwrap_or_default());
        self.fault.store(known.expect("a known fault"), SeqCst);
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        FAULTS.get(self.fault.load(SeqCst)).copied().filter(|fault| !fault.is_empty())
    }

    /// Whether one more change can be made.
    pub(super) fn takes_change(&self) -> bool {
        self.changes.fetch_update(SeqCst, SeqCst, |left| Some((left - 1).max(-1))).unwrap_or(-1) > 0
    }
}

/// The disk that a file is on, if a simulation made one.
pub(super) fn holding(file: &Path) -> Option<Arc<Disk>> {
    let name = file.as_os_str().as_bytes();
    let database = power::SUFFIXES[1..].iter().find_map(|it| name.strip_suffix(it.as_bytes()));
    disks().get(Path::new(OsStr::from_bytes(database.unwrap_or(name)))).cloned()
}

fn disks() -> MutexGuard<'static, HashMap<PathBuf, Arc<Disk>>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}
