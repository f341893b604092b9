//! Any bytes are a compressed log, read to an end, or refused.
#![no_main]

use std::io::{Seek as _, Write as _};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes)
        .and_then(|()| file.rewind())
        .expect("a temporary file");
    let _ = host::logs::probe(file);
});
