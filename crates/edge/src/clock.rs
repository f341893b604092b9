//! The only place of this room that reads a clock, or asks for chance that must not be guessed.

use std::{sync::OnceLock, time::Instant};

use jiff::Timestamp;

/// The wall clock: for log lines, `Date` and trace ids, and for what lasts longer than a process, as certificates and
/// sessions do.
#[expect(
    clippy::disallowed_methods,
    reason = "log lines and trace ids carry the time of day"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the library has its own source, which cannot be empty");
    bytes
}

/// Milliseconds since the process first asked. All deadlines are counted in them.
pub fn ticks() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A duration as ticks; what does not fit is forever.
pub fn span(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks of a duration of the route table; a negative one is none.
pub fn signed(duration: jiff::SignedDuration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(0)
}
