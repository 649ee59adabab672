//! Whether the files are still where they were opened.
//!
//! A file that was deleted, moved or replaced can be written to as long as it is
//! open: SQLite reports success, and the next start finds nothing of it. So the
//! paths are compared with what was opened (device and inode): the database and
//! its log after every COMMIT, before anybody is notified of it, and all files
//! and the folder several times a second. Where the lock file is gone, another
//! process may come in: then the epoch is looked at as often.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::OpenError;

/// Of a file: read and written by its owner.
pub(crate) const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Bits of group and others.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The files of a store, as they were opened.
#[derive(Debug)]
pub(crate) struct Place {
    /// Written by every COMMIT: the database and its log.
    written: [Entry; 2],
    others: [Entry; 2],
    lock: Entry,
}

/// A path that does not lead to what was opened there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {path} {found}")]
pub struct Displaced {
    what: &'static str,
    path: PathBuf,
    found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    Another,
    Error(ErrorKind),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("was deleted or moved"),
            Self::Another => f.write_str("was replaced by another"),
            Self::Error(kind) => write!(f, "cannot be inspected: {kind}"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    what: &'static str,
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// Of a database that is open, in WAL mode and written to, with its lock file.
    pub(crate) fn new(database: &Path, lock: &File) -> Result<Self, OpenError> {
        // A folder above may be renamed, too, with the working directory in it.
        let database = std::path::absolute(database).unwrap_or_else(|_| database.into());
        let folder = database.parent().unwrap_or(Path::new("/")).to_owned();
        let lock_path = beside(&database, ".lock");
        let lock_file = lock.metadata().map_err(unreadable(&lock_path))?;
        Ok(Self {
            written: [
                Entry::at("the database", database.clone())?,
                Entry::at("the write-ahead log", beside(&database, "-wal"))?,
            ],
            others: [
                Entry::at("the shared memory file", beside(&database, "-shm"))?,
                Entry::at("the folder", folder)?,
            ],
            lock: Entry::new("the lock file", lock_path, &lock_file),
        })
    }

    /// Whether what the last COMMIT wrote is where the next start looks for it.
    pub(crate) fn check_written(&self) -> Result<(), Displaced> {
        self.written.iter().try_for_each(Entry::check)
    }

    /// Whether other processes are still kept out. Without it nothing is lost: who
    /// comes in raises the epoch.
    pub(crate) fn check_lock(&self) -> Result<(), Displaced> {
        self.lock.check()
    }

    /// All that holds data, and the folder.
    pub(crate) fn check(&self) -> Result<(), Displaced> {
        // The folder's own loss explains the others'.
        self.others.iter().rev().chain(&self.written).try_for_each(Entry::check)
    }
}

impl Entry {
    fn at(what: &'static str, path: PathBuf) -> Result<Self, OpenError> {
        let metadata = fs::metadata(&path).map_err(unreadable(&path))?;
        Ok(Self::new(what, path, &metadata))
    }

    fn new(what: &'static str, path: PathBuf, metadata: &Metadata) -> Self {
        Self { what, path, device: metadata.dev(), inode: metadata.ino() }
    }

    fn check(&self) -> Result<(), Displaced> {
        let found = match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => return Ok(()),
            Ok(_) => Found::Another,
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Found::Nothing,
                // These say nothing of the file.
                ErrorKind::PermissionDenied | ErrorKind::Interrupted | ErrorKind::OutOfMemory => {
                    return Ok(());
                }
                kind => Found::Error(kind),
            },
        };
        Err(Displaced { what: self.what, path: self.path.clone(), found })
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |cause| OpenError::Io { action: "cannot inspect", path: path.into(), cause }
}

/// A file beside the database, whose name begins with the database's.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Makes the folder of a file, its owner's only, so that it survives a loss of power.
pub(crate) fn create_folder(file: &Path) -> Result<(), OpenError> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if folder.is_dir() {
        warn_of_writers(folder);
        return Ok(());
    }
    let io = |action| move |cause| OpenError::Io { action, path: folder.into(), cause };
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(FOLDER_MODE).create(folder);
    made.map_err(io("cannot create the folder"))?;
    for folder in folder.ancestors().take(2).filter(|folder| !folder.as_os_str().is_empty()) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(io("cannot sync the folder"))?;
    }
    Ok(())
}

/// A folder that was there may be shared with others on purpose, and is left as it is.
fn warn_of_writers(folder: &Path) {
    let Ok(mode) = fs::metadata(folder).map(|metadata| metadata.permissions().mode()) else {
        return;
    };
    if lets_others_in(mode) {
        tracing::warn!(
            folder = %folder.display(),
            mode = format!("{:03o}", mode & 0o777),
            "other users can delete or replace the files in this folder; `chmod 700` keeps them out"
        );
    }
}

/// Whether other users can delete or replace the files in a folder of this mode.
fn lets_others_in(mode: u32) -> bool {
    mode & OTHERS_WRITE != 0 && mode & STICKY == 0
}

/// Creates the database, empty, if it is not there: SQLite gives its log and its
/// shared memory the database's own mode. What is wider is tightened.
pub(crate) fn secure_files(database: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { action: "cannot create", path: database.into(), cause };
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(FILE_MODE).open(database) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(io(cause)),
    }
    for suffix in ["", "-wal", "-shm", ".lock"] {
        tighten(&beside(database, suffix));
    }
    Ok(())
}

