//! The settings of the matcher, and how full it is.

/// The settings of the matcher, beside doors and tripwires.
#[derive(Clone, Copy)]
pub struct Settings {
    /// How many attempts may live at once; at least 1.
    pub capacity: usize,
    /// The key of the table's hash: 16 random bytes, fixed bytes in a replay.
    pub secret: [u8; 16],
}

impl Settings {
    /// How many attempts may live by default: at 50,000 forged first steps a second, an attempt at
    /// the first stage has five seconds, and one beyond has its `seq_timeout`.
    pub const CAPACITY: usize = 262_144;

    /// Returns settings with the default capacity and this secret.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self {
            capacity: Self::CAPACITY,
            secret,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            capacity,
            secret: _,
        } = self;
        f.debug_struct("Settings")
            .field("capacity", capacity)
            .finish_non_exhaustive()
    }
}

/// How full the table is, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// The number of living attempts.
    pub live: usize,
    /// How many attempts may live at once.
    pub capacity: usize,
    /// How many attempts have ended, or not begun, since the start because the table was full.
    pub evicted: u64,
}
