//! Whatever a build's container writes, its node reads frames or an error, and an event that it read can be told again.
#![no_main]

use host::build::protocol::{Frame, Frames, read_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut from = bytes;
    while let Ok(Some(frame)) = read_frame(&mut from) {
        let Frame::Event(event) = frame else {
            continue;
        };
        let mut again = Frames(Vec::new());
        again
            .event(&event)
            .expect("what fits into a frame fits into one again");
        let told = read_frame(&mut &again.0[..]).expect("it was just written");
        assert!(matches!(told, Some(Frame::Event(_))));
    }
});
