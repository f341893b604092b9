//! A disk that does not always keep what it is told to: SQLite's own file functions, of which fsync fails now and then.

#![allow(unsafe_code, reason = "SQLite takes file functions as C functions")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    ffi::{c_char, c_int},
    ptr,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rusqlite::ffi::{
    SQLITE_IOERR_FSYNC, SQLITE_OK, sqlite3_file, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};

type Open =
    unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, *mut sqlite3_file, c_int, *mut c_int) -> c_int;
type Sync = unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int;

static OPEN: OnceLock<Open> = OnceLock::new();
static SYNC: OnceLock<Sync> = OnceLock::new();
/// Tables of functions that were met, by address, with the ones that stand in for them.
static TABLES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
static ONE_IN: AtomicU64 = AtomicU64::new(0);

/// From now on one in `one_in` fsyncs of this process fails; 0: none does.
pub fn install(one_in: u64) {
    if one_in == 0 {
        return;
    }
    ONE_IN.store(one_in, Relaxed);
    // SAFETY: the default file system of SQLite is there for ever. A copy of it is made, and given away for ever.
    unsafe {
        let usual = sqlite3_vfs_find(ptr::null());
        let own: &mut sqlite3_vfs = Box::leak(Box::new(*usual));
        OPEN.set(own.xOpen.unwrap()).unwrap();
        own.zName = c"faults".as_ptr();
        own.xOpen = Some(open);
        own.pNext = ptr::null_mut();
        assert_eq!(sqlite3_vfs_register(own, 1), SQLITE_OK);
    }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are passed on as they came; after success the file has a table of functions.
    unsafe {
        let done = OPEN.get().unwrap()(vfs, name, file, flags, out);
        if done == SQLITE_OK && !(*file).pMethods.is_null() {
            (*file).pMethods = table((*file).pMethods);
        }
        done
    }
}

/// The table that stands in for another.
unsafe fn table(usual: *const sqlite3_io_methods) -> *const sqlite3_io_methods {
    let mut tables = TABLES.lock().unwrap();
    if let Some((_, own)) = tables.iter().find(|(known, _)| *known == usual as usize) {
        return *own as *const sqlite3_io_methods;
    }
    // SAFETY: SQLite's tables are constants.
    let own: &mut sqlite3_io_methods = Box::leak(Box::new(unsafe { *usual }));
    let _ = SYNC.set(own.xSync.unwrap());
    own.xSync = Some(sync);
    tables.push((usual as usize, ptr::from_mut(own) as usize));
    own
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    if store::random_bits().unwrap().is_multiple_of(ONE_IN.load(Relaxed)) {
        return SQLITE_IOERR_FSYNC;
    }
    // SAFETY: the arguments are passed on as they came.
    unsafe { SYNC.get().unwrap()(file, flags) }
}
