//! Any bytes said to be a bundle of any format write nothing outside of their directory, and no more than they may.
#![no_main]

use std::{
    fs,
    io::{Seek as _, Write as _},
    path::Path,
};

use camino::Utf8Path;
use host::tree::{Format, Limits, unpack_file};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    entries: 64,
    total_bytes: 1 << 20,
    file_bytes: 1 << 18,
};

fuzz_target!(|bytes: &[u8]| {
    let around = tempfile::tempdir_in("/dev/shm").expect("there is a directory");
    let inside = around.path().join("inside");
    fs::create_dir(&inside).expect("it is new");
    let mut file = tempfile::tempfile_in("/dev/shm").expect("there is a directory");
    file.write_all(bytes).expect("there is room");
    file.rewind().expect("it is a file");
    let into = Utf8Path::from_path(&inside).expect("the path is UTF-8");
    let unpacked = unpack_file(file, Format::Any, into, &LIMITS);
    let names = fs::read_dir(around.path()).expect("it is there").count();
    assert_eq!(names, 1, "something was written beside the tree");
    let size = size(&inside);
    assert!(size <= LIMITS.total_bytes, "{size} bytes");
    if let Ok(totals) = unpacked {
        assert!(totals.entries <= LIMITS.entries && totals.bytes <= LIMITS.total_bytes);
    }
});

fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("the owner can read it").flatten();
    entries
        .map(|entry| {
            let metadata = entry.path().symlink_metadata().expect("it is there");
            if metadata.is_dir() {
                size(&entry.path())
            } else {
                metadata.len()
            }
        })
        .sum()
}
