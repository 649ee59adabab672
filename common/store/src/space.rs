//! How much room the disk has.

use std::path::Path;

/// Whether the disk that holds `file` has `min_free` bytes free. True where that
/// cannot be found out: a full disk shows itself.
pub(crate) fn has_room(file: &Path, min_free: u64) -> bool {
    if min_free == 0 {
        return true;
    }
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    let Ok(disk) = nix::sys::statvfs::statvfs(folder.unwrap_or(Path::new("."))) else {
        return true;
    };
    disk.blocks_available().saturating_mul(disk.fragment_size()) >= min_free
}
