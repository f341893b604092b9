//! The only room that reads the clock and the machine's randomness. Everywhere else both come in as values.

use jiff::Timestamp;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// 64 bits from the machine's random source.
pub fn bits() -> u64 {
    getrandom::u64().expect("the kernel's random source is always there after boot")
}
