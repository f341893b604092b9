//! Any bytes are what earlier runs said, or nothing.
#![no_main]

use host::build::report::History;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let history = History::read(bytes);
    assert_eq!(History::read(&history.write()), history);
});
