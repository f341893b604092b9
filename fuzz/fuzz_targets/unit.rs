//! Any text is a unit file, a socket and a timer, and its command lines can be put together.
#![no_main]

use host::agent::unit::{expand_line, parse, socket, split, timer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let listens = socket::parse("fuzz", text);
    assert!(listens.addresses.len() <= 16 && listens.mode <= 0o777);
    let unit = parse("fuzz", text).unit;
    for line in unit.start.iter().chain(&unit.start_pre).chain(&unit.stop) {
        let _ = expand_line(line, |name| (name.len() % 2 == 0).then_some("a b"));
    }
    let _ = split(text);
    for calendar in timer::parse("fuzz", text).calendar {
        let _ = calendar.next(jiff::civil::date(2026, 2, 28).at(23, 59, 59, 0));
    }
});
