//! Unpacking any archive writes nothing outside of its directory and no more than it may. Checksums are made right
//! first: else no mutated header gets past the first line of the reader.
#![no_main]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use camino::Utf8Path;
use host::tree::{Limits, unpack};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const LIMITS: Limits = Limits {
    entries: 64,
    total_bytes: 1 << 20,
    file_bytes: 1 << 18,
};

fuzz_target!(|bytes: &[u8]| {
    let archive = with_checksums(bytes);
    let around = tempfile::tempdir_in("/dev/shm").expect("there is a directory");
    let inside = around.path().join("inside");
    fs::create_dir(&inside).expect("it is new");
    fs::write(around.path().join("outside"), "untouched").expect("it is new");
    let into = Utf8Path::from_path(&inside).expect("the path is UTF-8");
    let unpacked = unpack(archive.as_slice(), into, &LIMITS);
    let names = fs::read_dir(around.path()).expect("it is there").count();
    assert_eq!(names, 2, "something was written beside the tree");
    let outside = fs::read(around.path().join("outside")).expect("it is there");
    assert_eq!(outside, b"untouched");
    let links = fs::metadata(around.path().join("outside"))
        .expect("it is there")
        .nlink();
    assert_eq!(links, 1, "it was linked");
    let (mut files, mut size) = (0, 0);
    count(&inside, &mut files, &mut size);
    assert!(size <= LIMITS.total_bytes, "{size} bytes");
    if let Ok(totals) = unpacked {
        assert!(totals.entries <= LIMITS.entries && totals.bytes <= LIMITS.total_bytes);
    }
});

fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        if header.iter().any(|byte| *byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let size = str::from_utf8(&header[124..135])
            .ok()
            .and_then(|text| u32::from_str_radix(text, 8).ok());
        let blocks = (size.unwrap_or_default() as usize).div_ceil(BLOCK);
        at = at.saturating_add((1 + blocks) * BLOCK);
    }
    archive
}

fn count(directory: &Path, files: &mut u64, size: &mut u64) {
    for entry in fs::read_dir(directory).expect("the owner can read it").flatten() {
        let metadata = entry.path().symlink_metadata().expect("it is there");
        *files += 1;
        match metadata.is_dir() {
            true => count(&entry.path(), files, size),
            false => *size += metadata.len(),
        }
    }
}
