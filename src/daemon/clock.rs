//! The monotonic clock, and durations as text.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::model::Timestamp;

/// Reads the monotonic clock, which decides what has expired.
pub(crate) fn now() -> Timestamp {
    // CLOCK_MONOTONIC cannot fail (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Timestamp::default(), |time| {
        Timestamp::from_epoch(time.into())
    })
}

/// Returns a duration as an administrator writes it: `1h 30m`.
#[must_use]
pub fn duration(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}
