//! Any text is a unit file, a socket and a timer, and its command lines can be put together.
#![no_main]

use host::agent::unit::{expand_line, parse, socket, split, timer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let listens = socket::parse("fuzz", text);
    assert!(listens.addresses.len() <= 16 && listens.mode <= 0o777);
    let unit = parse("fuzz", text).unit;
    for line in unit.start.iter().chain(&unit.start_pre).chain(&unit.stop) {
        let _ = expand_line(line, |name| (name.len() % 2 == 0).then_some("a 'b \"c\\ d"));
    }
    let _ = split(text);
    for calendar in timer::parse("fuzz", text).calendar {
        let _ = calendar.after("2026-02-28T23:59:59Z".parse().unwrap());
    }
});
