//! From frames to knocks. No other room uses etherparse.
//!
//! [`decode`] returns a [`Knock`] for a TCP segment or UDP datagram with whole headers whose source
//! can be answered, and `None` for everything else. It allocates nothing and trusts no byte.
//! Checksums are not looked at, because offloading leaves them undone. Nor are packets within a
//! tunnel or an ICMP error.

mod cursor;
mod ip;
mod link;
mod transport;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::model::{Frame, Knock};
use ip::IpPacket;
use link::Network;

/// Returns the knock in a frame, if there is one.
#[must_use]
pub fn decode(frame: &Frame<'_>) -> Option<Knock> {
    let link = link::strip(frame)?;
    match link.network {
        Network::Ipv4 => knock(frame, link.interface, &ip::ipv4(link.rest, link.loopback)?),
        Network::Ipv6 => knock(frame, link.interface, &ip::ipv6(link.rest, link.loopback)?),
    }
}

/// Puts the knock together. The function is generic over the address, since an `IpAddr` made before
/// it has its place costs more than all the rest.
fn knock<A: Copy + Into<IpAddr>>(
    frame: &Frame<'_>,
    interface: Option<u32>,
    packet: &IpPacket<'_, A>,
) -> Option<Knock> {
    let segment = transport::read(packet.protocol, packet.identification, packet.payload)?;
    Some(Knock {
        at: frame.at,
        source: packet.source.into(),
        destination: packet.destination.into(),
        step: segment.step,
        source_port: segment.source_port,
        transport: segment.transport,
        interface,
    })
}
