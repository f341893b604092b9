//! Any bytes are a manifest, an index, a configuration or refused; a layer's tar writes nothing outside of its directory.
#![no_main]

use std::fs;

use camino::Utf8Path;
use host::oci::{Document, manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Document::Index(entries)) = manifest::parse(bytes, None) {
        let _ = manifest::choose(&entries, "fuzz");
    }
    let _ = manifest::config(bytes);
    let around = tempfile::tempdir_in("/dev/shm").expect("there is a directory");
    let inside = around.path().join("inside");
    fs::create_dir(&inside).expect("it is new");
    fs::write(around.path().join("outside"), "untouched").expect("it is new");
    let into = Utf8Path::from_path(&inside).expect("the path is UTF-8");
    let mut tar = bytes;
    let _ = host::oci::unpack_tar(&mut tar, into);
    assert_eq!(
        fs::read_dir(around.path()).expect("it is there").count(),
        2,
        "something was written beside the tree"
    );
    let outside = fs::read(around.path().join("outside")).expect("it is there");
    assert_eq!(outside, b"untouched");
});
