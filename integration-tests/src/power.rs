//! Losing power: what was not synced is gone.

use std::{fs, io, path::Path};

use crate::vfs::shadow_path;

pub(crate) const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// Puts in place of a database's files what had been synced of them. The process
/// that used them must be dead, and have used our VFS ([`crate::vfs`]).
///
/// # Errors
///
/// When there are no shadows, or the files cannot be replaced.
pub fn lose(database: &Path) -> io::Result<()> {
    if database.exists() && !shadow_path(database).exists() {
        let text = format!("{} was not written through the test VFS", database.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    for suffix in SUFFIXES {
        let file = with_suffix(database, suffix);
        remove(&file)?;
        let shadow = shadow_path(&file);
        if shadow.exists() {
            fs::copy(shadow, file)?;
        }
    }
    remove(&with_suffix(database, "-shm"))
}

/// Takes a database's files as they are for synced: programs without our VFS have
/// written them.
pub(crate) fn trust(database: &Path) -> io::Result<()> {
    SUFFIXES.iter().try_for_each(|suffix| remove(&shadow_path(&with_suffix(database, suffix))))
}

/// Copies a database's files as they are.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for suffix in SUFFIXES {
        let (from, to) = (with_suffix(from, suffix), with_suffix(to, suffix));
        remove(&to)?;
        if from.exists() {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Puts a copy in the place of a database's files, as if all of it were synced. Nobody
/// may use them.
pub(crate) fn replace(database: &Path, copy: &Path) -> io::Result<()> {
    trust(database)?;
    remove(&with_suffix(database, "-shm"))?;
    self::copy(copy, database)
}

/// Moves a database's files from one place to another; those that are there.
pub(crate) fn displace(from: &Path, to: &Path) -> io::Result<()> {
    for suffix in SUFFIXES.into_iter().chain(["-shm"]) {
        match fs::rename(with_suffix(from, suffix), with_suffix(to, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
