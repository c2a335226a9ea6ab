//! How a packet is recognised when it comes again.

use crate::model::{Knock, Transport};

/// Tells a packet from another to the same port, and so a retransmission from a second knock. It is
/// the source port folded with the packet's number (TCP: sequence number; UDP: identification).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) value: u32,
    /// Whether the packet has a number. UDP has none over IPv6, nor over IPv4 where the packet may not
    /// be fragmented (RFC 6864, 4.1): then two packets that look alike may well be two. The same
    /// holds for TCP with a 0, which programs write that make up their packets.
    pub(super) tells: bool,
}

impl Mark {
    pub(super) fn of(knock: &Knock) -> Self {
        let number = match knock.transport {
            Transport::Tcp { flags: _, sequence } => sequence,
            Transport::Udp { identification } => identification.into(),
        };
        // The factor is odd: no two ports give the same product. And the numbers are random: no two
        // packets come near each other.
        let port = u32::from(knock.source_port).wrapping_mul(0x9e37_79b1);
        Self {
            value: port ^ number,
            tells: number != 0,
        }
    }
}
