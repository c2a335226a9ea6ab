//! Random numbers, the same for the same seed.

/// xorshift64* (Marsaglia and Vigna).
pub(crate) struct Dice(u64);

impl Dice {
    /// Begins with `KNOCKD_SEED`, or with the time. Returns the seed as well.
    pub(crate) fn new() -> (u64, Self) {
        let seed = std::env::var("KNOCKD_SEED").map_or_else(
            |_| {
                let time = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
                u64::from(time.subsec_nanos())
            },
            |text| text.parse().expect("KNOCKD_SEED is a number"),
        );
        println!("KNOCKD_SEED={seed}");
        (seed, Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    /// Other dice, for another thread.
    pub(crate) fn fork(&mut self) -> Self {
        Self((u64::from(self.number(u32::MAX)) << 32 | u64::from(self.number(u32::MAX))) | 1)
    }

    pub(crate) fn number(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % u64::from(end);
        u32::try_from(drawn).expect("below a u32")
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u32::try_from(end).expect("few");
        usize::try_from(self.number(end)).expect("few")
    }

    pub(crate) fn port(&mut self) -> u16 {
        u16::try_from(1 + self.number(65_535)).expect("a port")
    }
}
