//! The shadow of a file: what was synced of it.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use super::disk::{self, Disk};

/// Shadows by path: all connections of a process to a file share one, as they
/// share its pages.
static SHADOWS: LazyLock<Mutex<HashMap<PathBuf, Arc<Shadow>>>> = LazyLock::new(Mutex::default);

/// Where the shadow of `path` is.
pub(crate) fn shadow_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".synced");
    name.into()
}

/// The shadow of the file that is about to be opened.
pub(super) fn of(path: &Path) -> Arc<Shadow> {
    let mut shadows = lock(&SHADOWS);
    match shadows.get(path) {
        Some(shadow) if path.exists() => Arc::clone(shadow),
        _ => {
            let shadow = Arc::new(Shadow::prepare(path).unwrap_or_else(|error| {
                panic!("the shadow of {} cannot be made: {error}", path.display())
            }));
            shadows.insert(path.to_owned(), Arc::clone(&shadow));
            shadow
        }
    }
}

/// Forgets a file that somebody else has changed, or nobody uses any more.
pub(super) fn unload(path: &Path) {
    lock(&SHADOWS).remove(path);
}

/// The file was deleted, durably.
pub(super) fn forget(path: &Path) {
    lock(&SHADOWS).remove(path);
    let _ = fs::remove_file(shadow_path(path));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was synced of one file, and what has changed since.
pub(super) struct Shadow {
    copy: File,
    fault: Option<PathBuf>,
    disk: Option<Arc<Disk>>,
    changes: Mutex<Changes>,
}

/// What has changed in the file since its last sync.
#[derive(Default)]
pub(super) struct Changes {
    written: Vec<Range<u64>>,
    /// The shortest that it has been, if it was truncated.
    shortest: Option<u64>,
}

impl Shadow {
    fn prepare(path: &Path) -> io::Result<Self> {
        let shadow = shadow_path(path);
        let mut changes = Changes::default();
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::create(&shadow)?;
            }
            Err(error) => return Err(error),
            // No earlier run has used this VFS: all of the file counts as synced.
            Ok(_) if !shadow.exists() => {
                fs::copy(path, &shadow)?;
            }
            // What an earlier run left unsynced is not known to be less than all. The
            // shadow is brought up to it in place: a process that is killed meanwhile
            // has written a part of it, and lost nothing that was synced.
            Ok(metadata) => changes.written.push(0..metadata.len()),
        }
        let copy = File::options().read(true).write(true).open(&shadow)?;
        let text = path.as_os_str().to_string_lossy();
        let fault = text.strip_suffix("-wal").map(|database| format!("{database}.fault").into());
        Ok(Self { copy, fault, disk: disk::holding(path), changes: Mutex::new(changes) })
    }

    /// What the control file asks to fail, if this is a WAL.
    pub(super) fn fault(&self) -> Option<Cow<'static, str>> {
        let control = self.fault.as_ref()?;
        match &self.disk {
            Some(disk) => disk.fault().map(Cow::from),
            None => fs::read_to_string(control).ok().map(|text| text.trim().to_owned().into()),
        }
    }

    /// Whether the file can be changed, or synced, once more.
    pub(super) fn takes_change(&self) -> bool {
        self.disk.as_ref().is_none_or(|disk| disk.takes_change())
    }

    /// To be held from before a change of the file until it is noted.
    pub(super) fn changes(&self) -> MutexGuard<'_, Changes> {
        lock(&self.changes)
    }

    /// The file was synced: brings the copy up to it. `read` fills its buffer
    /// from an offset of the file.
    pub(super) fn synced(
        &self,
        changes: &mut Changes,
        length: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(shortest) = changes.shortest.take() {
            let kept = self.copy.metadata()?.len().min(shortest);
            self.copy.set_len(kept)?;
        }
        let mut buffer = vec![0; 64 << 10];
        for range in changes.written.drain(..) {
            let end = range.end.min(length);
            let mut offset = range.start;
            while offset < end {
                let size = (end - offset).min(buffer.len() as u64) as usize;
                read(&mut buffer[..size], offset)?;
                self.copy.write_all_at(&buffer[..size], offset)?;
                offset += size as u64;
            }
        }
        self.copy.set_len(length)
    }
}

impl Changes {
    /// `size` bytes were written at `offset`.
    pub(super) fn wrote(&mut self, offset: u64, size: u64) {
        match self.written.last_mut() {
            Some(last) if last.end == offset => last.end += size,
            Some(last) if last.start == offset && last.end >= offset + size => {}
            _ => self.written.push(offset..offset + size),
        }
    }

    /// The file was cut to `length` bytes.
    pub(super) fn truncated(&mut self, length: u64) {
        self.shortest = Some(self.shortest.map_or(length, |shortest| shortest.min(length)));
    }
}
