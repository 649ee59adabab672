//! A file system in memory with little room, for one process's data.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::Role;

const SIZE: &str = "75%";

/// Mounted until it is dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    pub(super) role: Role,
    pub(super) folder: PathBuf,
}

impl SmallDisk {
    /// None where the system doesn't let us.
    pub(super) fn mount(role: Role, parent: &Path) -> Option<Self> {
        let folder = parent.join("small-disk");
        std::fs::create_dir(&folder).ok()?;
        let size = format!("size={SIZE}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        mounted.ok()?.status.success().then_some(Self { role, folder })
    }

    /// Sets its size to what is used and `bytes` more, or to plenty.
    pub(super) fn leave(&self, bytes: Option<u64>) {
        let used: u64 = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some(entry.metadata().ok()?.len().next_multiple_of(4096)))
            .sum();
        let size = bytes.map_or(SIZE.into(), |bytes| (used + bytes.max(4096)).to_string());
        // Fails where more is used by now: then there is no room either way.
        let _ = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.folder)
            .output();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).output();
    }
}
