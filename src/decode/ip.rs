//! IPv4 and IPv6, up to the transport header.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, ip_number,
};

use super::cursor::Cursor;

/// A whole IP packet without its headers. `A` is the type of its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct IpPacket<'a, A> {
    /// An address that can be answered.
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) protocol: IpNumber,
    /// The identification of an IPv4 header, else 0.
    pub(super) identification: u16,
    /// The payload without padding.
    pub(super) payload: Cursor<'a>,
}

/// How many extension headers are skipped. RFC 8200 (section 4.1) foresees seven.
const MAX_EXTENSIONS: usize = 8;

/// Takes an IPv4 header off. Returns `None` if the header is not whole, contradicts itself or the
/// wire, belongs to a fragment, or has a source that cannot be answered. `loopback`: the packet came
/// from this very host.
pub(super) fn ipv4(rest: Cursor<'_>, loopback: bool) -> Option<IpPacket<'_, Ipv4Addr>> {
    let header = Ipv4HeaderSlice::from_slice(rest.data()).ok()?;
    let mut payload = rest.limit(usize::from(header.total_len()))?;
    payload.skip(header.slice().len())?;
    let source = header.source_addr();
    if header.is_fragmenting_payload() || !may_be_answered_v4(source, loopback) {
        return None;
    }
    Some(IpPacket {
        source,
        destination: header.destination_addr(),
        protocol: header.protocol(),
        identification: header.identification(),
        payload,
    })
}

/// Takes an IPv6 header and its extension headers off, in the same way.
pub(super) fn ipv6(mut rest: Cursor<'_>, loopback: bool) -> Option<IpPacket<'_, Ipv6Addr>> {
    let header = Ipv6HeaderSlice::from_slice(rest.data()).ok()?;
    rest.skip(header.slice().len())?;
    let payload = rest.limit(usize::from(header.payload_length()))?;
    let source = header.source_addr();
    if !may_be_answered_v6(source, loopback) {
        return None;
    }
    let (protocol, payload) = extensions(header.next_header(), payload)?;
    Some(IpPacket {
        source,
        destination: header.destination_addr(),
        protocol,
        identification: 0,
        payload,
    })
}

/// Whether the address, by itself, is that of a single host that can be answered. Addresses of
/// 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 240.0.0.0/4 are not (RFC 1122, section 3.2.1.3; RFC 1112,
/// section 4). But by its loopback a host answers itself.
fn may_be_answered_v4(source: Ipv4Addr, loopback: bool) -> bool {
    match source.octets()[0] {
        0 | 224.. => false,
        127 => loopback,
        _ => true,
    }
}

/// The same for IPv6. Addresses of ff00::/8, of ::ffff:0:0/96 (on no wire: RFC 4291, section 2.5.5.2,
/// and RFC 4942, section 2.2) and of ::/96 (section 2.5.5.1: deprecated), to which ::1 and :: belong,
/// cannot be answered.
fn may_be_answered_v6(source: Ipv6Addr, loopback: bool) -> bool {
    match source.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => loopback,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => false,
        [first, ..] => first < 0xff00,
    }
}

/// Skips the extension headers that Linux skips before TCP or UDP. Mobility, HIP and Shim6
/// headers carry nothing (RFC 6275, section 6.1.1).
fn extensions(first: IpNumber, mut rest: Cursor<'_>) -> Option<(IpNumber, Cursor<'_>)> {
    let mut next = first;
    for place in 0..=MAX_EXTENSIONS {
        let (after, length) = match next {
            // RFC 8200, section 4.3: right after the IPv6 header or not at all.
            ip_number::IPV6_HEADER_HOP_BY_HOP if place > 0 => return None,
            ip_number::IPV6_HEADER_HOP_BY_HOP | ip_number::IPV6_DESTINATION_OPTIONS => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest.data()).ok()?;
                (header.next_header(), header.slice().len())
            }
            ip_number::IPV6_ROUTE_HEADER => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest.data()).ok()?;
                // RFC 8200, section 4.4: a packet with segments left is still on its way, and
                // no host looks at its payload.
                let [_, 0, ..] = *header.payload() else {
                    return None;
                };
                (header.next_header(), header.slice().len())
            }
            ip_number::IPV6_FRAGMENTATION_HEADER => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest.data()).ok()?;
                // RFC 6946: a packet with neither an offset nor more fragments is whole.
                if header.is_fragmenting_payload() {
                    return None;
                }
                (header.next_header(), header.slice().len())
            }
            ip_number::AUTHENTICATION_HEADER => {
                let header = IpAuthHeaderSlice::from_slice(rest.data()).ok()?;
                (header.next_header(), header.slice().len())
            }
            _ => return Some((next, rest)),
        };
        rest.skip(length)?;
        next = after;
    }
    None
}
