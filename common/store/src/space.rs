//! How much room the disk has.

use std::path::Path;

/// How much has to be free: what ends makes a little room, and back and forth is no
/// change.
pub(crate) fn wanted(had_room: bool, min_free: u64) -> u64 {
    if had_room { min_free } else { min_free.saturating_add(min_free / 16) }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_needs_a_sixteenth_more_to_have_room_again() {
        assert_eq!((wanted(true, 160), wanted(false, 160)), (160, 170));
        assert_eq!((wanted(false, 0), wanted(false, u64::MAX)), (0, u64::MAX));
    }

    #[test]
    fn a_file_without_a_folder_is_on_the_disk_that_the_process_is_on() {
        assert!(has_room(Path::new("some.db"), 1));
        assert!(!has_room(Path::new("some.db"), u64::MAX));
    }
}
