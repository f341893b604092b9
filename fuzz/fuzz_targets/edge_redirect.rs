//! See `edge::fuzz::redirect`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| edge::fuzz::redirect(bytes));
