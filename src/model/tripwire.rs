//! Tripwires: the ports no door uses at which a hit tells a scan from a knock.
//!
//! To see every wrong port the kernel would have to wake us for every SYN. So one port in
//! 64 is watched, another 64th for each source, chosen by a keyed hash that the socket
//! filter computes too: [`hash`] uses nothing that classic BPF has not (32-bit multiply,
//! xor, shift right). The two ports on either side of a step are watched for everyone
//! where no other door's step is near, so that a scan in rising or falling order trips four
//! between any two steps of a door, or hits that other step.

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::{Door, PortRange, Protocol, Step, TripwireMode};

mod near;
#[cfg(test)]
mod tests;

pub use near::NEAR;

/// A port is a sampled tripwire if its hash, shifted right by this, is zero: one in 64.
pub const SHIFT: u32 = 26;

/// The secret of the hash. Drawn at start and never told; fixed in a replay, which must
/// give the same answer each time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TripwireKey([u32; 4]);

impl TripwireKey {
    /// For replays.
    pub const FIXED: Self = Self([0x9e37_79b9, 0x7f4a_7c15, 0xf39c_c060, 0x5ced_c835]);

    /// From 16 random bytes. The multipliers are made odd, so that no bit is lost.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        let word = |i: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&random[i * 4..i * 4 + 4]);
            u32::from_ne_bytes(bytes)
        };
        Self([word(0), word(1) | 1, word(2), word(3) | 1])
    }

    /// The words, for whoever computes the hash elsewhere: initial value, multiplier of the
    /// address, mask of the port, last multiplier.
    #[must_use]
    pub fn words(&self) -> [u32; 4] {
        self.0
    }
}

impl std::fmt::Debug for TripwireKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TripwireKey(secret)")
    }
}

/// The hash of a source and a port. For each 32-bit word `w` of the address, in network
/// order: `h = (h ^ w) * k1; h ^= h >> 15`. Then `h = (h ^ port ^ k2) * k3;
/// h ^= h >> 16; h *= k1`.
#[must_use]
pub fn hash(key: &TripwireKey, source: IpAddr, port: NonZeroU16) -> u32 {
    let [k0, k1, k2, k3] = key.0;
    let mix = |h: u32, w: u32| {
        let h = (h ^ w).wrapping_mul(k1);
        h ^ (h >> 15)
    };
    let h = match source {
        IpAddr::V4(a) => mix(k0, a.to_bits()),
        IpAddr::V6(a) => a
            .octets()
            .chunks_exact(4)
            .map(|c| c.iter().fold(0, |w, b| w << 8 | u32::from(*b)))
            .fold(k0, mix),
    };
    let h = (h ^ u32::from(port.get()) ^ k2).wrapping_mul(k3);
    (h ^ (h >> 16)).wrapping_mul(k1)
}

/// Some ports of both protocols; 16 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; 2048]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; 2048]))
    }
}

impl PortSet {
    fn place(step: Step) -> (usize, u64) {
        let base = match step.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1024,
        };
        let port = usize::from(step.port.get());
        (base + port / 64, 1 << (port % 64))
    }

    /// Adds a port.
    pub fn insert(&mut self, step: Step) {
        let (word, bit) = Self::place(step);
        self.0[word] |= bit;
    }

    /// Adds every port of a range.
    pub fn insert_range(&mut self, range: &PortRange) {
        for port in range.first.get()..=range.last.get() {
            if let Some(step) = Step::new(range.protocol, port) {
                self.insert(step);
            }
        }
    }

    /// Whether a port is in it.
    #[must_use]
    pub fn contains(&self, step: Step) -> bool {
        let (word, bit) = Self::place(step);
        self.0[word] & bit != 0
    }

    /// The ports of one protocol, ascending.
    pub fn ports(&self, protocol: Protocol) -> impl Iterator<Item = NonZeroU16> + '_ {
        let words = match protocol {
            Protocol::Tcp => &self.0[..1024],
            Protocol::Udp => &self.0[1024..],
        };
        (0_u16..).zip(words).flat_map(|(place, word)| {
            // The lowest bit goes with each step.
            let rest = |word: u64| Some(word).filter(|word| *word != 0);
            std::iter::successors(rest(*word), move |word| rest(word & (word - 1)))
                .map(|word| u16::try_from(word.trailing_zeros()).unwrap_or(0))
                .filter_map(move |bit| NonZeroU16::new(place * 64 + bit))
        })
    }
}

impl std::fmt::Debug for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |p| self.ports(p).collect::<Vec<_>>();
        f.debug_struct("PortSet")
            .field("tcp", &of(Protocol::Tcp))
            .field("udp", &of(Protocol::Udp))
            .finish()
    }
}

/// Which ports are tripwires. Whether a hit on one is a stray depends on the packet, too: see
/// the matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tripwires {
    mode: TripwireMode,
    key: TripwireKey,
    steps: PortSet,
    exempt: PortSet,
    /// What lies beside a step, and is no step or opened port itself.
    near: PortSet,
}

impl Tripwires {
    /// The tripwires that go with these doors.
    #[must_use]
    pub fn new(mode: TripwireMode, key: TripwireKey, doors: &[Door]) -> Self {
        let mut wires = Self {
            mode,
            key,
            steps: PortSet::default(),
            exempt: PortSet::default(),
            near: PortSet::default(),
        };
        for door in doors {
            for step in &door.sequence {
                wires.steps.insert(*step);
                wires.exempt.insert(*step);
            }
            for range in &door.open {
                wires.exempt.insert_range(range);
            }
        }
        wires.near = near::near(doors, &wires.exempt);
        wires
    }

    /// Whether the port is a tripwire for `source`.
    #[must_use]
    pub fn is_tripwire(&self, source: IpAddr, step: Step) -> bool {
        match self.mode {
            TripwireMode::Off => false,
            TripwireMode::All => !self.exempt.contains(step),
            TripwireMode::Sampled => {
                self.near.contains(step)
                    || (!self.exempt.contains(step)
                        && hash(&self.key, source, step.port) >> SHIFT == 0)
            }
        }
    }

    /// Whether the port is a tripwire because it lies beside a step.
    #[must_use]
    pub fn is_near(&self, step: Step) -> bool {
        self.mode != TripwireMode::Off && self.near.contains(step)
    }

    /// The ports of one protocol for which [`Self::is_near`] holds, ascending.
    pub fn near(&self, protocol: Protocol) -> impl Iterator<Item = NonZeroU16> + '_ {
        let near = self.near.ports(protocol);
        near.filter(|_| self.mode != TripwireMode::Off)
    }

    /// Which ports are watched.
    #[must_use]
    pub fn mode(&self) -> TripwireMode {
        self.mode
    }

    /// The secret.
    #[must_use]
    pub fn key(&self) -> &TripwireKey {
        &self.key
    }

    /// The steps of all doors.
    #[must_use]
    pub fn steps(&self) -> &PortSet {
        &self.steps
    }

    /// What is never a tripwire: steps, and ports that doors open.
    #[must_use]
    pub fn exempt(&self) -> &PortSet {
        &self.exempt
    }
}