fn tighten(path: &Path) {
    let Ok(mode) = fs::metadata(path).map(|metadata| metadata.permissions().mode()) else {
        return;
    };
    if mode & OTHERS == 0 {
        return;
    }
    let (file, mode) = (path.display(), format!("{:03o}", mode & 0o777));
    match fs::set_permissions(path, Permissions::from_mode(FILE_MODE)) {
        Ok(()) => tracing::warn!(%file, mode, "others could read this file; its mode is 600 now"),
        Err(error) => {
            tracing::warn!(%file, mode, %error, "others can read this file, and its mode cannot be changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with the files of a store, and its lock file.
    fn files() -> (tempfile::TempDir, PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("data").join("some.db");
        create_folder(&database).unwrap();
        secure_files(&database).unwrap();
        for suffix in ["-wal", "-shm", ".lock"] {
            fs::write(beside(&database, suffix), "").unwrap();
        }
        let lock = File::open(beside(&database, ".lock")).unwrap();
        (folder, database, lock)
    }

    #[test]
    fn each_file_that_is_deleted_or_replaced_is_noticed() {
        for (suffix, what) in [
            ("", "the database"),
            ("-wal", "the write-ahead log"),
            ("-shm", "the shared memory file"),
        ] {
            let (_folder, database, lock) = files();
            let place = Place::new(&database, &lock).unwrap();
            place.check().unwrap();
            let path = beside(&database, suffix);
            // The old one is kept, so that the new one has another inode.
            fs::rename(&path, beside(&database, ".old")).unwrap();
            let displaced = place.check().unwrap_err().to_string();
            assert_eq!(displaced, format!("{what} {} was deleted or moved", path.display()));
            fs::write(&path, "").unwrap();
            let displaced = place.check().unwrap_err().to_string();
            assert_eq!(displaced, format!("{what} {} was replaced by another", path.display()));
            let written = place.check_written();
            assert_eq!(written.is_err(), ["", "-wal"].contains(&suffix), "{suffix}");
            fs::rename(beside(&database, ".old"), &path).unwrap();
            place.check().unwrap();
        }
        let (_folder, database, lock) = files();
        let place = Place::new(&database, &lock).unwrap();
        fs::remove_file(beside(&database, ".lock")).unwrap();
        place.check().unwrap();
        place.check_lock().unwrap_err();
    }

    #[test]
    fn a_folder_that_is_moved_or_replaced_is_named_before_its_files() {
        let (folder, database, lock) = files();
        let place = Place::new(&database, &lock).unwrap();
        let (data, moved) = (folder.path().join("data"), folder.path().join("moved"));
        fs::rename(&data, &moved).unwrap();
        let displaced = place.check().unwrap_err().to_string();
        assert_eq!(displaced, format!("the folder {} was deleted or moved", data.display()));
        place.check_written().unwrap_err();
        fs::create_dir(&data).unwrap();
        let displaced = place.check().unwrap_err().to_string();
        assert_eq!(displaced, format!("the folder {} was replaced by another", data.display()));
        fs::remove_dir(&data).unwrap();
        std::os::unix::fs::symlink(&moved, &data).unwrap();
        place.check().unwrap();
    }

    #[test]
    fn what_others_could_read_is_tightened() {
        let (_folder, database, _lock) = files();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(database.parent().unwrap()), FOLDER_MODE);
        assert_eq!(mode(&database), FILE_MODE);
        fs::set_permissions(&database, Permissions::from_mode(0o664)).unwrap();
        secure_files(&database).unwrap();
        for suffix in ["", "-wal", "-shm", ".lock"] {
            assert_eq!(mode(&beside(&database, suffix)), FILE_MODE, "{suffix}");
        }
    }

    #[test]
    fn what_is_tight_stays_as_it_is() {
        let (_folder, database, _lock) = files();
        fs::set_permissions(&database, Permissions::from_mode(0o400)).unwrap();
        tighten(&database);
        assert_eq!(fs::metadata(&database).unwrap().permissions().mode() & 0o777, 0o400);
    }

    #[test]
    fn a_folder_that_others_write_to_lets_them_in_unless_it_is_sticky() {
        for (mode, expected) in [
            (0o40700, false),
            (0o40755, false),
            (0o40720, true),
            (0o40702, true),
            (0o40777, true),
            (0o41777, false),
        ] {
            assert_eq!(lets_others_in(mode), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_folder_is_made_where_the_process_works_too() {
        let name = tempfile::tempdir_in(".").unwrap();
        fs::remove_dir(name.path()).unwrap();
        let folder = Path::new(name.path().file_name().unwrap());
        create_folder(&folder.join("some.db")).unwrap();
        assert!(name.path().is_dir());
        create_folder(Path::new("some.db")).expect("it is there");
    }

    #[test]
    fn a_database_that_cannot_be_created_is_an_error() {
        let (_folder, database, _lock) = files();
        let below = secure_files(&database.join("other.db"));
        assert!(matches!(below, Err(OpenError::Io { .. })), "{below:?}");
    }
}
