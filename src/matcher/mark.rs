//! How a packet is known when it comes again.

use crate::model::{Knock, Transport};

/// What tells a packet from another to the same port, and so a retransmission from a
/// second knock: source port and number (TCP: sequence number; UDP: identification), folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) value: u32,
    /// Whether the packet has a number. IPv6 gives UDP none, nor does IPv4 where it may not be
    /// fragmented (RFC 6864, 4.1): then two that are alike may well be two. So it is for TCP
    /// with a 0, which programs write that make up their packets.
    pub(super) tells: bool,
}

impl Mark {
    pub(super) fn of(knock: &Knock) -> Self {
        let number = match knock.transport {
            Transport::Tcp { flags: _, sequence } => sequence,
            Transport::Udp { identification } => identification.into(),
        };
        // Odd: no two ports give the same, and with a random number none comes near.
        let port = u32::from(knock.source_port).wrapping_mul(0x9e37_79b1);
        Self {
            value: port ^ number,
            tells: number != 0,
        }
    }
}
