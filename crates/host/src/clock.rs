//! The one place of this crate that reads the clock.

use jiff::Timestamp;

#[expect(
    clippy::disallowed_methods,
    reason = "effects happen at a time, and records of them say when"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
