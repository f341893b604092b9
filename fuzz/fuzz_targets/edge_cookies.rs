//! See `edge::fuzz::cookies`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| edge::fuzz::cookies(bytes));
