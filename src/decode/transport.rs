//! The fixed headers of TCP and UDP.

use etherparse::{IpNumber, UdpHeaderSlice, ip_number};

use super::cursor::Cursor;
use crate::model::{Protocol, Step, Transport};

/// The contents of a transport header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// The port that was hit.
    pub(super) step: Step,
    pub(super) source_port: u16,
    /// The numbers that tell a packet from a retransmission.
    pub(super) transport: Transport,
}

/// RFC 9293, section 3.1: the header without options, in bytes.
const TCP_HEADER: usize = 20;

/// RFC 768.
const UDP_HEADER: usize = 8;

/// Reads the transport header of a packet with this IPv4 identification. Returns `None` if the header
/// is neither TCP nor UDP, was not captured, is longer than the packet, or is for port 0.
pub(super) fn read(
    protocol: IpNumber,
    identification: u16,
    payload: Cursor<'_>,
) -> Option<Segment> {
    match protocol {
        ip_number::TCP => tcp(payload),
        ip_number::UDP => udp(identification, payload),
        _ => None,
    }
}

/// Reads a TCP header by hand: etherparse wants the options as well, which the capture may have cut
/// off.
fn tcp(mut payload: Cursor<'_>) -> Option<Segment> {
    let whole = payload.wire();
    let [
        s0,
        s1,
        d0,
        d1,
        n0,
        n1,
        n2,
        n3,
        _,
        _,
        _,
        _,
        offset,
        flags,
        ..,
    ] = *payload.take::<TCP_HEADER>()?;
    let length = usize::from(offset >> 4) * 4;
    if length < TCP_HEADER || length > whole {
        return None;
    }
    Some(Segment {
        step: Step::new(Protocol::Tcp, u16::from_be_bytes([d0, d1]))?,
        source_port: u16::from_be_bytes([s0, s1]),
        transport: Transport::Tcp {
            flags,
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        },
    })
}

fn udp(identification: u16, payload: Cursor<'_>) -> Option<Segment> {
    let header = UdpHeaderSlice::from_slice(payload.data()).ok()?;
    let length = usize::from(header.length());
    if length < UDP_HEADER || length > payload.wire() {
        return None;
    }
    Some(Segment {
        step: Step::new(Protocol::Udp, header.destination_port())?,
        source_port: header.source_port(),
        transport: Transport::Udp { identification },
    })
}
