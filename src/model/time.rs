//! Points in time, and the lifetime of openings.

use std::time::Duration;

/// A point in time: nanoseconds since an epoch that only its maker knows. In the daemon it is
/// `CLOCK_MONOTONIC`; in a replay it is the packet's own Unix time. The two never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the point this long after the epoch. Saturates after some 584 years.
    #[must_use]
    pub fn from_epoch(since: Duration) -> Self {
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the time since the epoch.
    #[must_use]
    pub fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Returns the time from `earlier` to this point; zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Returns the point `wait` later. It saturates: a deadline past the end of time is never reached.
    fn add(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// How long an opening lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// For this long, never zero; the kernel counts in milliseconds.
    For(Duration),
    /// Until it is closed (`until closed`): an element without timeout.
    UntilClosed,
}
