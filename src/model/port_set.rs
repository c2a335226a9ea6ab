//! Sets of ports.

use std::num::NonZeroU16;

use super::{PortRange, Protocol, Step};

/// A set of ports of both protocols; it takes 16 KiB.
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

    /// Returns whether a port is in the set.
    #[must_use]
    pub fn contains(&self, step: Step) -> bool {
        let (word, bit) = Self::place(step);
        self.0[word] & bit != 0
    }

    /// Returns the ports of one protocol, ascending.
    pub fn ports(&self, protocol: Protocol) -> impl Iterator<Item = NonZeroU16> + '_ {
        let words = match protocol {
            Protocol::Tcp => &self.0[..1024],
            Protocol::Udp => &self.0[1024..],
        };
        (0_u16..).zip(words).flat_map(|(place, word)| {
            // Each turn clears the lowest bit.
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
