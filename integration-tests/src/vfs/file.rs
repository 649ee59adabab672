//! An open file: a shadow beside the real VFS's file, which lies behind it in
//! the same memory. What is not about writing is passed on.

use std::{
    ffi::{c_int, c_void},
    io, ptr,
    sync::Arc,
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64};

use super::shadow::Shadow;

#[repr(C)]
struct ShadowedFile {
    base: sqlite3_file,
    /// From `Arc::into_raw`; given back on close.
    shadow: *const Shadow,
}

/// Where the real file begins.
pub(super) const SIZE_BEFORE_REAL: usize = size_of::<ShadowedFile>();

/// Opens the real file with `open_real` and wraps it.
///
/// # Safety
///
/// `file` points to memory of `SIZE_BEFORE_REAL` and the real file's size.
pub(super) unsafe fn open(
    file: *mut sqlite3_file,
    shadow: Arc<Shadow>,
    open_real: impl FnOnce(*mut sqlite3_file) -> c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        (*file).pMethods = ptr::null();
        let result = open_real(real(file));
        if result == ffi::SQLITE_OK {
            (*file.cast::<ShadowedFile>()).shadow = Arc::into_raw(shadow);
            (*file).pMethods = &METHODS;
        }
        result
    }
}

/// SAFETY: `file` is one of ours.
unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the real file lies behind ours in one piece of memory.
    unsafe { file.cast::<u8>().add(SIZE_BEFORE_REAL).cast() }
}

/// SAFETY: `file` is one of ours and open.
unsafe fn shadow<'a>(file: *mut sqlite3_file) -> &'a Shadow {
    // SAFETY: the pointer is good until close.
    unsafe { &*(*file.cast::<ShadowedFile>()).shadow }
}

/// Calls a method of the real file.
macro_rules! call_real {
    ($file:expr, $method:ident($($argument:expr),*)) => {{
        let real = real($file);
        match (*(*real).pMethods).$method {
            Some(method) => method(real, $($argument),*),
            None => unreachable!("the real VFS has this method"),
        }
    }};
}

/// Methods that only call the real one.
macro_rules! pass_on {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        /// SAFETY: called by SQLite with one of our files.
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) $(-> $result)? {
            // SAFETY: the arguments are passed on as they came.
            unsafe { call_real!(file, $method($($argument),*)) }
        }
    )*};
}

pass_on! {
    read = xRead(buffer: *mut c_void, size: c_int, offset: sqlite3_int64) -> c_int;
    file_size = xFileSize(size: *mut sqlite3_int64) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(result: *mut c_int) -> c_int;
    file_control = xFileControl(operation: c_int, argument: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, result: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

/// Version 2: without memory-mapped reads.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// SAFETY: called by SQLite with one of our files, once.
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the shadow came from `Arc::into_raw`.
    unsafe {
        drop(Arc::from_raw((*file.cast::<ShadowedFile>()).shadow));
        call_real!(file, xClose())
    }
}

/// SAFETY: called by SQLite with one of our files.
unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    buffer: *const c_void,
    size: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: the arguments are passed on as they came.
    unsafe {
        let shadow = shadow(file);
        if !shadow.takes_change() {
            return ffi::SQLITE_IOERR_WRITE;
        }
        if shadow.fault().as_deref() == Some("write-full") {
            return ffi::SQLITE_FULL;
        }
        let mut changes = shadow.changes();
        let result = call_real!(file, xWrite(buffer, size, offset));
        // Noted even if it failed: a part may have been written.
        changes.wrote(offset as u64, size as u64);
        result
    }
}

/// SAFETY: called by SQLite with one of our files.
unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: the arguments are passed on as they came.
    unsafe {
        let shadow = shadow(file);
        if !shadow.takes_change() {
            return ffi::SQLITE_IOERR_TRUNCATE;
        }
        let mut changes = shadow.changes();
        let result = call_real!(file, xTruncate(size));
        changes.truncated(size as u64);
        result
    }
}

/// SAFETY: called by SQLite with one of our files.
unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the arguments are passed on as they came.
    unsafe {
        let shadow = shadow(file);
        if !shadow.takes_change() {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        while shadow.fault().as_deref() == Some("sync-hang") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if shadow.fault().as_deref() == Some("sync-error") {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        let mut changes = shadow.changes();
        let mut result = call_real!(file, xSync(flags));
        let mut length = 0;
        if result == ffi::SQLITE_OK {
            result = call_real!(file, xFileSize(&mut length));
        }
        if result != ffi::SQLITE_OK {
            return result;
        }
        let copied = shadow.synced(&mut changes, length as u64, |buffer, offset| {
            // Not through a file of our own: closing it would drop this
            // process's locks on the database.
            let buffer_start = buffer.as_mut_ptr().cast();
            match call_real!(file, xRead(buffer_start, buffer.len() as c_int, offset as i64)) {
                ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ => Ok(()),
                code => Err(io::Error::other(format!("SQLite's error {code}"))),
            }
        });
        match copied {
            Ok(()) => ffi::SQLITE_OK,
            Err(error) => panic!("a shadow cannot be written: {error}"),
        }
    }
}
