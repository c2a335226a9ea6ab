//! The number of distinct ports that were hit, counted in 128 bits.
//!
//! Each port sets one bit, chosen by a keyed hash. A port that comes again changes nothing, nor does
//! one that shares a bit with another. So of n distinct ports some 128 (1 - e^(-n/128)) bits are
//! set (linear counting: Whang, Vander-Zanden and Taylor, 1990). The count is exact for a few
//! ports and off by some 8 % around 128; nobody without the key can choose ports that share a
//! bit.

/// The number of bits.
const BITS: u32 = 128;

/// The ports that were hit, as a set of bits; 0 is none. (This is no struct, so that memory the kernel
/// hands out zeroed is full of empty sketches without being touched.)
pub(super) type Sketch = u128;

/// Counts a port by its hash. Returns whether the sketch has more than `limit` now.
pub(super) fn exceeds(sketch: &mut Sketch, hash: u64, limit: Limit) -> bool {
    *sketch |= 1 << (hash % u64::from(BITS));
    sketch.count_ones() > u32::from(limit.0)
}

/// The number of bits that a number of distinct ports set on the average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(u8);

impl Limit {
    /// Returns the limit for this many ports.
    pub(super) fn of(ports: u16) -> Self {
        let (ports, bits) = (f64::from(ports), f64::from(BITS));
        let set = bits * -(-ports / bits).exp_m1();
        // This is between 0 and 128.
        Self(set.round() as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use siphasher::sip::SipHasher13;

    use super::*;

    fn hash(key: u64, port: u32) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(key, 0);
        hasher.write_u32(port);
        hasher.finish()
    }

    /// Returns after how many distinct ports the limit for this many is exceeded: on the average, at
    /// least and at most.
    fn reached(ports: u16) -> (f64, u32, u32) {
        let counts: Vec<u32> = (0..4_000)
            .map(|key| {
                let mut sketch = Sketch::default();
                let limit = Limit::of(ports);
                let exceeds = |port: &u32| exceeds(&mut sketch, hash(key, *port), limit);
                (1..).find(exceeds).expect("more ports than bits")
            })
            .collect();
        let sum: u32 = counts.iter().sum();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        (
            f64::from(sum) / 4_000.,
            *least.expect("some"),
            *most.expect("some"),
        )
    }

    #[test]
    fn a_few_ports_are_counted_exactly_and_many_nearly() {
        let (mean, least, _) = reached(0);
        assert_eq!((mean, least), (1., 1));
        let (mean, least, _) = reached(2);
        assert!((3. ..3.1).contains(&mean) && least == 3, "{mean} {least}");
        let (mean, least, _) = reached(16);
        assert!(
            (15.5..18.5).contains(&mean) && least >= 15,
            "{mean} {least}"
        );
        let (mean, least, most) = reached(128);
        assert!((127. ..132.).contains(&mean), "{mean}");
        // Four standard deviations of 9.6 on either side.
        assert!(least > 90 && most < 180, "{least} {most}");
        let (mean, least, most) = reached(256);
        assert!((250. ..268.).contains(&mean), "{mean}");
        assert!(least > 170 && most < 380, "{least} {most}");
    }

    #[test]
    fn for_a_few_ports_the_limit_is_their_number() {
        for ports in 0..=11 {
            assert_eq!(u16::from(Limit::of(ports).0), ports);
        }
        for (ports, bits) in [(16, 15), (128, 81), (256, 111), (u16::MAX, 128)] {
            assert_eq!(Limit::of(ports), Limit(bits));
        }
    }

    #[test]
    fn a_port_that_comes_again_counts_once() {
        let mut sketch = Sketch::default();
        for _ in 0..1000 {
            assert!(!exceeds(&mut sketch, hash(1, 7), Limit::of(1)));
        }
        assert!(exceeds(&mut sketch, hash(1, 8), Limit::of(1)));
    }
}
