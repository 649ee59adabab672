//! A SQLite VFS that remembers what was synced, so that a test can take the
//! power away: kill the process, then put in place of each file its shadow,
//! `<file>.synced` (see [`power`](crate::power)).
//!
//! Invariants:
//! - A shadow holds exactly what its file held at the last successful sync.
//! - What an earlier process wrote and did not sync stays unsynced (it is in the
//!   page cache only) until this process syncs the file.
//! - Creating and deleting a file is durable at once; the contents of a file that
//!   was never synced are lost.
//!
//! And it makes storage fail on demand. While `<database>.fault` exists:
//!
//! | its text | what fails |
//! |---|---|
//! | `sync-error` | writes reach the file, but each sync of the WAL reports an I/O error |
//! | `sync-hang` | nothing, but no sync of the WAL ends |
//! | `write-full` | each write to the WAL reports a full disk |

#![allow(unsafe_code)]

mod disk;
mod file;
mod shadow;

pub use disk::Disk;
pub(crate) use shadow::shadow_path;

use std::{
    ffi::{CStr, OsStr, c_char, c_int},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    ptr,
    sync::{Once, OnceLock},
};

use rusqlite::ffi;

/// Processes started with this variable set to 1 use the VFS.
pub const VARIABLE: &str = "DTC_TEST_VFS";

const NAME: &CStr = c"dtc-test";
const SHADOWED: c_int =
    ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL;

/// Makes the VFS this process's default, if [`VARIABLE`] asks for it.
pub fn install_if_asked() {
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "1") {
        install();
    }
}

/// Makes the VFS this process's default, for connections opened from now on.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SQLite initializes itself on the first call and returns its
        // default VFS, which lives as long as the process, as does the copy.
        let registered = unsafe {
            ffi::sqlite3_initialize();
            let real = ffi::sqlite3_vfs_find(ptr::null());
            assert!(!real.is_null(), "SQLite has a default VFS");
            let mut vfs = *real;
            vfs.zName = NAME.as_ptr();
            vfs.szOsFile += file::SIZE_BEFORE_REAL as c_int;
            vfs.pNext = ptr::null_mut();
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            vfs.xCurrentTimeInt64 = Some(current_time);
            REAL.store(real, std::sync::atomic::Ordering::Release);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1)
        };
        assert_eq!(registered, ffi::SQLITE_OK, "a VFS can be registered");
    });
}

/// Milliseconds since 1970, as SQLite is to see them from now on; none for the
/// machine's own.
pub(crate) fn set_clock(clock: fn() -> Option<i64>) {
    let _ = CLOCK.set(clock);
}

static CLOCK: OnceLock<fn() -> Option<i64>> = OnceLock::new();

/// SQLite counts in milliseconds from a noon long ago.
const BEFORE_1970: i64 = 210_866_760_000_000;

/// SAFETY: called by SQLite with room for the time.
unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, time: *mut i64) -> c_int {
    // SAFETY: the real VFS has every method, and `time` is good.
    unsafe {
        if let Some(now) = CLOCK.get().and_then(|clock| clock()) {
            *time = now + BEFORE_1970;
            return ffi::SQLITE_OK;
        }
        let real = real_vfs();
        let current = (*real).xCurrentTimeInt64.expect("a VFS knows the time");
        current(real, time)
    }
}

static REAL: std::sync::atomic::AtomicPtr<ffi::sqlite3_vfs> =
    std::sync::atomic::AtomicPtr::new(ptr::null_mut());

fn real_vfs() -> *mut ffi::sqlite3_vfs {
    REAL.load(std::sync::atomic::Ordering::Acquire)
}

/// SAFETY: called by SQLite, with `file` pointing to `szOsFile` bytes.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let real = real_vfs();
    // SAFETY: the real VFS has every method; `name` is null or a C string.
    unsafe {
        let real_open = (*real).xOpen.expect("a VFS can open files");
        if name.is_null() || flags & SHADOWED == 0 {
            // Needs less room than there is.
            return real_open(real, name, file, flags, flags_out);
        }
        let shadow = shadow::of(&path(name));
        file::open(file, shadow, |file| real_open(real, name, file, flags, flags_out))
    }
}

/// SAFETY: called by SQLite with a C string.
unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    let real = real_vfs();
    // SAFETY: the real VFS has every method.
    unsafe {
        if disk::holding(&path(name)).is_some_and(|disk| !disk.takes_change()) {
            return ffi::SQLITE_IOERR_DELETE;
        }
        let result = (*real).xDelete.expect("a VFS can delete files")(real, name, sync_folder);
        if result == ffi::SQLITE_OK {
            shadow::forget(&path(name));
        }
        result
    }
}

/// SAFETY: `name` is a C string.
unsafe fn path(name: *const c_char) -> PathBuf {
    // SAFETY: as above.
    let name = unsafe { CStr::from_ptr(name) };
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
}
