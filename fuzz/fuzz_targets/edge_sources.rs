//! See `edge::fuzz::sources`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| edge::fuzz::sources(bytes));
